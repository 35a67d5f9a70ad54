"""Does memory grow? 100,000 requests on one pool of 4; private memory (USS) of router, worker actors and
interpreters and the object store's memory all along, and how much they grew from the first tenth to the end.

Part of what grows is Ray's: each export of its metrics (every 10 s) is a new thread, which takes the next of
malloc's 8 arenas for each processor, until all of them are warm. RAY_metrics_report_interval_ms=1000 has that
behind it in the first tenth, RAY_enable_metrics_collection=false does without.

Draws soak.png beside the figures where matplotlib is, else a plot of letters."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import snakepit_ray as snakepit
from benchmarks.common import (
    RESULTS,
    arguments,
    closed_loop,
    init_ray,
    machine,
    router_pid,
    save,
    store_file_mb,
    store_objects_mb,
    uss_mb,
)

WORKERS = 4
IN_FLIGHT = 16
SAMPLES = 100
KINDS = ("router", "actors", "interpreters", "store")
WIDTH, HEIGHT = 80, 8


def main() -> None:
    args = arguments(__doc__, rounds=1, requests=100_000)
    init_ray()
    header = machine()
    pool = snakepit.start(name="soak", size=WORKERS, interpreter=sys.executable)
    samples = soak(pool, args.requests * args.rounds)
    print("| | MB after the first tenth | MB at the end | growth, MB |\n|---|---|---|---|")
    for kind in KINDS:
        first, last = ends([sample[kind] for sample in samples])
        print(f"| {kind} | {first:.1f} | {last:.1f} | {last - first:+.1f} |")
    rate = args.requests * args.rounds / samples[-1]["seconds"]
    stats = pool.stats()
    print(f"\n{rate:.0f} requests/s, {stats.errors} errors, {stats.restarts} restarts")
    print(f"objects in the store at the end: {samples[-1]['store_objects']:.1f} MB\n")
    draw(samples, Path(args.json).with_suffix(".png") if args.json else RESULTS / "soak.png")
    save("soak", args.json, {"machine": header, "workers": WORKERS, "samples": samples})
    snakepit.shutdown()


def soak(pool: Any, requests: int) -> list[dict[str, float]]:
    """Memory of each kind after each hundredth of the requests."""
    part = max(1, requests // SAMPLES)
    router = router_pid(pool.name)
    began, samples = time.perf_counter(), []
    for number in range(1, max(1, requests // part) + 1):
        closed_loop(lambda i: pool.execute.remote("add", {"a": i, "b": 1}), part, IN_FLIGHT)
        workers = pool.workers()
        samples.append(
            {
                "requests": number * part,
                "seconds": time.perf_counter() - began,
                "router": uss_mb([router]),
                "actors": uss_mb(worker.actor_pid for worker in workers),
                "interpreters": uss_mb(worker.pid for worker in workers),
                "store": store_file_mb(),
                "store_objects": store_objects_mb(),
            }
        )
        if number % (SAMPLES // 10) == 0:
            print(f"{number * part} requests", file=sys.stderr, flush=True)
    return samples


def ends(values: list[float]) -> tuple[float, float]:
    """After the first tenth and at the end, each the median of three samples."""
    tenth = max(0, len(values) // 10 - 1)
    return statistics.median(values[tenth : tenth + 3]), statistics.median(values[-3:])


def draw(samples: list[dict[str, float]], path: Path) -> None:
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        for kind in KINDS:
            print(letters(kind, [sample[kind] for sample in samples]))
        return
    figure, axes = pyplot.subplots(len(KINDS), 1, sharex=True, figsize=(8, 10))
    for axis, kind in zip(axes, KINDS, strict=True):
        axis.plot([sample["requests"] for sample in samples], [sample[kind] for sample in samples])
        axis.set_ylabel(f"{kind}, MB")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("requests")
    path.parent.mkdir(exist_ok=True, parents=True)
    figure.savefig(path, dpi=100, bbox_inches="tight")
    print(f"plot: {path}")


def letters(name: str, values: list[float]) -> str:
    """A plot of letters, HEIGHT lines high; its scale begins at the least value."""
    least, most = min(values), max(values)
    span = (most - least) or 1.0
    columns = [values[i * len(values) // WIDTH] for i in range(WIDTH)] if len(values) > WIDTH else values
    levels = [round((value - least) / span * (HEIGHT - 1)) for value in columns]
    rows = ["".join("#" if level >= row else " " for level in levels) for row in range(HEIGHT)]
    lines = [f"{least + span * row / (HEIGHT - 1):8.1f} |{rows[row]}" for row in reversed(range(HEIGHT))]
    return "\n".join([f"{name}, MB", *lines])


if __name__ == "__main__":
    main()
