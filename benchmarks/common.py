"""What every benchmark shares: the machine's header, rounds, medians, tables, JSON."""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
import ray

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    import grpc

    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpus": os.cpu_count(),
        "cpu": _cpu_name(),
        "python": platform.python_version(),
        "ray": ray.__version__,
        "grpcio": grpc.__version__,
        "load_before": os.getloadavg()[0],
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def init_ray(cpus: int = 4) -> None:
    """A local cluster with nothing beside it, as for users who have installed Ray and this package alone:

    - Its actors run on asyncio's own loop.
    - The packages are compiled. Else each process compiles them anew where PYTHONDONTWRITEBYTECODE is set,
      which doubles a start."""
    os.environ.setdefault("RAY_USE_UVLOOP", "0")
    for package in ("snakepit_ray", "bridge"):
        compileall.compile_dir(ROOT / package, quiet=1)
    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def closed_loop(send: Callable[[int], Any], count: int, in_flight: int) -> float:
    """Calls a second with so many refs in flight, read in order."""
    waiting: deque[Any] = deque()
    began = time.perf_counter()
    for i in range(count):
        waiting.append(send(i))
        if len(waiting) >= in_flight:
            ray.get(waiting.popleft())
    while waiting:
        ray.get(waiting.popleft())
    return count / (time.perf_counter() - began)


def latencies(call: Callable[[int], Any], count: int) -> dict[str, float]:
    """Milliseconds of one caller that waits for each answer."""
    times = []
    for i in range(count):
        began = time.perf_counter()
        call(i)
        times.append((time.perf_counter() - began) * 1e3)
    times.sort()
    return {"p50_ms": times[count // 2], "p99_ms": times[int(count * 0.99)]}


def median(rows: list[Mapping[str, float]], key: str) -> float:
    """The median of one figure over the rounds."""
    return statistics.median(row[key] for row in rows)


def arguments(doc: str | None, rounds: int, **more: Any) -> argparse.Namespace:
    """--rounds and --json, for every benchmark alike; `more` are its own options and their defaults (a tuple:
    one of these, the first by default)."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", help="where the raw figures go")
    for name, default in more.items():
        if isinstance(default, tuple):
            parser.add_argument(f"--{name}", choices=default, default=default[0])
        else:
            parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()


def uss_mb(pids: Iterable[int]) -> float:
    """Private memory of processes, in MB; those that have gone count nothing."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += psutil.Process(pid).memory_full_info().uss / 1e6
    return total


def store_file_mb() -> float:
    """Memory that the object store of the raylets below this process takes in /dev/shm, in MB: at least what
    its objects need, and what it has not given back."""
    raylets = [child for child in psutil.Process().children(recursive=True) if child.name() == "raylet"]
    files: dict[int, int] = {}
    for entry in (entry for raylet in raylets for entry in Path(f"/proc/{raylet.pid}/fd").iterdir()):
        with contextlib.suppress(OSError):  # closed meanwhile
            if "/plasma" in os.readlink(entry):  # Ray unlinks the file at once: only descriptors lead to it
                facts = entry.stat()
                files[facts.st_ino] = facts.st_blocks * 512
    return sum(files.values()) / 1e6


def store_objects_mb() -> float:
    """What the objects in the cluster's store take, in MB; Ray tells it about a second late."""
    key = "object_store_memory"
    return float(ray.cluster_resources().get(key, 0.0) - ray.available_resources().get(key, 0.0)) / 1e6


def router_pid(pool: str) -> int:
    """The process of a pool's router."""
    pid: int = ray.get(ray.get_actor(f"snakepit:router:{pool}", "snakepit").get_pid.remote(), timeout=30)
    return pid


def save(name: str, path: str | None, facts: Mapping[str, Any]) -> None:
    """Writes raw figures under benchmarks/results, or where --json says."""
    target = Path(path) if path else RESULTS / f"{name}.json"
    target.parent.mkdir(exist_ok=True, parents=True)
    target.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"\nraw figures: {target}", file=sys.stderr)
