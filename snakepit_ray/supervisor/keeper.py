"""How a worker always has an interpreter: starts one, notices its end, replaces it, also on purpose.

Rules:
- One interpreter serves at a time. Others may be finishing what they run.
- Each interpreter has one watcher from its first request to its burial, so that its end is noticed in that
  moment, whatever else is being started.
- The epoch's number rises the moment that an interpreter is lost, leaves or is replaced, so that nobody takes
  the next one for it.
- An interpreter that says that it leaves (it got SIGTERM) takes no more requests from that moment on. It
  finishes as one that is replaced on purpose.
- How soon the next one comes is the decision of core/worker/restarts.py.
- A planned replacement shakes hands before the old one stops taking requests, where the pool asks for
  overlap. One that fails changes nothing. One that was begun early waits for the old one to be spent.
- A replacement is forked where there is a forker (forkers.py), and executed where there is none.
- A step of an end that fails is tried again (the process has no descriptors for a moment, say), and what
  keeps an interpreter running survives whatever a step raises."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from snakepit_ray.core.worker.recycling import Reason
from snakepit_ray.core.worker.restarts import Quarantine, RestartBudget
from snakepit_ray.errors import SnakepitError
from snakepit_ray.process import Exit
from snakepit_ray.process.child import spawn
from snakepit_ray.process.forker import NotForked
from snakepit_ray.process.threads import aside
from snakepit_ray.supervisor.beginning import Start
from snakepit_ray.supervisor.forkers import Forkers
from snakepit_ray.supervisor.interpreter import Interpreter, InterpreterSpec
from snakepit_ray.supervisor.life import Life
from snakepit_ray.supervisor.serving import Serving
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.host_call import HostHandler

PERMIT_AGAIN = 0.2  # seconds between two questions for the permit to recycle; the router answers late
STANDBY_SECONDS = 5.0  # for the old one to be spent; a replacement that waits costs memory and the permit
RECYCLE_AGAIN = 5.0  # seconds after a planned replacement that could not be started
STEP_AGAIN = 0.2  # seconds after a step of an end, or of keeping, that failed
LAST_TRIES = 20  # of a step that fails, once the worker stops
log = logging.getLogger("snakepit_ray.worker")


class Keeper:
    """The interpreters of one worker, one after the other."""

    def __init__(
        self,
        make_spec: Callable[[], InterpreterSpec],
        serving: Serving,
        on_host_call: HostHandler,
        forward: Callable[[str, str], None],
        life: Life,
        *,
        overlap: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._serving = serving
        self.budget = RestartBudget()
        self._make_spec = make_spec
        self._on_host_call = on_host_call
        self._forward = forward
        self.forkers = Forkers(forward, clock)
        self._life = life
        self.overlap = overlap
        self._wanted: asyncio.Future[Reason] | None = None
        self._spent: asyncio.Future[None] | None = None  # the replacement, if it is ready, is to serve
        self._fresh: Interpreter | None = None  # a replacement that is ready, and does not serve yet
        self._beginning: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._serves = False  # the present interpreter takes requests
        self._watchers: dict[Interpreter, asyncio.Task[None]] = {}
        self._retired: dict[Interpreter, asyncio.Future[Reason]] = {}  # of each: it is to finish what it runs
        self._retiring: list[Interpreter] = []  # those that end: they are being finished or buried
        self._others: set[asyncio.Task[None]] = set()  # their watchers
        self._launched_at = 0.0

    async def start(self) -> None:
        """Starts the first interpreter and keeps one from then on. Safe to repeat.

        Raises WorkerStartError, ProtocolMismatch and what `make_spec` raises.
        """
        if self._beginning is None or (self._beginning.done() and self._watching is None):
            self._beginning = asyncio.ensure_future(self._begin_keeping())
        await asyncio.shield(self._beginning)  # whoever comes meanwhile waits for the same start

    async def _begin_keeping(self) -> None:
        await self._begin(self._serving.epoch)
        self._watching = asyncio.ensure_future(self._keep())

    async def stop(self) -> None:
        """Ends the interpreters and their replacing. Safe to repeat."""
        self._stopping.set()
        for task in (self._beginning, self._watching):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        ending: list[asyncio.Future[Any]] = []
        present = self._serving.interpreter
        if present is not None:
            ending.append(asyncio.ensure_future(self._insist(present.stop, "be ended")))
        if ending or self._watchers:  # those that end already are ended by their watchers, soon now
            await asyncio.wait([*ending, *self._watchers.values()])
        await self.forkers.stop()

    def kill_now(self) -> None:
        """Ends every interpreter at once with what it started; those that are starting see their lifeline
        end."""
        for interpreter in (self._serving.interpreter, self._fresh, *self._retiring):
            if interpreter is not None:
                interpreter.kill_now()
        self.forkers.kill_now()

    def recycle(self, reason: Reason, *, early: bool = False) -> None:
        """Wishes for a planned replacement; one at a time. `early`: it is made ready, and serves when it is
        wished for again without `early`, or after STANDBY_SECONDS."""
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(reason)
        if self._spent is not None and not (early or self._spent.done()):
            self._spent.set_result(None)

    # ---- one serves ---------------------------------------------------------------------------------------

    async def _launch(self, epoch: pb.Epoch) -> Interpreter:
        self._launched_at = self._clock()
        spec = await aside(self._make_spec)  # it looks for files, and asks the user's Runtime
        forker = self.forkers.forker_for(spec)
        if forker is not None:
            try:
                return await self._start(spec, epoch, forker.fork)
            except (SnakepitError, NotForked) as error:
                self.forkers.failed(error)
        started = None
        try:
            started = await self._start(spec, epoch, spawn)
        finally:
            self.forkers.executed(started)
        return started

    async def _start(self, spec: InterpreterSpec, epoch: pb.Epoch, start: Start) -> Interpreter:
        return await Interpreter.start(spec, epoch, self._on_host_call, self._forward, self._clock, start)

    async def _begin(self, epoch: pb.Epoch) -> None:
        self._install(await self._launch(epoch), epoch)

    def _install(self, interpreter: Interpreter, epoch: pb.Epoch) -> None:
        last = self._serving.interpreter
        if last is not None:
            self.forkers.replaced(interpreter, self._clock() - last.ready_at)
        self._serving.epoch, self._serving.interpreter = epoch, interpreter
        loop = asyncio.get_running_loop()
        self._wanted, self._spent = loop.create_future(), loop.create_future()
        self._retired[interpreter] = loop.create_future()
        self._watchers[interpreter] = asyncio.ensure_future(self._watch(interpreter))
        interpreter.client.leaving.add_done_callback(lambda _: self._leaves(interpreter))
        self._serves = True
        self._life.serving(interpreter, epoch.number)

    async def _keep(self) -> None:
        while True:
            try:
                await self._tend()
            except Exception:  # nobody else would start the next one
                log.exception("keeping an interpreter failed; it goes on in %g s", STEP_AGAIN)
                await asyncio.sleep(STEP_AGAIN)

    async def _tend(self) -> None:
        """Waits until another interpreter is to serve, and sees that it does."""
        interpreter, wanted = self._serving.interpreter, self._wanted
        assert interpreter is not None
        assert wanted is not None
        await _first(*_ends(interpreter), wanted)
        if interpreter.gone:
            self._lose(interpreter)
            await self._restart(interpreter.served, self._clock() - interpreter.ready_at)
        elif interpreter.client.leaving.done():
            await self._begin_or_restart()
        elif await self._permitted(interpreter):
            await self._recycle(interpreter, wanted.result())

    # ---- the end of each ----------------------------------------------------------------------------------

    async def _watch(self, interpreter: Interpreter) -> None:
        """From its first request to its burial."""
        lost, exited, retired = interpreter.client.lost, interpreter.child.exited, self._retired[interpreter]
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await _first(lost, exited, retired, stopping)
            if self._stopping.is_set() and interpreter is self._serving.interpreter and not retired.done():
                return  # `stop` ends it
            task = asyncio.current_task()
            assert task is not None
            self._others.add(task)
            self._retiring.append(interpreter)
            task.add_done_callback(self._others.discard)
            if retired.done():
                await self._finish(interpreter, retired.result())
            else:
                self._lose(interpreter)
                await self._bury(interpreter)
        finally:
            stopping.cancel()
            if interpreter in self._retiring:
                self._retiring.remove(interpreter)
            del self._watchers[interpreter], self._retired[interpreter]

    def _lose(self, interpreter: Interpreter) -> None:
        """It takes no more requests, not by our wish. Safe to repeat."""
        if self._serves and interpreter is self._serving.interpreter:
            self._serves = False
            self._serving.epoch = self._serving.next_epoch()
            self._tell(self._life.down)

    def _tell(self, event: Callable[..., None], *about: Any) -> None:
        """What the worker's own code raises does not keep an interpreter from its end."""
        try:
            event(*about)
        except Exception:
            log.exception("%s failed", event.__qualname__)

    def _leaves(self, interpreter: Interpreter) -> None:
        """It has said that it ends."""
        serves = self._serves and interpreter is self._serving.interpreter
        if serves and not (interpreter.gone or self._stopping.is_set()):
            self._life.replaced(self._serving.epoch.number)
            self._lose(interpreter)
            self._retired[interpreter].set_result(Reason.TERMINATED)

    async def _finish(self, old: Interpreter, reason: Reason) -> None:
        """Lets it finish what it runs, then ends it."""
        finished = asyncio.ensure_future(self._life.finished(old))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await _first(finished, stopping, old.client.lost, old.child.exited)
        finally:
            finished.cancel()
            stopping.cancel()
        if old.gone and self._life.holds(old):
            await self._bury(old)
        else:
            await self._insist(old.stop, "be ended")
        self._tell(self._life.recycled, old, reason)

    async def _bury(self, lost: Interpreter) -> None:
        exit = await lost.last_words() or await self._insist(lost.kill, "be killed")
        # What ran in it has its outcome now, whatever becomes of the rest.
        unseen = Exit(-signal.SIGKILL, lost.child.stderr.tail, lost.child.launch.argv)
        self._tell(self._life.ended, lost, exit or unseen)
        await self._insist(lost.kill, "be removed")  # what it started, its connection and its socket

    async def _insist(self, step: Callable[[], Awaitable[Exit]], what: str) -> Exit | None:
        """What `step` returns, tried until it succeeds; None when the worker stops and it still fails."""
        tries = 0
        while True:
            try:
                return await step()
            except Exception as error:  # noqa: BLE001 - nobody else would end it
                tries += self._stopping.is_set()
                log.warning("an interpreter could not %s, it is tried again: %r", what, error)
            if tries >= LAST_TRIES:
                return None
            await asyncio.sleep(STEP_AGAIN)

    # ---- losses -------------------------------------------------------------------------------------------

    async def _restart(self, served: int, lived: float) -> None:
        for attempt in range(1, 1_000_000_000):
            now = self._clock()
            verdict = self.budget.lost(now, served=served, lived=lived, random=random.random())
            if isinstance(verdict, Quarantine):
                self._life.quarantined(verdict)
                await asyncio.sleep(verdict.seconds)
                self._life.retry()
            else:
                await asyncio.sleep(verdict.delay)
            try:
                await self._begin(self._serving.epoch)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try comes, and the story has the words
                self._life.start_failed(error, self._clock() - self._launched_at)
                served, lived = 0, 0.0
                continue
            self._life.restarted(attempt, self._clock() - now)
            return

    # ---- replacing on purpose -----------------------------------------------------------------------------

    async def _permitted(self, interpreter: Interpreter) -> bool:
        while self._serves and not interpreter.gone:
            asked = asyncio.ensure_future(self._life.may_recycle())
            await _first(asked, *_ends(interpreter))
            if not asked.done():  # lost while it asked: it is replaced without a permit
                asked.cancel()
                self._life.recycling_over()
            elif asked.result():
                return True
            else:
                await _first(*_ends(interpreter), timeout=PERMIT_AGAIN)
        return False

    async def _recycle(self, old: Interpreter, reason: Reason) -> None:
        if reason is Reason.MANUAL:  # whoever asks for it may want what has changed on the disk
            self.forkers.by_hand()
        if self.overlap:
            await self._recycle_with_overlap(old, reason)
            return
        try:
            await self._recycle_in_place(old, reason)
        finally:
            self._life.recycling_over()

    async def _recycle_with_overlap(self, old: Interpreter, reason: Reason) -> None:
        epoch = self._serving.next_epoch()
        try:
            fresh = await self._launch(epoch)
        except Exception as error:  # noqa: BLE001 - the old one serves on; the story has the words
            self._life.recycling_over()
            self._life.start_failed(error, self._clock() - self._launched_at)
            await _first(*_ends(old), timeout=RECYCLE_AGAIN)
            return
        await self._stand_by(fresh, old)
        if self._serves:
            self._life.leaves(old, self._serving.epoch.number)
            watcher = self._retire(old, reason)
            watcher.add_done_callback(lambda _: self._life.recycling_over())
        else:  # the old one was lost, or left, meanwhile: its watcher sees to that
            self._life.recycling_over()
        self._install(fresh, epoch)

    async def _stand_by(self, fresh: Interpreter, old: Interpreter) -> None:
        """Returns when `fresh` is to serve."""
        assert self._spent is not None
        self._fresh = fresh
        self._tell(self._life.replacement_ready)
        try:
            await _first(self._spent, *_ends(old), *_ends(fresh), timeout=STANDBY_SECONDS)
        except BaseException:  # the worker stops, and would not end it otherwise
            await fresh.kill()
            raise
        finally:
            self._fresh = None

    def _retire(self, old: Interpreter, reason: Reason) -> asyncio.Future[None]:
        """It finishes what it runs and ends; the future is done then."""
        if not self._retired[old].done():
            self._retired[old].set_result(reason)
        return self._watchers[old]

    async def _recycle_in_place(self, old: Interpreter, reason: Reason) -> None:
        self._life.leaves(old, self._serving.epoch.number)
        self._lose(old)
        await asyncio.wait([self._retire(old, reason)])
        await self._begin_or_restart()

    async def _begin_or_restart(self) -> None:
        try:
            await self._begin(self._serving.epoch)
        except Exception as error:  # noqa: BLE001 - from here on it is a loss like others
            self._life.start_failed(error, self._clock() - self._launched_at)
            await self._restart(0, 0.0)


def _ends(interpreter: Interpreter) -> tuple[asyncio.Future[Any], ...]:
    return interpreter.client.lost, interpreter.child.exited, interpreter.client.leaving


async def _first(*futures: asyncio.Future[Any], timeout: float | None = None) -> None:
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
