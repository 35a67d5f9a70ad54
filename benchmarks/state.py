"""What do questions to the store cost?

- A `get` and a durable `set`, as multiples of a bare async actor's call, interleaved round by round.
- 1,000 sets as one batch, and as one message, against singly.
- The gets of 100 threads, which leave together, against one after the other.
- Without Ray: the rows that the committer writes in a second for 100 writers at once.
- Without Ray: what a write of a session with 10,000 variables costs against one with 10, in processor time.

CPU of the store is the processor time of its actor by question."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import itertools
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import ray

from benchmarks.common import arguments, init_ray, machine, median, save
from benchmarks.peers import Bare
from snakepit_ray.client.store_calls import StoreCalls
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.state.asked import Creation, Data, Get, Put, Question
from snakepit_ray.core.state.constraints import demanded
from snakepit_ray.core.state.writes import Change, Register, Set
from snakepit_ray.port.naming import NAMESPACE
from snakepit_ray.port.store_actor import STORE
from snakepit_ray.store import spawn
from snakepit_ray.store.disk import Disk
from snakepit_ray.store.store import Store

CALLS = 1_000
BATCH = 1_000
THREADS = 100
WRITERS = 100
FLOAT = demanded("float", {}, "x")
POOL = Creation("bench", 3600.0, 10_000)
Row = dict[str, float]
_ops = itertools.count()


def main() -> None:
    args = arguments(__doc__, rounds=5, calls=CALLS)
    init_ray()
    header = machine()
    rows = asyncio.run(rounds(args.rounds, args.calls))
    with tempfile.TemporaryDirectory() as folder:
        alone = [asyncio.run(committer(Path(folder) / f"{n}.db", args.calls)) for n in range(args.rounds)]
    report(rows, alone)
    save("state", args.json, {"machine": header, "rounds": rows, "committer": alone})
    ray.shutdown()


def put(*changes: Change, session: str = "s") -> Put:
    return Put(session, f"op-{next(_ops)}", changes, creation=POOL)


def value(number: float) -> Data:
    return Data(repr(float(number)).encode())


async def rounds(count: int, calls: int) -> list[Row]:
    """The figures of each round, milliseconds a call at the median."""
    await spawn.connect(PoolConfig(name="bench"))
    store = ray.get_actor(STORE, NAMESPACE)
    process = psutil.Process(await store.get_pid.remote())
    bare = ray.remote(Bare).options(num_cpus=0, max_concurrency=1_000_000, enable_task_events=False).remote()
    names = [f"x{n}" for n in range(BATCH)]
    await store.ask.remote([put(*(Register(name, value(0), FLOAT) for name in names))])
    threads = StoreCalls(functools.partial(spawn.connect, PoolConfig(name="bench")))
    steps: dict[str, Callable[[int], Awaitable[Any]]] = {
        "bare": lambda i: bare.add.remote(i, 3),
        "get": lambda i: store.ask.remote([Get("s", ("x0",))]),
        "set": lambda i: store.ask.remote([put(Set("x0", value(i)))]),
    }
    rows = []
    for number in range(count + 1):
        row: Row = {}
        for name, step in steps.items():
            row.update(await alone(name, step, calls if number else 100, process))
        row.update(await batches(store, names))
        row.update(await asyncio.to_thread(many_threads, threads))
        rows.append(row)
    threads.close(RuntimeError("the benchmark is over"))
    return rows[1:]  # the first one warms


async def alone(name: str, step: Callable[[int], Awaitable[Any]], calls: int, process: psutil.Process) -> Row:
    """One caller that waits for each answer."""
    times, before = [], sum(process.cpu_times()[:2])
    for i in range(calls):
        began = time.perf_counter()
        await step(i)
        times.append((time.perf_counter() - began) * 1e3)
    used = sum(process.cpu_times()[:2]) - before
    return {f"{name}_ms": sorted(times)[calls // 2], f"{name}_cpu_ms": used / calls * 1e3}


async def batches(store: Any, names: Sequence[str]) -> Row:
    """1,000 sets: one change of a thousand names, a message of a thousand questions, singly a tenth of
    them."""
    atomic = put(*(Set(name, value(1)) for name in names))
    message: list[Question] = [put(Set(name, value(2))) for name in names]
    row = {
        "batch_ms": await _ms(lambda: store.ask.remote([atomic])),
        "message_ms": await _ms(lambda: store.ask.remote(message)),
    }
    began = time.perf_counter()
    for name in names[: BATCH // 10]:
        await store.ask.remote([put(Set(name, value(3)))])
    return {**row, "singly_ms": (time.perf_counter() - began) * 1e3 * 10}


async def _ms(act: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await act()
    return (time.perf_counter() - began) * 1e3


def many_threads(calls: StoreCalls) -> Row:
    """Gets a second of threads that each wait for their answers, and of one."""

    def get(count: int) -> None:
        for _ in range(count):
            calls.ask(Get("s", ("x0",)))

    began = time.perf_counter()
    get(100)
    one = 100 / (time.perf_counter() - began)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        began = time.perf_counter()
        list(pool.map(get, [20] * THREADS))
        many = 20 * THREADS / (time.perf_counter() - began)
    return {"gets_one": one, "gets_threads": many}


async def committer(path: Path, calls: int) -> Row:
    """Without Ray: rows a second of writers at once, and processor time of a write by the session's size."""
    store = Store(Disk.open(path, True))
    row: Row = {}
    for session, count in (("small", 10), ("large", 10_000)):
        await _checked(
            store, put(*(Register(f"x{n}", value(0), FLOAT) for n in range(count)), session=session)
        )
    for session in ("small", "large", "small", "large"):
        began = resource.getrusage(resource.RUSAGE_SELF)
        await writers(store, session, calls)
        ended = resource.getrusage(resource.RUSAGE_SELF)
        used = ended.ru_utime - began.ru_utime + ended.ru_stime - began.ru_stime
        row[f"{session}_cpu_us"] = min(used / calls * 1e6, row.get(f"{session}_cpu_us", 1e9))
    began_at = time.perf_counter()
    await writers(store, "small", 10 * calls)
    row["rows_per_s"] = 10 * calls / (time.perf_counter() - began_at)
    await store.close()
    return row


async def writers(store: Store, session: str, writes: int) -> None:
    """So many writes, of WRITERS that each wait for their own."""

    async def write(writer: int) -> None:
        for number in range(writes // WRITERS):
            await _checked(store, put(Set(f"x{writer % 10}", value(number)), session=session))

    await asyncio.gather(*map(write, range(WRITERS)))


async def _checked(store: Store, question: Put) -> None:
    (answer,) = await store.ask([question])
    if isinstance(answer, Exception):
        raise answer


def report(rows: list[Row], alone_rows: list[Row]) -> None:
    """The ratios; milliseconds beside them."""
    figure = functools.partial(median, rows)
    bare = figure("bare_ms")
    for name in ("get", "set"):
        print(
            f"{name}: {figure(f'{name}_ms') / bare:.2f} x a bare async actor's call "
            f"({figure(f'{name}_ms'):.2f} against {bare:.2f} ms); the store's processor time "
            f"{figure(f'{name}_cpu_ms'):.2f} ms"
        )
    for name in ("batch", "message"):
        ratio = figure("singly_ms") / figure(f"{name}_ms")
        print(f"1,000 sets as one {name}: {figure(f'{name}_ms'):.0f} ms, {ratio:.0f} x faster than singly")
    print(
        f"gets of {THREADS} threads: {figure('gets_threads'):,.0f}/s, "
        f"{figure('gets_threads') / figure('gets_one'):.1f} x those of one"
    )
    large, small = median(alone_rows, "large_cpu_us"), median(alone_rows, "small_cpu_us")
    print(f"without Ray: {median(alone_rows, 'rows_per_s'):,.0f} rows/s of {WRITERS} writers")
    print(
        f"a write beside 10,000 variables: {large / small:.2f} x one beside 10 ({large:.0f}, {small:.0f} µs)"
    )


if __name__ == "__main__":
    main()
