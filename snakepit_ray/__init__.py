"""snakepit_ray: a distributed pool of external interpreters for Ray.

    import ray, snakepit_ray as snakepit

    with snakepit.start(size=4) as pool:
        ray.get(pool.execute.remote("add", {"a": 5, "b": 3}))   # {"result": 8}

Public names only, loaded when first used: `import snakepit_ray` does not import ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# What editors and type checkers read. At run time `_HOMES` is the same, and a test compares them.
if TYPE_CHECKING:
    from snakepit_ray import errors, telemetry
    from snakepit_ray.client.halt import HALT
    from snakepit_ray.client.pool import Pool
    from snakepit_ray.client.session import Session
    from snakepit_ray.client.session_helpers import SessionHelpers
    from snakepit_ray.client.start import Pools, connect, get_stats, run_as_script, shutdown, start, start_all
    from snakepit_ray.config import Affinity, CallOptions, PoolConfig
    from snakepit_ray.errors import (
        CallerFault,
        CircuitOpen,
        CommandError,
        ConfigError,
        ConstraintViolation,
        DeadlineExceeded,
        DuplicateTool,
        EncodingError,
        InvalidArguments,
        NotNow,
        PayloadTooLarge,
        PoolClosed,
        PoolExists,
        PoolNotFound,
        PoolSaturated,
        ProtocolMismatch,
        QueueTimeout,
        RequestCancelled,
        SessionExpired,
        SessionNotFound,
        SessionQuotaExceeded,
        SessionWorkerLost,
        SnakepitError,
        Stopped,
        ToolNotFound,
        UnknownCommand,
        VariableNotFound,
        VariableTypeError,
        VersionConflict,
        WorkerBusy,
        WorkerCrashed,
        WorkerFault,
        WorkerStartError,
    )
    from snakepit_ray.runtimes import BaseRuntime, Runtime
    from snakepit_ray.wire.codec import Epoch, Progress, Reply

__version__ = "0.1.0"

__all__ = [
    "HALT",
    "Affinity",
    "BaseRuntime",
    "CallOptions",
    "CallerFault",
    "CircuitOpen",
    "CommandError",
    "ConfigError",
    "ConstraintViolation",
    "DeadlineExceeded",
    "DuplicateTool",
    "EncodingError",
    "Epoch",
    "InvalidArguments",
    "NotNow",
    "PayloadTooLarge",
    "Pool",
    "PoolClosed",
    "PoolConfig",
    "PoolExists",
    "PoolNotFound",
    "PoolSaturated",
    "Pools",
    "Progress",
    "ProtocolMismatch",
    "QueueTimeout",
    "Reply",
    "RequestCancelled",
    "Runtime",
    "Session",
    "SessionExpired",
    "SessionHelpers",
    "SessionNotFound",
    "SessionQuotaExceeded",
    "SessionWorkerLost",
    "SnakepitError",
    "Stopped",
    "ToolNotFound",
    "UnknownCommand",
    "VariableNotFound",
    "VariableTypeError",
    "VersionConflict",
    "WorkerBusy",
    "WorkerCrashed",
    "WorkerFault",
    "WorkerStartError",
    "__version__",
    "connect",
    "errors",
    "get_stats",
    "run_as_script",
    "shutdown",
    "start",
    "start_all",
    "telemetry",
]

_HOMES = {
    "start": "client.start",
    "connect": "client.start",
    "start_all": "client.start",
    "shutdown": "client.start",
    "run_as_script": "client.start",
    "get_stats": "client.start",
    "Pools": "client.start",
    "Pool": "client.pool",
    "Session": "client.session",
    "SessionHelpers": "client.session_helpers",
    "PoolConfig": "config",
    "CallOptions": "config",
    "Affinity": "config",
    "Reply": "wire.codec",
    "Progress": "wire.codec",
    "HALT": "client.halt",
    "Epoch": "wire.codec",
    "Runtime": "runtimes",
    "BaseRuntime": "runtimes",
    "telemetry": "",
    "errors": "",
}


def _load(name: str) -> Any:
    import importlib

    if name in _HOMES:
        home = _HOMES[name]
        module = importlib.import_module(f"snakepit_ray.{home or name}")
        return getattr(module, name) if home else module
    errors = importlib.import_module("snakepit_ray.errors")
    if name in errors.__all__:
        return getattr(errors, name)
    raise AttributeError(f"module 'snakepit_ray' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # a checker that saw it would take every name for one that is there
    __getattr__ = _load
