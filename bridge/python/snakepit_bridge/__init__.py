"""The names that adapters import, and nothing else: each is loaded when it is first asked for.

- `import snakepit_bridge` costs next to nothing.
- It imports neither grpc nor numpy nor asyncio.
"""

from __future__ import annotations

__version__ = "0.1.0"
PROTOCOL = 2  # of protos/snakepit/v1/interpreter.proto and bridge/README.md

_HOMES = {
    "Adapter": "adapter.commands",
    "command": "adapter.commands",
    "tool": "adapter.commands",
    "ThreadSafeAdapter": "adapters.threaded",
    "SessionContext": "adapter.context",
    "Cancelled": "adapter.context",
    "HostError": "adapter.host_errors",
    "ConstraintViolation": "adapter.host_errors",
    "SessionExpired": "adapter.host_errors",
    "SessionNotFound": "adapter.host_errors",
    "SessionQuotaExceeded": "adapter.host_errors",
    "SessionWorkerLost": "adapter.host_errors",
    "VariableNotFound": "adapter.host_errors",
    "VariableNotFoundError": "adapter.host_errors",
    "VariableTypeError": "adapter.host_errors",
    "VersionConflict": "adapter.host_errors",
    "VariableAwareMixin": "adapter.older",
    "current": "adapter.context",
    "BaseAdapter": "adapters.base",
    "BaseCommandHandler": "adapter.protocol",
    "ProtocolHandler": "adapter.protocol",
}

__all__ = [
    "Adapter",
    "BaseAdapter",
    "BaseCommandHandler",
    "Cancelled",
    "ConstraintViolation",
    "HostError",
    "ProtocolHandler",
    "SessionContext",
    "SessionExpired",
    "SessionNotFound",
    "SessionQuotaExceeded",
    "SessionWorkerLost",
    "ThreadSafeAdapter",
    "VariableAwareMixin",
    "VariableNotFound",
    "VariableNotFoundError",
    "VariableTypeError",
    "VersionConflict",
    "command",
    "current",
    "tool",
]


def __getattr__(name: str):
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
