"""One incarnation of the interpreter: its start, the handshake, and its end, which leaves nothing behind.

- Nothing is scheduled before the handshake is done.
- A start that fails is told in the child's own words, and leaves no process, socket or directory.
- The secret travels on stdin only.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from snakepit_ray.core.worker.handshake import PROTOCOL, HandshakeError, Ready, StartFailure, parse_ready
from snakepit_ray.errors import InvalidArguments, ProtocolMismatch, SnakepitError, WorkerStartError
from snakepit_ray.process import Child, Exit
from snakepit_ray.process.awaiting import finish
from snakepit_ray.process.child import spawn
from snakepit_ray.process.threads import aside
from snakepit_ray.rpc import HostSide, InterpreterClient, InterpreterLost, client_to
from snakepit_ray.supervisor.arena import Arena
from snakepit_ray.supervisor.beginning import Begun, InterpreterSpec, Start, begin
from snakepit_ray.telemetry import Why
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.host_call import HostHandler

__all__ = ["Interpreter", "InterpreterSpec"]

SHUTDOWN_RPC_SECONDS = 0.5
LAST_WORDS_SECONDS = 1.0
SESSIONS_REMEMBERED = 100_000  # as many as a bridge


class Interpreter:
    """A served interpreter. Create with `await Interpreter.start(...)`."""

    def __init__(
        self,
        spec: InterpreterSpec,
        begun: Begun,
        forward: Callable[[str, str], None],
        arena: Arena,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.child = Child(begun.launch, begun.started, begun.ready_fd, forward)
        self.arena = arena
        self.place = begun.place
        self.started_at = self.began_at = time.time()
        self.ready_at = clock()
        self.start_seconds = 0.0  # from the first step until it could serve
        self.served = 0  # requests that it answered
        self.condemned = ""  # why we ended it without being asked to
        self.condemned_for: Why | None = None
        self.ready: Ready
        self.has_marks = False  # it says what it has begun
        self.nests = False  # it runs a request inside of one that waits
        self.lacks: frozenset[str] = frozenset()  # kinds of requests that its bridge does not know
        self.moves_sessions = self.ends_sessions = False  # its adapter has the hooks
        self.sessions: dict[str, None] = {}  # those that have entered it, where it has hooks for them
        self.client: InterpreterClient
        self._ending: asyncio.Future[Exit] | None = None

    @classmethod
    async def start(
        cls,
        spec: InterpreterSpec,
        epoch: pb.Epoch,
        on_host_call: HostHandler,
        forward: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
        start: Start = spawn,
    ) -> Interpreter:
        """Starts, shakes hands and connects within `startup_timeout` of `clock`. Raises WorkerStartError,
        ProtocolMismatch, or ConfigError where the node's registry cannot be trusted; NotForked where `start`
        is that of a forker, which forks nothing now.

        However it fails or is cancelled, nothing of it is left when this returns."""
        began, began_at = clock(), time.time()
        deadline = began + spec.startup_timeout
        secret = secrets.token_hex(16)
        arena = Arena(spec.shared_memory, spec.binary_threshold, spec.worker_id, clock)
        begun: list[Begun] = []
        try:
            await aside(lambda: begun.append(begin(spec, arena, secret, start)))
        except BaseException:  # cancelled, too: then there may be a process
            for one in begun:
                await cls(spec, one, forward, arena, clock).kill()
            arena.close()
            raise
        self = cls(spec, begun[0], forward, arena, clock)
        self.began_at = began_at
        try:
            await self.child.connect(begun[0].line)
            self.ready = await self._handshake(deadline - clock())
            self._learn(self.ready)
            await self._attach(secret, epoch, on_host_call, deadline - clock())
            self.start_seconds = clock() - began
        except BaseException:
            await self.kill()
            raise
        return self

    def _learn(self, ready: Ready) -> None:
        self.has_marks, self.lacks = "marks" in ready.features, ready.lacks
        self.nests = "nesting" in ready.features
        self.moves_sessions = "session_moves" in ready.features
        self.ends_sessions = "session_ends" in ready.features

    def entered(self, session: str) -> None:
        """A request of the session is about to be sent to it."""
        if self.moves_sessions or self.ends_sessions:
            if session not in self.sessions and len(self.sessions) >= SESSIONS_REMEMBERED:
                del self.sessions[next(iter(self.sessions))]
            self.sessions[session] = None

    async def _handshake(self, seconds: float) -> Ready:
        said, exited = self.child.ready_line, self.child.exited
        either: list[asyncio.Future[Any]] = [said, exited]
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not said.done():
            raise await self._not_ready(
                f"was not ready within startup_timeout={self.spec.startup_timeout:g} s"
            )
        if not said.result():
            raise await self._not_ready("ended its start without a ready line")
        return self._understood(said.result())

    def _understood(self, line: bytes) -> Ready:
        try:
            said = parse_ready(line)
        except HandshakeError as error:
            kind = ProtocolMismatch if error.version_mismatch else WorkerStartError
            raise kind(f"worker {self.spec.worker_id}: {error}") from error
        if isinstance(said, StartFailure):
            if said.stage == "interpreter":  # the message is the whole of it, with what helps
                raise WorkerStartError(f"worker {self.spec.worker_id}: {said.message}")
            raise WorkerStartError(
                f"worker {self.spec.worker_id}: the adapter cannot be loaded ({said.stage}): {said.type}: "
                f"{said.message}\n{said.traceback}".rstrip()
            )
        return said

    async def _attach(self, secret: str, epoch: pb.Epoch, on_host_call: HostHandler, seconds: float) -> None:
        host = HostSide(self.spec.worker_id, on_host_call, self.arena)
        self.client = client_to(*self._addresses(), secret, host)
        self.arena.connected(self.client.release)
        if "arena" not in self.ready.features:
            self.arena.decline()
        hello = pb.Hello(protocol=PROTOCOL, worker_id=self.spec.worker_id, epoch=epoch)
        try:
            await self.client.connect(hello, max(0.1, seconds))
        except InterpreterLost as error:
            raise await self._not_ready(f"said it was ready but does not answer: {error}") from error

    def _addresses(self) -> tuple[str, str]:
        """Of its gRPC and of its frames, "" for what is not used. Raises WorkerStartError where the pool asks
        for frames and its bridge has none."""
        wire, ready = self.spec.wire, self.ready
        if wire == "grpc" and not ready.address:
            raise WorkerStartError(
                f"worker {self.spec.worker_id}: the {ready.language} bridge {ready.bridge} serves no gRPC, "
                'and the pool has wire="grpc"; set wire="auto"'
            )
        if wire == "grpc" or (wire == "auto" and "frames" not in ready.features):
            return ready.address, ""
        if "frames" not in ready.features:
            raise WorkerStartError(
                f"worker {self.spec.worker_id}: the {ready.language} bridge {ready.bridge} does not take "
                'frames, and the pool has wire="frames"; set wire="auto"'
            )
        return ready.address if wire == "auto" else "", self.place.frames

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

    def refuse_unknown(self, request: pb.Request) -> None:
        """Raises InvalidArguments for a request of a kind that its bridge has not said that it knows."""
        kinds = {"batches": request.HasField("batch"), "streams": request.stream, "refs": bool(request.refs)}
        for name in sorted(self.lacks):
            if kinds[name]:
                raise InvalidArguments(
                    f"{request.command}: the {self.ready.language} bridge {self.ready.bridge} does not know "
                    f"{name} (its features: {', '.join(sorted(self.ready.features)) or 'none'})",
                    command=request.command,
                )

    def condemn(self, reason: Why, why: str) -> None:
        """Ends the process at once, because it does not do what it is told; `why` goes into its crash."""
        if not self.condemned:
            self.condemned, self.condemned_for = why, reason
            self.child.kill_now()

    def kill_now(self) -> None:
        """Ends the process and what it started without waiting, and removes what it has on disk. Blocks: for
        a process that ends itself now."""
        self.child.kill_tree_now()
        self.place.leave()
        self.arena.close()

    async def stop(self) -> Exit:
        """Polite RPC, grace, SIGTERM, grace, SIGKILL; what it has on disk is removed. Safe to repeat, also
        when an earlier call was cancelled."""
        try:
            await self._ask_to_end()
        finally:
            exit = await self.kill()
        return exit

    async def _ask_to_end(self) -> None:
        grace = self.spec.shutdown_grace
        if self._ending is not None or not self.child.alive:
            return
        if await self.client.shutdown(grace, SHUTDOWN_RPC_SECONDS + grace):
            await asyncio.wait([self.child.exited], timeout=grace)

    async def kill(self) -> Exit:
        """SIGTERM, grace, SIGKILL; what it has on disk is removed. Safe to repeat; a caller that is cancelled
        waits for the end, which takes no more than both graces."""
        if self._ending is None or (self._ending.done() and not _succeeded(self._ending)):
            self._ending = asyncio.ensure_future(self._end())
        return await finish(self._ending)

    async def _end(self) -> Exit:
        exit = await self.child.stop(self.spec.shutdown_grace)
        try:
            if hasattr(self, "client"):
                await self.client.close()
        finally:
            await aside(self.arena.close)
            await aside(partial(self.place.leave, stays=self.child.stays))
        return exit


def _succeeded(ending: asyncio.Future[Exit]) -> bool:
    return not ending.cancelled() and ending.exception() is None
