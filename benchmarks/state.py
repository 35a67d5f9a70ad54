"""What does a session's variable cost a caller? `get` and `set` one by one against a bare async actor, `get`
from 100 threads and 1,000 tasks, and 1,000 variables set in one batch against one by one, interleaved round
by round.

The bare actor keeps its answer in memory; a `set` is on the disk when it returns. CPU is that of all
processes below this one, by operation."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import ray

import snakepit_ray as snakepit
from benchmarks.common import arguments, init_ray, latencies, machine, median, save
from benchmarks.peers import Bare
from snakepit_ray.client.variables import Variables

THREADS = 100
TASKS = 1000
ALONE = 500
BATCH = 1000
Row = dict[str, float]


def main() -> None:
    args = arguments(__doc__, rounds=5)
    init_ray()
    bare = ray.remote(Bare).options(num_cpus=0, enable_task_events=False).remote()
    with snakepit.start(size=1, interpreter=sys.executable) as pool:
        variables = pool.session("bench", ttl="1h").variables
        for number in range(BATCH):
            variables.register(f"v{number}", "integer", 0)
        measured: dict[str, Callable[[], Row]] = {
            "bare actor": lambda: latencies(lambda i: ray.get(bare.add.remote(i, 1)), ALONE),
            "get": lambda: latencies(lambda i: variables.get("v0"), ALONE),
            "set": lambda: latencies(lambda i: variables.set("v0", i), ALONE),
            "get, one by one": lambda: rate(lambda: [variables.get("v0") for _ in range(ALONE)], ALONE),
            "get, 100 threads": lambda: rate(lambda: from_threads(variables), 20 * THREADS),
            "get, 1,000 tasks": lambda: rate(lambda: asyncio.run(from_tasks(variables)), TASKS),
            "set, one by one": lambda: rate(
                lambda: [variables.set(f"v{number}", number) for number in range(BATCH)], BATCH
            ),
            "set_many": lambda: rate(
                lambda: variables.set_many({f"v{number}": number for number in range(BATCH)}), BATCH
            ),
        }
        header = machine()
        rows: dict[str, list[Row]] = {name: [] for name in measured}
        for _ in range(args.rounds):
            for name, measure in measured.items():
                rows[name].append(measure())
        report(rows)
        save("state", args.json, {"machine": header, "rounds": rows})
    snakepit.shutdown()


def from_threads(variables: Variables) -> None:
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(lambda _: variables.get("v0"), range(20 * THREADS)):
            pass


async def from_tasks(variables: Variables) -> None:
    await asyncio.gather(*(variables.aget("v0") for _ in range(TASKS)))


def rate(work: Callable[[], object], count: int) -> Row:
    """Operations a second, and their processor time in microseconds."""
    before, began = cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return {"rate": count / seconds, "cpu_us": (cpu_seconds() - before) / count * 1e6}


def cpu_seconds() -> float:
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def report(rows: dict[str, list[Row]]) -> None:
    alone = median(rows["bare actor"], "p50_ms")
    for name in ("bare actor", "get", "set"):
        p50 = median(rows[name], "p50_ms")
        print(f"{name:18} p50 {p50:7.3f} ms, {p50 / alone:5.2f} x of a bare actor")
    for name, against in (
        ("get, one by one", "get, one by one"),
        ("get, 100 threads", "get, one by one"),
        ("get, 1,000 tasks", "get, one by one"),
        ("set, one by one", "set, one by one"),
        ("set_many", "set, one by one"),
    ):
        each, cpu = median(rows[name], "rate"), median(rows[name], "cpu_us")
        times = each / median(rows[against], "rate")
        print(f"{name:18} {each:9,.0f}/s, {times:6.1f} x of {against}, {cpu:7.0f} us of processor time each")


if __name__ == "__main__":
    main()
