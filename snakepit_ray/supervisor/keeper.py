"""Knows how a worker always has an interpreter: starts one, notices its end, replaces it, also on purpose.

Rules: one interpreter serves at a time, others may be finishing what they run; the epoch's number rises the
moment that an interpreter is lost or replaced, so that nobody takes the next one for it; how soon the next
one comes is core/restarts.py's decision; a planned replacement shakes hands before the old one stops taking
requests (where the pool asks for overlap), and one that fails changes nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.core.handshake import Command
from snakepit_ray.core.recycling import Reason
from snakepit_ray.core.restarts import Quarantine, RestartBudget
from snakepit_ray.process import Exit
from snakepit_ray.process.threads import aside
from snakepit_ray.rpc.client import HostHandler
from snakepit_ray.supervisor.interpreter import Interpreter, InterpreterSpec

PERMIT_AGAIN = (
    0.2  # seconds between two questions for the permit to recycle; the router waits with its answer
)
RECYCLE_AGAIN = 5.0  # seconds after a planned replacement that could not be started


class Hooks(Protocol):
    """What the keeper tells its worker, and what it asks of it."""

    def serving(self, interpreter: Interpreter) -> None:
        """It takes requests from now on; the one before, if it lives, only finishes."""

    def replaced(self, epoch_number: int) -> None:
        """The interpreter of that epoch is replaced on purpose: what it holds is not lost by a failure."""

    def down(self) -> None:
        """No interpreter takes requests: the waiting stay."""

    def ended(self, interpreter: Interpreter, exit: Exit) -> None:
        """It is gone, not by our wish: what ran in it is lost."""

    def drained(self, interpreter: Interpreter) -> Coroutine[Any, Any, None]:
        """Waits until nothing runs in it."""

    def start_failed(self, error: Exception) -> None:
        """A replacement could not be started."""

    def restarted(self, attempt: int, delay: float) -> None:
        """A lost interpreter was replaced."""

    def recycled(self, interpreter: Interpreter, reason: Reason) -> None:
        """It was replaced on purpose and has ended."""

    def quarantined(self, quarantine: Quarantine) -> None:
        """The restart budget is spent."""

    def retry(self) -> None:
        """The quarantine is over: the next start is tried."""

    def may_recycle(self) -> Coroutine[Any, Any, bool]:
        """Whether this worker may be one of those that recycle now."""

    def recycling_over(self) -> None:
        """The permit is free again."""


class Keeper:
    """The interpreters of one worker, one after the other."""

    def __init__(
        self,
        make_spec: Callable[[], InterpreterSpec],
        incarnation: int,
        on_host_call: HostHandler,
        forward: Callable[[str, str], None],
        hooks: Hooks,
        *,
        overlap: bool,
    ) -> None:
        self.epoch = pb.Epoch(incarnation=incarnation, number=1)
        self.interpreter: Interpreter | None = None
        self.budget = RestartBudget()
        self.restarts = 0
        self._make_spec = make_spec
        self._on_host_call = on_host_call
        self._forward = forward
        self._hooks = hooks
        self._overlap = overlap
        self._wanted: asyncio.Future[Reason] | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._retiring: list[Interpreter] = []
        self._others: set[asyncio.Task[None]] = set()  # burials and retirements

    async def start(self) -> None:
        """Starts the first interpreter and keeps one from then on. Safe to repeat.

        Raises WorkerStartError, ProtocolMismatch and what `make_spec` raises.
        """
        if self._beginning is None or (self._beginning.done() and self._watching is None):
            self._beginning = asyncio.ensure_future(self._begin_keeping())
        await asyncio.shield(self._beginning)  # whoever comes meanwhile waits for the same start

    async def _begin_keeping(self) -> None:
        await self._begin(self.epoch)
        self._watching = asyncio.ensure_future(self._keep())

    async def stop(self) -> None:
        """Ends the interpreters and their replacing. Safe to repeat."""
        self._stopping.set()
        for task in (self._beginning, self._watching):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        ending = [asyncio.ensure_future(self.interpreter.stop())] if self.interpreter is not None else []
        if ending or self._others:  # those who are buried or retire are ended by their own tasks, soon now
            await asyncio.wait([*ending, *self._others])

    def kill_now(self) -> None:
        """Ends every interpreter at once with what it started; those that are starting see their lifeline
        end."""
        for interpreter in (self.interpreter, *self._retiring):
            if interpreter is not None:
                interpreter.kill_now()

    def command(self, name: str) -> Command | None:
        """What the interpreter said of a command; None when it has none of that name or there is no
        interpreter."""
        return self.interpreter.ready.commands.get(name) if self.interpreter is not None else None

    def recycle(self, reason: Reason) -> None:
        """Wishes for a planned replacement; one at a time."""
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(reason)

    # ---- one serves ---------------------------------------------------------------------------------------

    async def _launch(self, epoch: pb.Epoch) -> Interpreter:
        spec = await aside(self._make_spec)  # it looks for files, and asks the user's Runtime
        return await Interpreter.start(spec, epoch, self._on_host_call, self._forward)

    async def _begin(self, epoch: pb.Epoch) -> None:
        self._install(await self._launch(epoch), epoch)

    def _install(self, interpreter: Interpreter, epoch: pb.Epoch) -> None:
        self.epoch, self.interpreter = epoch, interpreter
        self._wanted = asyncio.get_running_loop().create_future()
        self._hooks.serving(interpreter)

    def _next_epoch(self) -> pb.Epoch:
        return pb.Epoch(incarnation=self.epoch.incarnation, number=self.epoch.number + 1)

    async def _keep(self) -> None:
        while True:
            interpreter, wanted = self.interpreter, self._wanted
            assert interpreter is not None
            assert wanted is not None
            await _first(interpreter.client.lost, interpreter.child.exited, wanted)
            if interpreter.gone:
                await self._replace(interpreter)
            elif await self._permitted(interpreter):
                await self._recycle(interpreter, wanted.result())

    # ---- losses -------------------------------------------------------------------------------------------

    async def _replace(self, lost: Interpreter) -> None:
        self.epoch = self._next_epoch()
        self._hooks.down()
        self._aside(self._bury(lost))
        await self._restart(lost.served, time.monotonic() - lost.ready_at)

    async def _bury(self, lost: Interpreter) -> None:
        exit = await lost.last_words() or await lost.kill()
        self._hooks.ended(lost, exit)
        await lost.client.close()
        await lost.kill()  # what it started, and its socket

    async def _restart(self, served: int, lived: float) -> None:
        for attempt in range(1, 1_000_000_000):
            now = time.monotonic()
            verdict = self.budget.lost(now, served=served, lived=lived, random=random.random())
            if isinstance(verdict, Quarantine):
                self._hooks.quarantined(verdict)
                await asyncio.sleep(verdict.seconds)
                self._hooks.retry()
            else:
                await asyncio.sleep(verdict.delay)
            try:
                await self._begin(self.epoch)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try comes, and the story has the words
                self._hooks.start_failed(error)
                served, lived = 0, 0.0
                continue
            self.restarts += 1
            self._hooks.restarted(attempt, time.monotonic() - now)
            return

    # ---- replacing on purpose -----------------------------------------------------------------------------

    async def _permitted(self, interpreter: Interpreter) -> bool:
        while not interpreter.gone:
            asked = asyncio.ensure_future(self._hooks.may_recycle())
            await _first(asked, interpreter.client.lost, interpreter.child.exited)
            if not asked.done():  # lost while it asked: it is replaced without a permit
                asked.cancel()
                self._hooks.recycling_over()
            elif asked.result():
                return True
            else:
                await _first(interpreter.client.lost, interpreter.child.exited, timeout=PERMIT_AGAIN)
        return False

    async def _recycle(self, old: Interpreter, reason: Reason) -> None:
        if not self._overlap:
            await self._recycle_in_place(old, reason)
            return
        epoch = self._next_epoch()
        try:
            fresh = await self._launch(epoch)
        except Exception as error:  # noqa: BLE001 - the old one serves on; the story has the words
            self._hooks.recycling_over()
            self._hooks.start_failed(error)
            await _first(old.client.lost, old.child.exited, timeout=RECYCLE_AGAIN)
            return
        if old.gone:
            self._hooks.down()
            self._install(fresh, epoch)
            self._aside(self._bury(old))
            self._hooks.recycling_over()
        else:
            self._hooks.replaced(self.epoch.number)
            self._install(fresh, epoch)
            self._aside(self._retire(old, reason))

    async def _retire(self, old: Interpreter, reason: Reason) -> None:
        self._retiring.append(old)
        try:
            await self._finish(old)
            self._hooks.recycled(old, reason)
        finally:
            self._retiring.remove(old)
            self._hooks.recycling_over()

    async def _finish(self, old: Interpreter) -> None:
        """Lets it finish what it runs, then ends it."""
        drained = asyncio.ensure_future(self._hooks.drained(old))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await _first(drained, stopping, old.client.lost, old.child.exited)
        finally:
            drained.cancel()
            stopping.cancel()
        if old.gone:
            await self._bury(old)
        else:
            await old.stop()

    async def _recycle_in_place(self, old: Interpreter, reason: Reason) -> None:
        try:
            self._hooks.replaced(self.epoch.number)
            self.epoch = self._next_epoch()
            self._hooks.down()
            await self._finish(old)
            self._hooks.recycled(old, reason)
            await self._begin_or_restart()
        finally:
            self._hooks.recycling_over()

    async def _begin_or_restart(self) -> None:
        try:
            await self._begin(self.epoch)
        except Exception as error:  # noqa: BLE001 - from here on it is a loss like others
            self._hooks.start_failed(error)
            await self._restart(0, 0.0)

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)


async def _first(*futures: asyncio.Future[Any], timeout: float | None = None) -> None:
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
