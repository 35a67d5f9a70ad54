"""Who holds how much of a large array? 800 MB of float64 through a pool of 1, as an argument (`total`), as a
result (`filled`) and both ways (`plus_one`), warm: the most private memory (RssAnon) of each process beyond
what it had, and the most shared memory that it has mapped (RssShmem: object store and arena), in arrays.

A caller's own array is its own affair; the object store holds each value once; the interpreter needs a result
of its own before it can hand it over. Everything else would be a copy too many."""

from __future__ import annotations

import os
import statistics
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray

import snakepit_ray as snakepit
from benchmarks.common import arguments, machine, save

ADAPTER = f"{Path(__file__).parent / 'adapters' / 'arrays.py'}:Arrays"
KINDS = ("RssAnon", "RssShmem")


def main() -> None:
    args = arguments(__doc__, rounds=3, megabytes=800)
    size = args.megabytes * 1_000_000
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=4 * size,
    )
    header = machine()
    pool = snakepit.start(name="memory", size=1, interpreter=sys.executable, adapter=ADAPTER)
    x = np.ones(size // 8)
    ways: dict[str, Callable[[], Any]] = {
        "argument": lambda: pool.execute("total", {"x": x}, timeout=300),
        "result": lambda: pool.execute("filled", {"n": size // 8}, timeout=300),
        "both": lambda: pool.execute("plus_one", {"x": x}, timeout=300),
    }
    (worker,) = pool.workers()
    pids = {"caller": os.getpid(), "actor": worker.actor_pid, "interpreter": worker.pid}
    facts: dict[str, Any] = {}
    print("| way | process | private, arrays | shared, arrays |\n|---|---|---|---|")
    for way, call in ways.items():
        call()
        rounds = [peaks(call, pids) for _ in range(args.rounds)]
        facts[way] = rounds
        for name in pids:
            most = {kind: statistics.median(r[name][kind] for r in rounds) / size for kind in KINDS}
            print(f"| {way} | {name} | {most['RssAnon']:.2f} | {most['RssShmem']:.2f} |", flush=True)
    save("memory", args.json, {"machine": header, "bytes": size, "peaks": facts})
    snakepit.shutdown()


def peaks(call: Callable[[], Any], pids: dict[str, int]) -> dict[str, dict[str, int]]:
    """The most of each kind while `call` runs: private beyond what there was, shared in all."""
    before = {name: usage(pid) for name, pid in pids.items()}
    most = {name: dict(found) for name, found in before.items()}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.002):
            for name, pid in pids.items():
                for kind, value in usage(pid).items():
                    most[name][kind] = max(most[name][kind], value)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    result = call()
    over.set()
    thread.join()
    del result
    for name in pids:
        most[name]["RssAnon"] -= before[name]["RssAnon"]
    return most


def usage(pid: int) -> dict[str, int]:
    """Bytes of private and of shared memory that a process has (proc(5), status)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return {kind: int(found[kind].split()[0]) * 1024 for kind in KINDS}


if __name__ == "__main__":
    main()
