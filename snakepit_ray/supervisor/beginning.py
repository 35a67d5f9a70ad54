"""How an interpreter is executed or forked: what it is started from, and the steps until there is a process.

Rule: what fails says what was tried, what the system said and what to change, and leaves nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from snakepit_ray.core.worker.handshake import PROTOCOL
from snakepit_ray.errors import WorkerStartError
from snakepit_ray.process import Launch, build_launch
from snakepit_ray.process.child import spawn
from snakepit_ray.process.launch import TOKEN_VARIABLE
from snakepit_ray.process.place import Place
from snakepit_ray.process.started import Started
from snakepit_ray.rpc import load_grpc
from snakepit_ray.supervisor.arena import Arena


@dataclass(frozen=True)
class InterpreterSpec:
    """What every incarnation of one worker's interpreter is started from."""

    worker_id: str
    argv: tuple[str, ...]
    user_env: Mapping[str, str]
    cwd: str | None
    thread_limits: int
    startup_timeout: float
    shutdown_grace: float
    config: Mapping[str, Any]  # the start line of bridge/README.md, without what is made for each process
    shared_memory: int = 0  # bytes each way; 0: none
    binary_threshold: int = 10_240
    marks: int | None = None  # the descriptor of the file in which it says what it has begun
    wire: str = "auto"  # PoolConfig.wire
    forks: bool = False  # replacements may be forked: PoolConfig.fork_starts


# `spawn`, or that of a forker: (launch, the ready descriptor, those that the start line names).
Start: TypeAlias = Callable[[Launch, int, Sequence[int]], Started]


class Begun(NamedTuple):
    """A process that was started just now, before anybody reads what it says."""

    launch: Launch
    started: Started
    place: Place
    ready_fd: int
    line: bytes


def begin(spec: InterpreterSpec, arena: Arena, secret: str, start: Start = spawn) -> Begun:
    """Finds a place and starts the program. It blocks, and leaves nothing when it fails.

    Raises WorkerStartError, ConfigError where the node's registry cannot be trusted, and NotForked where a
    forker is to `start` it."""
    launch = launch_of(spec, secrets.token_hex(16))
    with contextlib.ExitStack() as undo:
        place = _place(spec, launch.env[TOKEN_VARIABLE])
        undo.callback(place.leave)
        line = _start_line(spec, place, arena, secret)
        try:
            marks = () if spec.marks is None else (spec.marks,)
            with ready_pipe() as (ready_fd, given):
                started = start(launch, given, (*arena.descriptors, *marks))
        except OSError as error:
            raise WorkerStartError(f"worker {spec.worker_id}: {_why_not_executed(launch, error)}") from error
        undo.pop_all()
    place.registration.started(started.pid)
    if spec.wire != "frames":
        load_grpc()  # while the interpreter starts
    return Begun(launch, started, place, ready_fd, line)


@contextlib.contextmanager
def ready_pipe() -> Iterator[tuple[int, int]]:
    """The ends of the pipe for a ready line: ours, which is closed when the start fails, and that of the
    process. Raises OSError without descriptors."""
    ours, given = os.pipe()
    try:
        yield ours, given
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(given)


def _place(spec: InterpreterSpec, token: str) -> Place:
    try:
        return Place.make(token, spec.worker_id, str(spec.config.get("pool", "")))
    except OSError as error:
        raise WorkerStartError(
            f"worker {spec.worker_id}: its socket's directory and its entry in the registry cannot be made: "
            f"{error}; set TMPDIR, where Ray is started on this node, to a directory that has room and that "
            f"user {os.geteuid()} can write to"
        ) from error


def _start_line(spec: InterpreterSpec, place: Place, arena: Arena, secret: str) -> bytes:
    own = {
        "socket": place.socket,
        "secret": secret,
        "frames": _frames(spec, place.frames),
        "arena": arena.offer,
        "marks": None if spec.marks is None else {"descriptor": spec.marks},
    }
    return _line(spec, own)


def forker_line(spec: InterpreterSpec) -> bytes:
    """The start line of a forker for such interpreters: what is of one interpreter alone comes with that."""
    return _line(spec, {"socket": "", "secret": "", "frames": _frames(spec, ""), "adapter_args": {}})


def _frames(spec: InterpreterSpec, socket: str) -> dict[str, Any] | None:
    return None if spec.wire == "grpc" else {"socket": socket, "alone": spec.wire == "frames"}


def _line(spec: InterpreterSpec, own: Mapping[str, Any]) -> bytes:
    try:
        # Piece by piece: one call for all would hold the GIL, and so the event loop, for 10 ms a megabyte.
        pieces = json.JSONEncoder().iterencode({**spec.config, **own, "snakepit": PROTOCOL})
        return "".join(pieces).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise WorkerStartError(
            f"worker {spec.worker_id}: adapter_args cannot be written as JSON: {error}; "
            "pass strings, numbers, booleans, lists and mappings of them"
        ) from error


def _why_not_executed(launch: Launch, error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):
        return (
            f"no process can be started on this node: {error}; "
            "raise its limits (ulimit -n, ulimit -u, memory) or run fewer workers on it"
        )
    if error.errno == errno.E2BIG:
        return f"its environment and arguments are too large: {error}; make env= smaller"
    if launch.cwd is not None and not os.path.isdir(launch.cwd):
        return f"its working directory {launch.cwd!r} is not there: {error}; set cwd= to one that is"
    return f"{launch.argv[0]!r} cannot be executed: {error}; set interpreter= to the path of a working one"


def launch_of(spec: InterpreterSpec, token: str) -> Launch:
    """The command line and environment of the incarnation `token`."""
    return build_launch(
        argv=spec.argv,
        base_environ=os.environ,
        user_env=spec.user_env,
        token=token,
        thread_limits=spec.thread_limits,
        cwd=spec.cwd,
    )
