"""The forkers of one worker: when one is begun, which starts it serves, and when it ends.

Rules:
- A forker is begun in the background after a replacement, where that pays (core/worker/forking.py). Until it
  is ready, and whenever it fails, interpreters are executed.
- It forks only what it was begun for: another command line, environment or setting is executed.
- Why nothing is forked is logged once.
- A forker that is not wanted any more ends when the last interpreter that it has forked has ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from snakepit_ray.core.worker.forking import IDLE, Forking
from snakepit_ray.core.worker.handshake import HandshakeError, parse_forker
from snakepit_ray.process import Child, registry
from snakepit_ray.process.child import spawn
from snakepit_ray.process.forker import Forker, NotForked
from snakepit_ray.process.launch import Launch
from snakepit_ray.process.started import Started
from snakepit_ray.process.threads import aside
from snakepit_ray.supervisor.beginning import InterpreterSpec, forker_line, launch_of, ready_pipe
from snakepit_ray.supervisor.interpreter import Interpreter

STOP_SECONDS = 0.5
EXECUTED = "interpreters of this worker are executed, not forked: %s"
log = logging.getLogger("snakepit_ray.worker")


class Unfit(Exception):
    """The forker has said why nothing can be forked here."""


@dataclass(frozen=True, eq=False)
class Kept:
    """A forker, what it was begun for, and its entry in the registry."""

    forker: Forker
    spec: InterpreterSpec
    registration: registry.Registration

    @property
    def child(self) -> Child:
        """Its process."""
        return self.forker.child


class _Executed(NamedTuple):
    """The process of a forker, before it has said anything."""

    launch: Launch
    started: Started
    ready_fd: int
    orders: socket.socket
    registration: registry.Registration


class Forkers:
    """The forkers of one worker. What their imports print goes to `forward`."""

    def __init__(
        self, forward: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._forward = forward
        self._clock = clock
        self._forking = Forking()
        self._present: Kept | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._burials: dict[Kept, asyncio.Task[None]] = {}  # of every forker that there is
        self._used_at = 0.0
        self._idle: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The process that forks the next interpreter; None: the next one is executed."""
        return None if self._present is None else self._present.child.pid

    # ---- starts of interpreters ----------------------------------------------------------------------------

    def forker_for(self, spec: InterpreterSpec) -> Forker | None:
        """The forker that can fork an interpreter of this specification."""
        present = self._present
        if present is None:
            return None
        if present.spec != spec:
            self.renew()
            return None
        self._used_at = self._clock()
        return present.forker

    def failed(self, error: Exception) -> None:
        """No interpreter has come of the last order. The next one is executed, and shows whether the fork was
        at fault."""
        if not isinstance(error, NotForked):
            self._forking.start_failed()
        log.info("an interpreter is executed, not forked: %s", error)
        if self._present is not None and isinstance(error, NotForked) and error.is_lost:
            self._present.child.kill_now()
        self.renew()

    def executed(self, interpreter: Interpreter | None) -> None:
        """An interpreter was executed and has started, or has not: None."""
        if self._forking.executed(has_started=interpreter is not None):
            log.info(EXECUTED, "a forked interpreter did not start, and an executed one did")

    def replaced(self, interpreter: Interpreter, lived: float) -> None:
        """This interpreter serves in the place of one that lived for so many seconds."""
        pays = self._forking.replaced(lived)
        allowed = interpreter.spec.forks and "forks" in interpreter.ready.features
        if pays and allowed and self._present is None and self._beginning is None:
            self._beginning = asyncio.ensure_future(self._begin(interpreter.spec))

    def by_hand(self) -> None:
        """The next replacement was asked for by hand, and has everything new."""
        self._forking.by_hand()
        self.renew()

    def renew(self) -> None:
        """The present forker forks no more. The next one imports everything anew."""
        if self._beginning is not None:
            self._beginning.cancel()
            self._beginning = None
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        present, self._present = self._present, None
        if present is not None:
            present.forker.retire()

    # ---- forkers -------------------------------------------------------------------------------------------

    async def _begin(self, spec: InterpreterSpec) -> None:
        try:
            kept = await self.start(spec)
        except Exception as error:  # noqa: BLE001 - whatever it is: interpreters are executed, as without
            self._forking.refused()
            log.info(EXECUTED, str(error) or repr(error))
        else:
            self._present = kept
            self._used_at = self._clock()
            self._wait_idle(IDLE)
        self._beginning = None

    async def start(self, spec: InterpreterSpec) -> Kept:
        """A forker for such interpreters that is ready; `stop` ends it. Raises Unfit, SnakepitError, OSError,
        and leaves nothing then."""
        executed: list[_Executed] = []
        try:
            await aside(lambda: executed.append(_execute(spec)))
        except BaseException:  # cancelled, too: then there may be a process
            for one in executed:
                self._keep(one, spec).child.kill_now()
            raise
        kept = self._keep(executed[0], spec)
        try:
            await kept.child.connect(forker_line(spec))
            await _is_ready(kept)
        except BaseException:
            kept.child.kill_now()
            raise
        return kept

    def _keep(self, executed: _Executed, spec: InterpreterSpec) -> Kept:
        child = Child(executed.launch, executed.started, executed.ready_fd, self._forward)
        kept = Kept(Forker(child, executed.orders), spec, executed.registration)
        self._burials[kept] = asyncio.ensure_future(self._bury(kept))
        return kept

    async def _bury(self, kept: Kept) -> None:
        """Waits for its end, and removes what is left of it. What it has forked has tokens of its own."""
        await asyncio.wait([kept.child.exited])
        if self._present is kept:
            self.renew()
        try:
            kept.forker.close()
            await kept.child.stop(STOP_SECONDS)
            await aside(kept.registration.remove)
        finally:
            del self._burials[kept]

    def _wait_idle(self, seconds: float) -> None:
        self._idle = asyncio.get_running_loop().call_later(seconds, self._look_idle)

    def _look_idle(self) -> None:
        left = self._used_at + IDLE - self._clock()
        if left > 0:
            self._wait_idle(left)
        else:
            self.renew()

    async def stop(self) -> None:
        """Ends every forker, and with it whatever of it still runs. Safe to repeat."""
        self._forking.refused()
        beginning = self._beginning
        self.renew()
        if beginning is not None:
            await asyncio.wait([beginning])
        for kept in self._burials:
            kept.child.kill_now()
        if self._burials:
            await asyncio.wait(list(self._burials.values()))

    def kill_now(self) -> None:
        """Ends every forker without waiting, and removes its entry."""
        for kept in self._burials:
            kept.child.kill_now()
            kept.registration.remove()


async def _is_ready(kept: Kept) -> None:
    """Waits for its ready line. Raises Unfit."""
    line = kept.child.ready_line
    await asyncio.wait([line], timeout=kept.spec.startup_timeout)
    if not (line.done() and line.result()):
        raise Unfit("the forker has ended, or was not ready within startup_timeout")
    try:
        failure = parse_forker(line.result())
    except HandshakeError as error:
        raise Unfit(str(error)) from error
    if failure is not None:
        raise Unfit(failure.message)


def _execute(spec: InterpreterSpec) -> _Executed:
    """Blocks. Leaves nothing when it fails."""
    token = secrets.token_hex(16)
    launch = launch_of(spec, token)
    registration = registry.register(token, spec.worker_id, str(spec.config.get("pool", "")), "")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs, ready_pipe() as (ready_fd, given):
            argv = (*launch.argv, "--forker-fd", str(theirs.fileno()))
            launch = replace(launch, argv=argv)
            started = spawn(launch, given, (theirs.fileno(),))
    except BaseException:
        ours.close()
        registration.remove()
        raise
    registration.started(started.pid)
    return _Executed(launch, started, ready_fd, ours, registration)
