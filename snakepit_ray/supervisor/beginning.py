"""How an interpreter is executed: what it is started from, and the steps until there is a process.

Rule: what fails says what was tried, what the system said and what to change, and leaves nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from snakepit_ray.core.worker.handshake import PROTOCOL
from snakepit_ray.errors import WorkerStartError
from snakepit_ray.process import Launch, build_launch
from snakepit_ray.process.child import spawn
from snakepit_ray.process.launch import TOKEN_VARIABLE
from snakepit_ray.process.place import Place
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


class Begun(NamedTuple):
    """A process that was started just now, before anybody reads what it says."""

    launch: Launch
    popen: subprocess.Popen[bytes]
    place: Place
    ready_fd: int
    line: bytes


def begin(spec: InterpreterSpec, arena: Arena, secret: str) -> Begun:
    """Finds a place and executes the program. It blocks, and leaves nothing when it fails.

    Raises WorkerStartError, or ConfigError where the node's registry cannot be trusted."""
    launch = _launch(spec)
    with contextlib.ExitStack() as undo:
        place = _place(spec, launch.env[TOKEN_VARIABLE])
        undo.callback(place.leave)
        line = _start_line(spec, place, arena, secret)
        try:
            ready_fd, given = os.pipe()
            undo.callback(os.close, ready_fd)
            try:
                marks = () if spec.marks is None else (spec.marks,)
                popen = spawn(launch, given, (*arena.descriptors, *marks))
            finally:
                os.close(given)
        except OSError as error:
            raise WorkerStartError(f"worker {spec.worker_id}: {_why_not_executed(launch, error)}") from error
        undo.pop_all()
    place.registration.started(popen.pid)
    if spec.wire != "frames":
        load_grpc()  # while the interpreter starts
    return Begun(launch, popen, place, ready_fd, line)


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
        "snakepit": PROTOCOL,
        "socket": place.socket,
        "secret": secret,
        "frames": None if spec.wire == "grpc" else {"socket": place.frames, "alone": spec.wire == "frames"},
        "arena": arena.offer,
        "marks": None if spec.marks is None else {"descriptor": spec.marks},
    }
    try:
        # Piece by piece: one call for all would hold the GIL, and so the event loop, for 10 ms a megabyte.
        return "".join(json.JSONEncoder().iterencode({**spec.config, **own})).encode() + b"\n"
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


def _launch(spec: InterpreterSpec) -> Launch:
    return build_launch(
        argv=spec.argv,
        base_environ=os.environ,
        user_env=spec.user_env,
        token=secrets.token_hex(16),
        thread_limits=spec.thread_limits,
        cwd=spec.cwd,
    )
