"""What does a command pay for the state of its session? A read that the store answers, a write, both
together, and a read from a copy, each as a multiple of a call of a bare async actor, interleaved round by
round.

All of them wait for one answer at a time. They are timed where they are made: the calls of the actor in this
process, the others in the interpreter. The variables of each round are new, so that no copy has them."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import ray

import snakepit_ray as snakepit
from benchmarks.common import ROOT, arguments, init_ray, machine, median, save
from benchmarks.peers import Bare

ADAPTER = str(ROOT / "benchmarks/adapters/state.py") + ":State"
CALLS = 300
CACHED = 20_000
ASKED = {"miss": 2.2, "set": 2.4}  # multiples of the actor's call
Row = dict[str, float]


def main() -> None:
    args = arguments(__doc__, rounds=5, calls=CALLS)
    init_ray()
    options = {"num_cpus": 0, "max_concurrency": 1_000_000, "enable_task_events": False}
    actor = ray.remote(Bare).options(**options).remote()
    pool = snakepit.start(name="bench-state", size=1, interpreter=sys.executable, adapter=ADAPTER)
    header = machine()
    a_round(actor, pool, "warm", 50)
    rows = [a_round(actor, pool, f"s{number}", args.calls) for number in range(args.rounds)]
    report(rows)
    save("context_state", args.json, {"machine": header, "rounds": rows})
    snakepit.shutdown()


def a_round(actor: Any, pool: snakepit.Pool, session: str, calls: int) -> Row:
    def in_interpreter(command: str, **args: Any) -> float:
        times = pool.execute(command, {"count": calls, **args}, session=session, timeout=120.0)
        return statistics.median(times)

    pool.execute("prepare", {"count": calls}, session=session)
    row = {"actor": bare(actor, calls)}
    for command in ("info", "misses", "sets", "reads_and_sets"):
        row[command] = in_interpreter(command)
    for name in ("x", "listed"):
        row[f"cached {name}"] = in_interpreter("cached", name=name, count=CACHED)
    return row


def bare(actor: Any, calls: int) -> float:
    times = []
    for number in range(calls):
        began = time.perf_counter()
        ray.get(actor.add.remote(number, 3))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def report(rows: list[Row]) -> None:
    actor = median(rows, "actor")
    print(f"{'':28}{'p50':>12}{'x actor':>10}{'asked':>10}")
    print(f"{'a bare async actor':28}{actor * 1e3:9.2f} ms{1:10.2f}")
    names = {
        "info": "a call to the worker",
        "misses": "a read that the store answers",
        "sets": "a write",
        "reads_and_sets": "a read and a write",
    }
    asked = {"misses": ASKED["miss"], "sets": ASKED["set"]}
    for key, name in names.items():
        took = median(rows, key)
        wanted = f"<= {asked[key]}" if key in asked else ""
        print(f"{name:28}{took * 1e3:9.2f} ms{took / actor:10.2f}{wanted:>10}")
    for key, name in (("cached x", "a number from a copy"), ("cached listed", "a list from a copy")):
        print(f"{name:28}{median(rows, key) * 1e6:9.2f} us{'':10}{'< 1 us':>10}")


if __name__ == "__main__":
    main()
