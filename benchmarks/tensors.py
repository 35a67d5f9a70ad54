"""What do arrays cost? `x + 1` over float64 arrays, argument and result, one call after the other:

| floor | an async Ray actor that does x + 1 itself |
| pool | `pool.execute`: object store, shared memory, interpreter, and the same way back |
| gRPC bytes | the same pool with shared_memory=0: Arrow buffers inside the gRPC messages |
| JSON | the same pool, array, list, the standard library's JSON, and back, at both ends |
| list | the same pool, a list of numbers that is there already, by the pool's own JSON |

Warm medians in ms, the forms interleaved in every round; a form that takes long has fewer rounds."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray

import snakepit_ray as snakepit
from benchmarks.common import arguments, init_ray, machine, save
from benchmarks.peers import BareArrays

SIZES = (800, 20_000, 80_000, 320_000, 8_000_000, 80_000_000, 400_000_000)
FORMS = ("floor", "pool", "gRPC bytes", "JSON", "list")
WARM_UP = 4
LARGEST_JSON = 8_000_000  # beyond it, a list of ten million numbers
SLOW_SECONDS = 2.0
ADAPTER = f"{Path(__file__).parent / 'adapters' / 'arrays.py'}:Arrays"
# size: least ratio of the pool's rate to that of (floor, gRPC bytes, JSON)
TARGETS = {
    800: (None, None, 0.8),
    20_000: (None, None, 2.5),
    80_000: (None, None, 7),
    320_000: (None, None, 16),
    8_000_000: (0.5, 1.5, 50),
    80_000_000: (0.5, 4, 50),
    400_000_000: (0.5, 4, None),
}


def main() -> None:
    args = arguments(__doc__, rounds=15, largest=SIZES[-1])
    init_ray()
    header = machine()
    facts: dict[str, Any] = {}
    columns = [*(f"{form} ms" for form in FORMS), "of the floor", "x gRPC bytes", "x JSON", "x list"]
    print(f"| bytes | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    for size in SIZES:
        if size <= args.largest:
            facts[str(size)] = figures(size, args.rounds)
    save("tensors", args.json, {"machine": header, "rounds": args.rounds, "sizes": facts})


def figures(size: int, rounds: int) -> dict[str, Any]:
    """The warm times of each form at one size, in pools of their own."""
    x = np.arange(size // 8, dtype="<f8")
    pools = {
        "pool": snakepit.start(name="arrays", size=1, interpreter=sys.executable, adapter=ADAPTER),
        "gRPC bytes": snakepit.start(
            name="bytes",
            size=1,
            interpreter=sys.executable,
            adapter=ADAPTER,
            shared_memory=0,
            max_message_size="2GB",
        ),
    }
    bare = ray.remote(BareArrays).options(num_cpus=0).remote()
    forms: dict[str, Callable[[], Any]] = {
        "floor": lambda: ray.get(bare.plus_one.remote(x)),
        "pool": lambda: pools["pool"].execute("plus_one", {"x": x}, timeout=120),
        "gRPC bytes": lambda: pools["gRPC bytes"].execute("plus_one", {"x": x}, timeout=120),
    }
    if size <= LARGEST_JSON:
        numbers = x.tolist()
        forms["JSON"] = lambda: through_json(pools["gRPC bytes"], x)
        forms["list"] = lambda: pools["gRPC bytes"].execute("plus_one_list", {"x": numbers}, timeout=120)
    times = measured(forms, x, rounds)
    for pool in pools.values():
        pool.shutdown()
    ray.kill(bare)
    show(size, times)
    return {name: sorted(values) for name, values in times.items()}


def through_json(pool: Any, x: Any) -> Any:
    text = pool.execute("plus_one_json", {"x": json.dumps(x.tolist())}, timeout=120)
    return np.array(json.loads(text))


def measured(forms: dict[str, Callable[[], Any]], x: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of each form, interleaved."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(-WARM_UP, rounds):
        for name, form in forms.items():
            slow = times[name] and statistics.median(times[name]) > SLOW_SECONDS
            if (slow and number >= 3) or (name in ("JSON", "list") and number < -1):
                continue
            began = time.perf_counter()
            result = form()
            took = time.perf_counter() - began
            if number == -1:
                assert np.array_equal(np.asarray(result), x + 1), name
            elif number >= 0:
                times[name].append(took)
            del result
    return times


def show(size: int, times: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    cells = [f"{medians[name]:.1f}" if name in medians else "" for name in FORMS]
    for name, target in zip(("floor", "gRPC bytes", "JSON", "list"), (*TARGETS[size], None), strict=True):
        ratio = medians[name] / medians["pool"] if name in medians else None
        wanted = f" ({target:g})" if target is not None else ""
        cells.append(f"{ratio:.2f}{wanted}" if ratio is not None else "")
    print(f"| {size:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
