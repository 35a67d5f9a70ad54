"""What does recycling cost? The same requests on a pool of 4 whose interpreters are replaced after 50
requests each, by forks and by executions, and on one whose are not, interleaved round by round.

Failures are counted: recycling may fail none. `--workload sleep` is a command of 5 ms, `add` one of none."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from typing import Any

import ray

import snakepit_ray as snakepit
from benchmarks.common import arguments, init_ray, machine, median, save

WORKERS = 4
MAX_REQUESTS = 50
IN_FLIGHT = 8
WORKLOADS: dict[str, tuple[str, dict[str, Any]]] = {
    "add": ("add", {"a": 1, "b": 2}),
    "sleep": ("sleep_task", {"duration_ms": 5, "task_number": 1}),
}


def main() -> None:
    args = arguments(__doc__, rounds=3, requests=10_000, workload=tuple(WORKLOADS))
    init_ray()
    header = machine()
    settings = {"size": WORKERS, "interpreter": sys.executable}
    limited = {"worker_max_requests": MAX_REQUESTS, **settings}
    pools = {
        "plain": snakepit.start(name="plain", **settings),
        "recycled": snakepit.start(name="recycled", **limited),
        "executed": snakepit.start(name="executed", fork_starts="off", **limited),
    }
    for pool in pools.values():  # interpreters are forked from the third on
        measure(pool, *WORKLOADS[args.workload], WORKERS * MAX_REQUESTS * 4)
    command, values = WORKLOADS[args.workload]
    rows = []
    for _ in range(args.rounds):
        row: dict[str, float] = {}
        for name, pool in pools.items():
            row |= {f"{name}_{key}": value for key, value in measure(pool, command, values, args.requests)}
        for name in ("recycled", "executed"):
            row[f"{name}_ratio"] = row[f"{name}_rate"] / row["plain_rate"]
        rows.append(row)
    report(rows)
    save("recycling", args.json, {"machine": header, "workload": args.workload, "rounds": rows})
    snakepit.shutdown()


def measure(pool: Any, command: str, values: dict[str, Any], requests: int) -> list[tuple[str, float]]:
    """Requests a second and failures of one closed loop."""
    errors: Counter[str] = Counter()
    waiting: deque[Any] = deque()
    before = pool.stats().recycled
    began = time.perf_counter()
    for _ in range(requests):
        waiting.append(pool.execute.remote(command, values))
        if len(waiting) >= IN_FLIGHT:
            take(waiting.popleft(), errors)
    while waiting:
        take(waiting.popleft(), errors)
    seconds = time.perf_counter() - began
    if errors:
        print(f"{pool.name}: {dict(errors)}", file=sys.stderr)
    recycled = pool.stats().recycled - before
    return [("rate", requests / seconds), ("failed", errors.total()), ("recycles", recycled)]


def take(ref: Any, errors: Counter[str]) -> None:
    try:
        ray.get(ref)
    except Exception as error:
        errors[type(error).__name__] += 1


def report(rows: list[dict[str, float]]) -> None:
    print("| | requests/s | failed | interpreters replaced |\n|---|---|---|---|")
    for name in ("plain", "recycled", "executed"):
        failed = sum(row[f"{name}_failed"] for row in rows)
        replaced = sum(row[f"{name}_recycles"] for row in rows)
        print(f"| {name} | {median(rows, f'{name}_rate'):.0f} | {failed:.0f} | {replaced:.0f} |")
    forked, executed = median(rows, "recycled_ratio"), median(rows, "executed_ratio")
    print(f"\nratio to plain: {forked:.2f}; with executed starts {executed:.2f}")


if __name__ == "__main__":
    main()
