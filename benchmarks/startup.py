"""How long until 20 workers are ready, and what does a worker actor weigh? Against 20 bare async actors,
interleaved.

Start: from the call to the last one ready. Memory: private bytes (USS) of the actor's process with all 20
alive."""

from __future__ import annotations

import statistics
import sys
import time

import psutil
import ray

import snakepit_ray as snakepit
from benchmarks.common import arguments, init_ray, machine, median, save
from benchmarks.peers import Bare

WORKERS = 20


def main() -> None:
    args = arguments(__doc__, rounds=5)
    init_ray(cpus=2)
    header = machine()
    bare_round(), pool_round()  # the first of each fills caches of the disk
    rows = [bare_round() | pool_round() for _ in range(args.rounds)]
    ratio = median([{"r": row["pool_s"] / row["bare_s"]} for row in rows], "r")
    print("| | seconds to 20 ready | actor USS, MB | interpreter USS, MB |\n|---|---|---|---|")
    print(f"| bare actors | {median(rows, 'bare_s'):.2f} | {median(rows, 'bare_mb'):.1f} | |")
    pool = f"{median(rows, 'pool_s'):.2f} | {median(rows, 'actor_mb'):.1f} | {median(rows, 'child_mb'):.1f}"
    print(f"| pool | {pool} |")
    more = median([{"m": row["actor_mb"] - row["bare_mb"]} for row in rows], "m")
    print(f"\nready in {ratio:.2f} x the time of bare actors; a worker actor has {more:.1f} MB more")
    save("startup", args.json, {"machine": header, "rounds": rows})


def bare_round() -> dict[str, float]:
    began = time.perf_counter()
    options = {"num_cpus": 0, "max_concurrency": 1_000_000, "enable_task_events": False}
    actors = [ray.remote(Bare).options(**options).remote() for _ in range(WORKERS)]
    pids = ray.get([actor.pid.remote() for actor in actors])
    seconds = time.perf_counter() - began
    row = {"bare_s": seconds, "bare_mb": uss(pids)}
    for actor in actors:
        ray.kill(actor)
    wait_gone(pids)
    return row


def pool_round() -> dict[str, float]:
    began = time.perf_counter()
    pool = snakepit.start(name="startup", size=WORKERS, interpreter=sys.executable)
    seconds = time.perf_counter() - began
    pool.execute("add", {"a": 1, "b": 2})
    workers = pool.workers()
    actors, children = [w.actor_pid for w in workers], [w.pid for w in workers]
    row = {"pool_s": seconds, "actor_mb": uss(actors), "child_mb": uss(children)}
    pool.shutdown()
    wait_gone(actors + children)
    return row


def uss(pids: list[int]) -> float:
    return statistics.median(psutil.Process(pid).memory_full_info().uss / 1e6 for pid in pids)


def wait_gone(pids: list[int]) -> None:
    psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=30)


if __name__ == "__main__":
    main()
