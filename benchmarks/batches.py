"""How many small calls a second, when they may travel together? `add` on a pool of 2, against peers in the
same run, interleaved round by round.

Peers: ray.util.ActorPool over bare actors (one call a message), concurrent.futures.ProcessPoolExecutor.map
with chunksize=1 and with its best chunksize (which crosses no cluster, no language and no codec)."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import ray
from ray.util import ActorPool

import snakepit_ray as snakepit
from benchmarks.common import arguments, init_ray, machine, median, save
from benchmarks.peers import Bare, add_pair

WORKERS = 2
ITEMS = 200_000
CALLERS = 1_000
CHUNKS = (500, 2_000, 8_000)  # the executor's best is one of these


def main() -> None:
    args = arguments(__doc__, rounds=3, items=ITEMS)
    init_ray(2)
    header = machine()
    pool = snakepit.start(name="bench", size=WORKERS, interpreter=sys.executable)
    actors = ActorPool([ray.remote(Bare).options(num_cpus=0).remote() for _ in range(WORKERS)])
    with ProcessPoolExecutor(WORKERS) as executor:
        measures: dict[str, tuple[int, Callable[[int], None]]] = {
            "map": (args.items, lambda n: _drain(pool.map("add", _items(n)))),
            "map, as completed": (args.items, lambda n: _drain(pool.map("add", _items(n), ordered=False))),
            "execute_batch": (args.items // 2, lambda n: _drain(pool.execute_batch("add", _items(n)))),
            "await call, 1,000 callers": (args.items // 5, lambda n: asyncio.run(_callers(pool, n))),
            "ActorPool": (
                2_000,
                lambda n: _drain(actors.map(lambda actor, i: actor.add.remote(i, 1), range(n))),
            ),
            "executor, chunksize=1": (
                10_000,
                lambda n: _drain(executor.map(add_pair, range(n), chunksize=1)),
            ),
        }
        for chunk in CHUNKS:
            measures[f"executor, chunksize={chunk}"] = (
                args.items,
                lambda n, chunk=chunk: _drain(executor.map(add_pair, range(n), chunksize=chunk)),
            )
        rows = _measure(measures, args.rounds)
    report(rows)
    save("batches", args.json, {"machine": header, "rounds": rows})
    snakepit.shutdown()


def _measure(
    measures: dict[str, tuple[int, Callable[[int], None]]], rounds: int
) -> dict[str, list[dict[str, float]]]:
    rows: dict[str, list[dict[str, float]]] = {}
    for count, measure in measures.values():
        measure(min(count, 5_000))  # warm
    for _ in range(rounds):
        for name, (count, measure) in measures.items():
            began = time.perf_counter()
            measure(count)
            rows.setdefault(name, []).append({"rate": count / (time.perf_counter() - began)})
    return rows


def _items(count: int) -> Any:
    return ({"a": i, "b": 1} for i in range(count))


def _drain(results: Any) -> None:
    for _ in results:
        pass


async def _callers(pool: Any, count: int) -> None:
    async def caller() -> None:
        for i in range(max(1, count // CALLERS)):
            await pool.call("add", {"a": i, "b": 1})

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


def report(rows: dict[str, list[dict[str, float]]]) -> None:
    print("| | requests/s |\n|---|---|")
    rates = {name: median(kept, "rate") for name, kept in rows.items()}
    for name, rate in rates.items():
        print(f"| {name} | {rate:,.0f} |")
    best = max(rate for name, rate in rates.items() if name.startswith("executor"))
    peers = {
        "ActorPool": rates["ActorPool"],
        "the executor with chunksize=1": rates["executor, chunksize=1"],
        "the executor at its best": best,
    }
    print()
    for name, rate in peers.items():
        print(f"map: {rates['map'] / rate:.3g} x {name}")


if __name__ == "__main__":
    main()
