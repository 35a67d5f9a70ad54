"""snakepit_ray: a distributed pool of external interpreters for Ray.

    import ray, snakepit_ray as snakepit

    with snakepit.start(size=4) as pool:
        ray.get(pool.execute.remote("add", {"a": 5, "b": 3}))   # {"result": 8}

Public names only, loaded when first used: `import snakepit_ray` does not import ray.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "start": "starting",
    "connect": "starting",
    "start_all": "starting",
    "shutdown": "starting",
    "run_as_script": "starting",
    "get_stats": "starting",
    "Pools": "starting",
    "Pool": "pool",
    "Session": "session",
    "PoolConfig": "config",
    "CallOptions": "config",
    "Affinity": "config",
    "Reply": "codec",
    "Progress": "codec",
    "HALT": "streaming",
    "Epoch": "codec",
    "Runtime": "runtimes",
    "BaseRuntime": "runtimes",
    "telemetry": "",
    "errors": "",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        home = _HOMES[name]
        module = importlib.import_module(f"snakepit_ray.{home or name}")
        return getattr(module, name) if home else module
    errors = importlib.import_module("snakepit_ray.errors")
    if name in errors.__all__:
        return getattr(errors, name)
    raise AttributeError(f"module 'snakepit_ray' has no attribute {name!r}")
