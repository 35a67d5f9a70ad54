"""What does a blocking call cost over the lane? `add` on a pool of 4 from 1 to 64 threads, against the same
pool by Ray (lane="off"), four bare async actors and Ray Serve's handle to a no-op replica, interleaved round
by round in one run.

A bare actor's rate is the better of two ways to keep N calls under way: N threads that each wait, and one
thread with N refs. CPU is that of all processes below this one, by call. Of this process, the caller's, there
are the processor time and the voluntary context switches of a call, too: both say what its threads cost each
other, also on a machine that is busy."""

from __future__ import annotations

import asyncio
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import ray

import snakepit_ray as snakepit
from benchmarks.common import arguments, closed_loop, init_ray, latencies, machine, median, save
from benchmarks.peers import Bare, no_op_of_serve

WORKERS = 4
THREADS = (1, 4, 16, 64)
CALLS = 2000
ALONE = 500
TASKS = 1000
Row = dict[str, float]


def main() -> None:
    args = arguments(__doc__, rounds=5, calls=CALLS)
    init_ray()
    measured = {
        "bare actors": bare_actors(),
        "pool, lane": pool("auto"),
        "pool, Ray": pool("off"),
        "Serve handle": serve_handle(),
    }
    header = machine()
    for measure in measured.values():
        measure(200)  # warm
    rows: dict[str, list[Row]] = {name: [] for name in measured}
    for _ in range(args.rounds):
        for name, measure in measured.items():
            rows[name].append(measure(args.calls))
    report(rows)
    save("lane", args.json, {"machine": header, "rounds": rows})
    snakepit.shutdown()


def bare_actors() -> Callable[[int], Row]:
    options = {"num_cpus": 0, "max_concurrency": 1_000_000, "enable_task_events": False}
    actors = [ray.remote(Bare).options(**options).remote() for _ in range(WORKERS)]
    methods = [actor.add for actor in actors]
    ray.get([actor.pid.remote() for actor in actors])

    def call(i: int) -> Any:
        return ray.get(methods[i % WORKERS].remote(i, 3))

    def measure(calls: int) -> Row:
        row = blocking(call, calls)
        for count in THREADS:
            refs = closed_loop(lambda i: methods[i % WORKERS].remote(i, 3), calls, count)
            row[f"rate_{count}"] = max(refs, row[f"rate_{count}"])
        return row

    return measure


def pool(lane: str) -> Callable[[int], Row]:
    name = f"bench-{lane}"
    one = snakepit.start(name=name, size=WORKERS, interpreter=sys.executable, lane=lane)

    async def awaited() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(one.call("add", {"a": i, "b": 3}) for i in range(TASKS)))
        return TASKS / (time.perf_counter() - began)

    def measure(calls: int) -> Row:
        row = blocking(lambda i: one.execute("add", {"a": i, "b": 3}), calls)
        return row | {"awaited": asyncio.run(awaited())}

    return measure


def serve_handle() -> Callable[[int], Row]:
    handle = no_op_of_serve()
    # It is slow: fewer calls say as much.
    return lambda calls: blocking(lambda _: handle.remote().result(), max(THREADS[-1], calls // 5))


def blocking(call: Callable[[int], Any], calls: int) -> Row:
    """Calls a second, and CPU of a call in microseconds, by threads; milliseconds of one that is alone."""
    row: Row = {}
    for count in THREADS:
        spent, mine, began = cpu_seconds(), resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        in_threads(call, calls, count)
        row[f"rate_{count}"] = calls / (time.perf_counter() - began)
        row[f"cpu_{count}"] = (cpu_seconds() - spent) / calls * 1e6
        now = resource.getrusage(resource.RUSAGE_SELF)
        used = now.ru_utime + now.ru_stime - mine.ru_utime - mine.ru_stime
        row[f"caller_{count}"] = used / calls * 1e6
        row[f"switches_{count}"] = (now.ru_nvcsw - mine.ru_nvcsw) / calls
    return row | latencies(call, min(calls, ALONE))


def in_threads(call: Callable[[int], Any], calls: int, count: int) -> None:
    def run() -> None:
        for i in range(calls // count):
            call(i)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def cpu_seconds() -> float:
    """Of this process and all below it."""
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def report(rows: dict[str, list[Row]]) -> None:
    bare = rows["bare actors"]
    print(f"| | {' | '.join(f'{count} threads' for count in THREADS)} | p50, p99 ms | awaited/s |")
    print("|---" * (len(THREADS) + 3) + "|")
    for name, of in rows.items():
        cells = [
            f"{median(of, f'rate_{n}'):,.0f}/s ({median(of, f'rate_{n}') / median(bare, f'rate_{n}'):.2f} x; "
            f"{median(of, f'cpu_{n}'):,.0f} us)"
            for n in THREADS
        ]
        alone = f"{median(of, 'p50_ms'):.2f} ({median(of, 'p50_ms') / median(bare, 'p50_ms'):.2f} x), "
        alone += f"{median(of, 'p99_ms'):.2f}"
        tasks = f"{median(of, 'awaited'):,.0f}" if "awaited" in of[0] else ""
        print(f"| {name} | {' | '.join(cells)} | {alone} | {tasks} |")
    for name, of in rows.items():
        each = (f"{median(of, f'caller_{n}'):,.0f} us, {median(of, f'switches_{n}'):.1f}" for n in THREADS)
        print(f"\n{name}: processor time and context switches of the caller, by call: {'; '.join(each)}")
    ours, serve = rows["pool, lane"], rows["Serve handle"]
    for n in THREADS:
        times = median(
            [{"r": o[f"rate_{n}"] / s[f"rate_{n}"]} for o, s in zip(ours, serve, strict=True)], "r"
        )
        print(f"\npool, lane, {n} threads: {times:.1f} x Serve's handle")


if __name__ == "__main__":
    main()
