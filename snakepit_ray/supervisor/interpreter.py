"""Knows one incarnation of the interpreter: starts it, shakes hands, and ends it leaving nothing behind.

Rules: nothing is scheduled before the handshake is done; a start that fails explains itself with the child's
own words and leaves no process, socket or directory; the secret travels on stdin only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.core.handshake import HandshakeError, Ready, StartFailure, parse_ready
from snakepit_ray.errors import ProtocolMismatch, SnakepitError, WorkerStartError
from snakepit_ray.process import Child, Exit, Launch, build_launch, registry, tree
from snakepit_ray.process.child import read_ready_line
from snakepit_ray.process.launch import TOKEN_VARIABLE
from snakepit_ray.process.registry import Registration
from snakepit_ray.rpc import InterpreterClient, InterpreterLost
from snakepit_ray.rpc.client import PROTOCOL, HostHandler
from snakepit_ray.supervisor.arena import Arena

SHUTDOWN_RPC_SECONDS = 0.5
LAST_WORDS_SECONDS = 1.0


@dataclass(frozen=True)
class InterpreterSpec:
    """What every incarnation of one worker's interpreter is started from."""

    worker_id: str
    executable: str
    script: str
    args: tuple[str, ...]
    user_env: Mapping[str, str]
    cwd: str | None
    thread_limits: int
    startup_timeout: float
    shutdown_grace: float
    config: Mapping[str, Any]  # the start line of bridge/README.md, without what is made for each process
    shared_memory: int = 0  # bytes each way; 0: none
    binary_threshold: int = 10_240
    marks: int | None = None  # the descriptor of the file in which it says what it has begun


class Interpreter:
    """A served interpreter. Create with `await Interpreter.start(...)`."""

    def __init__(self, spec: InterpreterSpec, child: Child, registration: Registration, arena: Arena) -> None:
        self.spec = spec
        self.child = child
        self.arena = arena
        self.registration = registration
        self.directory = registration.record.directory
        self.started_at = self.began_at = time.time()
        self.ready_at = time.monotonic()
        self.served = 0  # requests that it answered
        self.condemned = ""  # why we ended it without being asked to
        self.ready: Ready
        self.client: InterpreterClient

    @classmethod
    async def start(
        cls,
        spec: InterpreterSpec,
        epoch: pb.Epoch,
        on_host_call: HostHandler,
        forward: Callable[[str, str], None],
    ) -> Interpreter:
        """Starts, shakes hands and connects within `startup_timeout`. Raises WorkerStartError,
        ProtocolMismatch, or ConfigError where the node's registry cannot be trusted."""
        deadline = time.monotonic() + spec.startup_timeout
        began_at = time.time()
        launch = _launch(spec)
        registration = _register(spec, launch)
        secret = secrets.token_hex(16)
        socket = os.path.join(registration.record.directory, "s")
        arena = Arena(spec.shared_memory, spec.binary_threshold, spec.worker_id)
        marks, given = ((), None) if spec.marks is None else ((spec.marks,), {"descriptor": spec.marks})
        own = {"snakepit": PROTOCOL, "socket": socket, "secret": secret, "arena": arena.offer, "marks": given}
        pipe: tuple[int, ...] = ()
        try:
            pipe = ready_read, ready_write = os.pipe()
            inherited = (*arena.descriptors, *marks)
            child = await Child.start(launch, {**spec.config, **own}, ready_write, forward, inherited)
        except BaseException as error:  # cancelled, too
            arena.close()
            for descriptor in pipe[:1]:  # the child's start has closed the other end
                os.close(descriptor)
            _forget(registration)
            if not isinstance(error, OSError):
                raise
            raise WorkerStartError(
                f"worker {spec.worker_id}: {spec.executable!r} cannot be executed: {error}; "
                "set interpreter= to the path of a working one"
            ) from error
        registration.started(child.pid)
        self = cls(spec, child, registration, arena)
        self.began_at = began_at
        try:
            self.ready = await self._handshake(ready_read, deadline)
            await self._attach(secret, epoch, on_host_call, deadline)
        except BaseException:
            await self.kill()
            raise
        return self

    async def _handshake(self, descriptor: int, deadline: float) -> Ready:
        line = asyncio.ensure_future(read_ready_line(descriptor))
        either: list[asyncio.Future[Any]] = [line, self.child.exited]
        await asyncio.wait(
            either,
            timeout=deadline - time.monotonic(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not line.done():  # a child that exits closes the pipe, but a descendant of it may hold it open
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(line, 0.1 if self.child.exited.done() else 0)
        if not line.done() or line.cancelled():
            raise await self._not_ready(
                f"was not ready within startup_timeout={self.spec.startup_timeout:g} s"
            )
        if not line.result():
            raise await self._not_ready("ended its start without a ready line")
        return self._understood(line.result())

    def _understood(self, line: bytes) -> Ready:
        try:
            said = parse_ready(line)
        except HandshakeError as error:
            kind = ProtocolMismatch if error.version_mismatch else WorkerStartError
            raise kind(f"worker {self.spec.worker_id}: {error}") from error
        if isinstance(said, StartFailure):
            raise WorkerStartError(
                f"worker {self.spec.worker_id}: the adapter cannot be loaded ({said.stage}): {said.type}: "
                f"{said.message}\n{said.traceback}".rstrip()
            )
        return said

    async def _attach(self, secret: str, epoch: pb.Epoch, on_host_call: HostHandler, deadline: float) -> None:
        self.client = InterpreterClient(self.ready.address, secret, on_host_call, self.arena.released)
        self.arena.release = self.client.release
        if not self.ready.arena:
            self.arena.decline()
        hello = pb.Hello(protocol=PROTOCOL, worker_id=self.spec.worker_id, epoch=epoch)
        try:
            await self.client.connect(hello, max(0.1, deadline - time.monotonic()))
        except InterpreterLost as error:
            raise await self._not_ready(f"said it was ready but does not answer: {error}") from error

    async def _not_ready(self, what: str) -> SnakepitError:
        exit = await self.last_words()
        ended = f"; exit code {exit.returncode}" if exit else ""
        tail = exit.stderr_tail if exit else self.child.stderr.tail
        return WorkerStartError(
            f"worker {self.spec.worker_id}: {' '.join(self.child.launch.argv)} {what}{ended}"
            + (f"; it said:\n{tail}" if tail else "; it said nothing on stderr")
        )

    async def last_words(self) -> Exit | None:
        """The exit of a child that is ending, if it ends within LAST_WORDS_SECONDS."""
        await asyncio.wait([self.child.exited], timeout=LAST_WORDS_SECONDS)
        return self.child.exited.result() if self.child.exited.done() else None

    @property
    def gone(self) -> bool:
        """Whether its stream or its process has ended."""
        return self.client.lost.done() or self.child.exited.done()

    def condemn(self, why: str) -> None:
        """Ends the process at once, because it does not do what it is told; `why` goes into its crash."""
        if not self.condemned:
            self.condemned = why
            self.child.kill_now()

    def kill_now(self) -> None:
        """Ends the process and what it started without waiting, and removes what it has on disk."""
        self.child.kill_tree_now()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.registration.remove()
        self.arena.close()

    async def stop(self) -> Exit:
        """Polite RPC, grace, SIGTERM, grace, SIGKILL; the socket's directory is removed. Safe to repeat."""
        grace = self.spec.shutdown_grace
        if self.child.alive and await self.client.shutdown(grace, SHUTDOWN_RPC_SECONDS + grace):
            await asyncio.wait([self.child.exited], timeout=grace)
        await self.client.close()
        return await self.kill()

    async def kill(self) -> Exit:
        """SIGTERM, grace, SIGKILL; the socket's directory is removed. Safe to repeat."""
        try:
            exit = await self.child.stop(self.spec.shutdown_grace)
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.arena.close()
        self.registration.remove()  # not when this was cancelled: the process may live
        return exit


def _register(spec: InterpreterSpec, launch: Launch) -> Registration:
    directory = tempfile.mkdtemp(prefix="snakepit-")  # mode 0700: the socket in it is ours alone
    try:
        return registry.register(
            launch.env[TOKEN_VARIABLE], spec.worker_id, str(spec.config.get("pool", "")), directory
        )
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _forget(registration: Registration) -> None:
    """Of a start that did not come to an `Interpreter`: one that was cancelled may have a process already."""
    tree.send(registration.record.token, signal.SIGKILL)
    shutil.rmtree(registration.record.directory, ignore_errors=True)
    registration.remove()


def _launch(spec: InterpreterSpec) -> Launch:
    return build_launch(
        executable=spec.executable,
        script=spec.script,
        args=spec.args,
        base_environ=os.environ,
        user_env=spec.user_env,
        token=secrets.token_hex(16),
        thread_limits=spec.thread_limits,
        cwd=spec.cwd,
    )
