"""The line that a host writes on stdin, and the ready line that answers it (bridge/README.md, sections 1
and 2).
"""

from __future__ import annotations

import json
import os
import sys

from snakepit_bridge import PROTOCOL, __version__
from snakepit_bridge.values.failures import ProtocolMismatch, clean, printable, user_traceback


class Config:
    """What the host has said. Raises ProtocolMismatch, KeyError, TypeError, ValueError for a line that it
    cannot take. `numbers`: what number a descriptor of the line has in this process, where it is another.
    """

    def __init__(self, line: bytes, numbers: dict | None = None) -> None:
        if not line:
            raise ValueError("stdin ended before the configuration line")
        given = json.loads(line)
        if type(given) is not dict:
            raise TypeError(f"the configuration must be a JSON object, got {type(given).__name__}")
        if given.get("snakepit") != PROTOCOL:
            raise ProtocolMismatch(
                f"the host speaks protocol {given.get('snakepit')!r}, this bridge speaks {PROTOCOL}"
            )
        self.socket: str = _take(given, "socket", str)
        self.frames, self.alone = _frames(given.get("frames"))
        self.secret: str = _take(given, "secret", str)
        self.adapter: str = _take(given, "adapter", str)
        self.adapter_args: dict = _take(given, "adapter_args", dict, {})
        self.capacity: int = _take(given, "capacity", int, 1)
        self.threaded: bool = _take(given, "thread_profile", bool, False)
        self.marker: bool = _take(given, "unserializable", str, "error") == "marker"
        self.threshold: int = _take(given, "binary_threshold", int, 10_240)
        self.arena: dict | None = _arena(given.get("arena"), numbers or {})
        self.marks: int | None = _marks(given.get("marks"), numbers or {})
        self.max_message_size: int = _take(given, "max_message_size", int, 100 * 1024 * 1024)
        self.worker_id: str = _take(given, "worker_id", str, "")
        self.pool: str = _take(given, "pool", str, "")
        self.cwd: str = _take(given, "cwd", str, "") or os.getcwd()
        self.code_paths: list = _take(given, "code_paths", list, [])
        if self.capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {self.capacity}")


def _take(given: dict, key: str, kind: type, *default):
    value = given.get(key)
    if value is None:
        if not default:
            raise KeyError(f"the configuration has no {key!r}")
        return default[0]
    if type(value) is not kind:
        raise TypeError(f"{key!r} must be {kind.__name__}, got {type(value).__name__}")
    return value


def _frames(given) -> tuple:
    """(the path of the socket for frames, None where none is offered; whether gRPC is not wanted)."""
    if given is None:
        return None, False
    if type(given) is not dict:
        raise TypeError(f"'frames' must be a JSON object, got {type(given).__name__}")
    return _take(given, "socket", str), _take(given, "alone", bool, False)


def _arena(given, numbers: dict) -> dict | None:
    """The descriptors of the shared memories, kept from what this process will start."""
    if given is None:
        return None
    arena = {key: _take(given, key, int) for key in ("size", "arguments", "results")}
    for key in ("arguments", "results"):
        arena[key] = numbers.get(arena[key], arena[key])
        os.set_inheritable(arena[key], False)
    return arena


def _marks(given, numbers: dict) -> int | None:
    """The descriptor of the marks, kept from what this process will start."""
    if given is None:
        return None
    descriptor = _take(given, "descriptor", int)
    descriptor = numbers.get(descriptor, descriptor)
    os.set_inheritable(descriptor, False)
    return descriptor


FEATURES = ("batches", "host_calls", "host_streams", "nesting", "refs", "streams", "traces")


def ready_line(config: Config, commands: dict, *, arena: bool, forks: bool, moves: bool, ends: bool) -> bytes:
    """The line that says that the interpreter serves, without its newline: whether it uses the `arena`,
    whether a forker may fork others like it, whether it moves sessions, and whether it ends them.
    """
    offered = {
        "arena": arena,
        "forks": forks,
        "frames": config.frames is not None,
        "marks": config.marks is not None,
        "session_ends": ends,
        "session_moves": moves,
    }
    line = {
        "snakepit": PROTOCOL,
        "address": None if config.alone else f"unix:{config.socket}",
        "pid": os.getpid(),
        "language": "python",
        "version": sys.version.split()[0],
        "bridge": __version__,
        "capacity": config.capacity,
        "adapter": config.adapter,
        "features": sorted([*FEATURES, *(name for name, is_used in offered.items() if is_used)]),
        "commands": {name: command.describe() for name, command in commands.items()},
    }
    return json.dumps(line).encode()


def error_line(stage: str, error: BaseException) -> bytes:
    """The line that says why the interpreter does not start."""
    reason = {
        "stage": stage,
        "type": type(error).__name__,
        "message": error.args[0] if type(error) is KeyError and error.args else printable(error),
        "traceback": user_traceback(error),
    }
    return json.dumps(
        {"snakepit": PROTOCOL, "error": {key: clean(str(text)) for key, text in reason.items()}}
    ).encode()
