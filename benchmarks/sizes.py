"""Does the throughput of small calls fall with the size of the pool? `pool.map("add")` on pools of 2, 8 and
32 workers on the same cores, interleaved round by round; and how long each took to start.

A pool that is larger than its machine's cores is the common case: its commands wait for something else."""

from __future__ import annotations

import sys
import time
from collections import deque

import snakepit_ray as snakepit
from benchmarks.common import arguments, init_ray, machine, median, save

SIZES = (2, 8, 32)
ITEMS = 40_000


def main() -> None:
    args = arguments(__doc__, rounds=5, items=ITEMS)
    init_ray(2)
    header = machine()
    pools, started = {}, {}
    for size in SIZES:
        began = time.perf_counter()
        pools[size] = snakepit.start(name=f"bench-{size}", size=size, interpreter=sys.executable)
        started[size] = time.perf_counter() - began
    rows: dict[str, list[dict[str, float]]] = {}
    for round_ in range(args.rounds + 1):
        for size, pool in pools.items():
            began = time.perf_counter()
            deque(pool.map("add", ({"a": i, "b": 1} for i in range(args.items))), 0)
            if round_:  # the first one warms
                rate = args.items / (time.perf_counter() - began)
                rows.setdefault(str(size), []).append({"rate": rate})
    print("| workers | start, s | `map`, items/s | against 2 workers |\n|---|---|---|---|")
    few = median(rows[str(SIZES[0])], "rate")
    for size in SIZES:
        rate = median(rows[str(size)], "rate")
        print(f"| {size} | {started[size]:.1f} | {rate:,.0f} | {rate / few:.2f} x |")
    save("sizes", args.json, {"machine": header, "started": started, "rounds": rows})
    snakepit.shutdown()


if __name__ == "__main__":
    main()
