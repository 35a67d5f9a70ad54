"""This checkout against another one: two pools side by side, rounds in turn (ABBA), ratios of medians.

    ./dev bench versions /path/to/other/checkout [--size 4] [--rounds 12] [--seconds 1.5] [KIND ...]

The other checkout needs an environment of its own (`./dev check` there makes one). One version after the
other misleads: the speed of a shared machine doubles and halves within the hour. Rounds of a pair are seconds
apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

OWN = Path(__file__).resolve().parents[1]
ITEMS = 20_000
RUN = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


# ---- one side: a pool that does what its stdin says --------------------------------------------------------


def side(size: int) -> None:
    """Serves `KIND SECONDS` lines with calls a second, in the environment of one checkout."""
    import ray

    import snakepit_ray as snakepit

    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    pool = snakepit.start(size=size, name="versions", queue_timeout=60, max_queue_size=None)
    kinds = kinds_of(pool)
    print("ready", flush=True)
    for line in sys.stdin:
        name, seconds = line.split()
        began = time.perf_counter()
        count = 0
        while time.perf_counter() - began < float(seconds):
            count += kinds[name]()
        print(json.dumps(count / (time.perf_counter() - began)), flush=True)
    pool.shutdown()


def kinds_of(pool: Any) -> dict[str, Callable[[], int]]:
    """What is measured, by name; each runs for a moment and says how much it did."""
    import numpy as np

    add, items, array = {"a": 1, "b": 2}, [{"a": i, "b": 1} for i in range(ITEMS)], np.ones(1_000_000)

    def refs(in_flight: int) -> Callable[[], int]:
        return lambda: _refs(pool, in_flight, 20 * in_flight)

    async def calls() -> int:
        return len(await asyncio.gather(*(pool.call("add", add) for _ in range(1000))))

    def one(command: str, args: Any) -> int:
        pool.execute(command, args)
        return 1

    return {
        "execute": lambda: one("add", add),
        "refs-4": refs(4),
        "refs-16": refs(16),
        "refs-64": refs(64),
        "call": lambda: asyncio.run(calls()),
        "map": lambda: sum(1 for _ in pool.map("add", items)),
        "batch": lambda: len(pool.execute_batch("add", items)),
        "first-chunk": lambda: sum(1 for _ in pool.stream("stream_fibonacci", {"count": 1})),
        "chunks": lambda: sum(1 for _ in pool.stream("stream_fibonacci", {"count": 1000})),
        "array-8MB": lambda: one("echo", {"x": array}),
    }


def _refs(pool: Any, in_flight: int, total: int) -> int:
    import ray

    waiting = [pool.execute.remote("add", {"a": 1, "b": 2}) for _ in range(in_flight)]
    for _ in range(total - in_flight):
        (done,), waiting = ray.wait(waiting, num_returns=1)
        ray.get(done)
        waiting.append(pool.execute.remote("add", {"a": 1, "b": 2}))
    ray.get(waiting)
    return total


# ---- both sides --------------------------------------------------------------------------------------------


class Side:
    """The process of one checkout."""

    def __init__(self, checkout: Path, size: int) -> None:
        python = checkout / ".venv/bin/python"
        # Not as a script: this folder would be the first that modules are looked for in.
        command = [str(python), "-c", RUN, str(Path(__file__).resolve()), "--side", str(size)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, cwd=checkout, text=True, **pipes)
        if not any(line.strip() == "ready" for line in self._lines()):
            raise SystemExit(f"the pool of {checkout} did not start: try ./dev check there")

    def rate(self, kind: str, seconds: float) -> float:
        """Calls a second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {seconds}\n")
        self._process.stdin.flush()
        return float(next(self._lines()))

    def _lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        return iter(self._process.stdout.readline, "")

    def close(self) -> None:
        """Ends the pool."""
        self._process.communicate(timeout=60)


def compare(other: Path, size: int, rounds: int, seconds: float, kinds: list[str]) -> None:
    """Prints one line for each kind."""
    sides = {"other": Side(other, size), "own": Side(OWN, size)}
    pairs: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):
        for kind in kinds:
            order = list(sides) if number % 2 else list(sides)[::-1]
            pair = {name: sides[name].rate(kind, seconds) for name in order}
            if number:  # the first round warms up
                pairs[kind].append(pair)
    print(f"{'':12}{'other /s':>12}{'own /s':>12}{'medians':>10}{'pairs':>8}")
    for kind, measured in pairs.items():
        other_rate, own_rate = (median(pair[name] for pair in measured) for name in ("other", "own"))
        paired = median(pair["own"] / pair["other"] for pair in measured)
        print(f"{kind:12}{other_rate:12,.0f}{own_rate:12,.0f}{own_rate / other_rate:10.2f}{paired:8.2f}")
    for one in sides.values():
        one.close()


KINDS = [
    "execute",
    "refs-4",
    "refs-16",
    "refs-64",
    "call",
    "map",
    "batch",
    "first-chunk",
    "chunks",
    "array-8MB",
]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="versions", description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="a checkout of another version, with its .venv")
    parser.add_argument("kinds", nargs="*", default=KINDS, help=", ".join(KINDS))
    parser.add_argument("--size", type=int, default=4, help="workers (4)")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one kind in one round (1.5)")
    given = parser.parse_intermixed_args()
    compare(given.other.resolve(), given.size, given.rounds, given.seconds, given.kinds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        side(int(sys.argv[2]))
    else:
        main()
