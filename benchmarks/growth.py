"""What does a pool cost as it grows on one machine? Pools of 2, 8, 32 and 64 workers against as many bare
async actors, one after the other, round by round.

- Start: seconds until all are ready, and processor time of the whole cluster for each.
- Rates: `pool.map("add")`, `execute_batch` and `await call` from 1,000 callers, as a share of those at the
  smallest size. An idle Ray actor takes about 1 % of a core by itself: 64 of them leave less for the work.
- Idle: processor time of a worker (actor, interpreter, its share of the router) beyond a bare actor's.
- Memory: private bytes (USS).

It begins no round that would not end within `--seconds`, and then starts larger pools once (`--large`), as
far as time and memory allow. The curves go to benchmarks/results/growth.svg."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import ray

import snakepit_ray as snakepit
from benchmarks.common import RESULTS, arguments, init_ray, machine, median, router_pid, save, uss_mb
from benchmarks.peers import Bare
from benchmarks.plot import Curve, Panel, drawing

CALLERS = 1_000
IDLE_SECONDS = 10.0
SETTLE_SECONDS = 6.0  # after the last call: what is remembered of it goes, and the first health check
BESIDE = 4  # bare actors that are idle beside a pool
SPARE_MB = 100.0  # of memory for each worker of a larger pool
RATES = ("map", "execute_batch", "call")
Row = dict[str, float]


def main() -> None:
    args = arguments(
        __doc__, rounds=2, items=200_000, seconds=420.0, sizes="2 8 32 64", large="120 200", wire="auto"
    )
    began = time.perf_counter()
    init_ray(2)
    header = machine()
    sizes, rows = [int(size) for size in args.sizes.split()], {}
    (
        pool_round(sizes[0], args.items, args.wire),
        bare_round(sizes[0]),
    )  # the first of each fills caches of the disk
    for _ in range(args.rounds):
        round_began = time.perf_counter()
        for size in sizes:
            rows.setdefault(size, []).append(bare_round(size) | pool_round(size, args.items, args.wire))
        now = time.perf_counter()
        if now - began + (now - round_began) > args.seconds:
            break
    medians = {size: {key: median(of, key) for key in of[0]} for size, of in rows.items()}
    report(medians)
    large = {}
    for size in map(int, args.large.split()):
        if (refused := no_room(size, began, args.seconds, medians[sizes[-1]])) is None:
            large[size] = start_only(size, args.wire)
            print(f"{size} workers: {large[size]:.1f} s until ready")
        else:
            print(f"{size} workers: not tried, {refused}")
    draw(medians, Path(args.json).with_suffix(".svg") if args.json else RESULTS / "growth.svg")
    save("growth", args.json, {"machine": header, "rounds": rows, "large": large})


def bare_round(size: int) -> Row:
    """Bare async actors: start and memory."""
    used, began = processor_seconds(), time.perf_counter()
    with bare_actors(size) as pids:
        return {
            "bare_s": time.perf_counter() - began,
            "bare_cpu": processor_seconds() - used,
            "bare_mb": uss_mb(pids) / size,
        }


@contextlib.contextmanager
def bare_actors(count: int) -> Iterator[list[int]]:
    """The processes of so many, once all are there."""
    bare = ray.remote(Bare).options(num_cpus=0, max_concurrency=1_000_000, enable_task_events=False)
    actors = [bare.remote() for _ in range(count)]
    pids = ray.get([actor.pid.remote() for actor in actors])
    yield pids
    for actor in actors:
        ray.kill(actor)
    wait_gone(pids)


def pool_round(size: int, items: int, wire: str) -> Row:
    """A pool: start, rates, idle cost, memory."""
    used, began = processor_seconds(), time.perf_counter()
    with snakepit.start(name="growth", size=size, interpreter=sys.executable, wire=wire) as pool:
        row = {"pool_s": time.perf_counter() - began, "pool_cpu": processor_seconds() - used}
        workers = pool.workers()
        pids = {
            "actors": [worker.actor_pid for worker in workers],
            "interpreters": [worker.pid for worker in workers],
            "router": [router_pid("growth")],
        }
        row |= rates(pool, items)
        with bare_actors(BESIDE) as bare:  # in the same seconds: what Ray's own take differs by the hour
            time.sleep(SETTLE_SECONDS)
            idle = idle_share({**pids, "bare": bare})
        row |= {f"{name}_idle": share / size for name, share in idle.items() if name != "bare"}
        row["bare_idle"] = idle["bare"] / BESIDE
        row |= {f"{name}_mb": uss_mb(of) / size for name, of in pids.items()}
    wait_gone([pid for of in pids.values() for pid in of])
    return row


def rates(pool: Any, items: int) -> Row:
    """Items a second, each way; the first round of each warms."""
    ways: dict[str, tuple[int, Callable[[int], object]]] = {
        "map": (items, lambda n: drain(pool.map("add", arguments_of(n)))),
        "execute_batch": (items // 2, lambda n: pool.execute_batch("add", arguments_of(n))),
        "call": (items // 5, lambda n: asyncio.run(call_from_many(pool, n))),
    }
    row = {}
    for name, (count, way) in ways.items():
        way(count // 10)
        began = time.perf_counter()
        way(count)
        row[name] = count / (time.perf_counter() - began)
    return row


def arguments_of(count: int) -> Iterable[dict[str, int]]:
    return ({"a": i, "b": 1} for i in range(count))


def drain(results: Iterable[Any]) -> None:
    for _ in results:
        pass


async def call_from_many(pool: Any, count: int) -> None:
    async def caller() -> None:
        for i in range(max(1, count // CALLERS)):
            await pool.call("add", {"a": i, "b": 1})

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


def start_only(size: int, wire: str) -> float:
    """Seconds until a larger pool is ready and has answered."""
    began = time.perf_counter()
    with snakepit.start(name="growth", size=size, interpreter=sys.executable, wire=wire) as pool:
        pool.await_ready(600.0)
        pool.execute("add", {"a": 1, "b": 2})
        seconds = time.perf_counter() - began
        pids = [pid for worker in pool.workers() for pid in (worker.actor_pid, worker.pid)]
    wait_gone(pids)
    return seconds


def no_room(size: int, began: float, seconds: float, largest: Row) -> str | None:
    """Why a larger pool is not tried; None where it is."""
    free = psutil.virtual_memory().available / 1e6
    if free < size * SPARE_MB:
        return f"{free:,.0f} MB are free and it may take {size * SPARE_MB:,.0f}"
    left = seconds - (time.perf_counter() - began)
    needs = 1.3 * size * largest["pool_s"] / largest["size"]
    return None if needs <= left else f"it would take {needs:.0f} s and {max(0.0, left):.0f} are left"


# ---- what processes use ------------------------------------------------------------------------------------


def processor_seconds() -> float:
    """Of the whole cluster: this process and all below it, those that have ended meanwhile not counted."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def idle_share(groups: dict[str, list[int]]) -> dict[str, float]:
    """Processor time of each group of processes while nothing happens, in cores."""
    before = {name: sum(map(ran_seconds, pids)) for name, pids in groups.items()}
    time.sleep(IDLE_SECONDS)
    return {
        name: (sum(map(ran_seconds, pids)) - before[name]) / IDLE_SECONDS for name, pids in groups.items()
    }


def ran_seconds(pid: int) -> float:
    """Processor time of the threads that a process has now, by the scheduler's own clock: the one in
    /proc/PID/stat counts hundredths."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):  # it has ended
            total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return total / 1e9


def wait_gone(pids: list[int]) -> None:
    psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=60)


# ---- what is said ------------------------------------------------------------------------------------------


def report(medians: dict[int, Row]) -> None:
    """Prints what the sizes came to, and the ratios that are wanted."""
    for size, row in medians.items():
        row["size"] = size
        row["start"] = row["pool_s"] / row["bare_s"]
        row["start_cpu"] = row["pool_cpu"] / row["bare_cpu"]
        row["worker_idle"] = row["actors_idle"] + row["interpreters_idle"] - row["bare_idle"]
        row["router_idle"] = max(0.0, row["router_idle"] - row["bare_idle"] / size)
        row["worker_mb"] = row["actors_mb"] + row["interpreters_mb"]
        row["all_gb"], row["all_bare_gb"] = row["worker_mb"] * size / 1e3, row["bare_mb"] * size / 1e3
    few = next(iter(medians.values()))
    heads = [
        *("workers", "start, s", "of bare", "processor time", *RATES, "of few"),
        *("idle, beyond bare", "bare, idle", "MB", "bare, MB"),
    ]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for size, row in medians.items():
        of_few = " / ".join(f"{row[way] / few[way]:.2f}" for way in RATES)
        cells = [
            *(f"{size}", f"{row['pool_s']:.1f}", f"{row['start']:.2f} x", f"{row['start_cpu']:.2f} x"),
            *(f"{row[way]:,.0f}/s" for way in RATES),
            of_few + " x",
            f"+ {100 * (row['worker_idle'] + row['router_idle']):.3f} %",
            f"{100 * row['bare_idle']:.2f} %",
            *(f"{row['worker_mb']:.1f}", f"{row['bare_mb']:.1f}"),
        ]
        print("| " + " | ".join(cells) + " |")
    size, most = list(medians.items())[-1]
    slowest = min(most[way] / few[way] for way in RATES)
    print(
        f"\n{size} workers: {slowest:.2f} x of the rates of {few['size']:.0f} (wanted 0.5); start "
        f"{most['start']:.2f} x of bare actors' (1.1); an idle worker takes "
        f"{100 * (most['worker_idle'] + most['router_idle']):.3f} % of a core beyond Ray's actor (0.1)"
    )


def draw(medians: dict[int, Row], path: Path) -> None:
    """The curves, for the page."""
    few = next(iter(medians.values()))
    start = [Curve("pool", points(medians, "pool_s")), Curve("bare actors", points(medians, "bare_s"))]
    memory = [Curve("pool", points(medians, "all_gb")), Curve("bare actors", points(medians, "all_bare_gb"))]
    rates = [Curve(way, [(size, y / few[way]) for size, y in points(medians, way)]) for way in RATES]
    panels = [
        Panel("start, s", start),
        Panel("private memory, GB", memory),
        Panel(f"rate, of {few['size']:.0f} workers'", rates),
    ]
    path.write_text(drawing("workers", panels))


def points(medians: dict[int, Row], key: str) -> list[tuple[float, float]]:
    return [(size, row[key]) for size, row in medians.items()]


if __name__ == "__main__":
    main()
