"""How an interpreter is looked after while it serves: does it answer, is it too old, has it served or grown
too much?

Rules:
- It looks every `health_check_interval` seconds, and at requests as they start and end.
- An interpreter that is hung (core/worker/health.py) is ended.
- An interpreter that reached a limit (core/worker/recycling.py) is replaced on purpose. At `max_requests` new
  requests wait a moment for the replacement.
- A look that fails warns once and counts for nothing."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from snakepit_ray.core.worker.health import Look, Pulse
from snakepit_ray.core.worker.recycling import Countdown, Reason, Stage
from snakepit_ray.process import usage
from snakepit_ray.process.shared_memory import NAME as SHARED_NAME
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.supervisor.keeper import Keeper
from snakepit_ray.supervisor.policy import CarePolicy
from snakepit_ray.supervisor.running import Running
from snakepit_ray.supervisor.serving import Serving
from snakepit_ray.supervisor.story import Story
from snakepit_ray.telemetry import Why

ANSWER_SECONDS = 2.0  # for one health check, at most
FAILED_SECONDS = 0.2  # after a look that failed, beside the pause between two looks
log = logging.getLogger("snakepit_ray.worker")


class Care:
    """Looks after the interpreters of one worker."""

    def __init__(
        self,
        policy: CarePolicy,
        keeper: Keeper,
        serving: Serving,
        running: Running,
        story: Story,
        resume: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resume` is called when requests that `takes_more` held up may start. `clock` is time.monotonic, as
        that of the event loop."""
        self._clock = clock
        self._policy = policy
        self._resume = resume
        self._countdown: Countdown | None = None  # of the interpreter that serves
        self._resuming: asyncio.TimerHandle | None = None
        self._keeper = keeper
        self._serving = serving
        self._running = running
        self._story = story
        self._tasks: set[asyncio.Task[None]] = set()
        self._expires_at = float("inf")
        self._warned = False

    def begin(self, interpreter: Interpreter) -> None:
        """This one serves from now on; those before are looked after until they end."""
        limits = self._policy.limits
        self._expires_at = limits.expires_at(interpreter.ready_at, random.random())
        if limits.max_requests is not None:
            self._countdown = Countdown(
                limits.max_requests, interpreter.start_seconds, overlap=self._keeper.overlap
            )
        task = asyncio.ensure_future(self._look_after(interpreter))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Looks no more."""
        for task in self._tasks:
            task.cancel()
        if self._resuming is not None:
            self._resuming.cancel()

    def answered(self) -> None:
        """An interpreter has answered: the replacement of the one that serves may be due."""
        interpreter, countdown = self._serving.interpreter, self._countdown
        if countdown is None or interpreter is None:
            return
        countdown.observe(self._clock(), interpreter.served)
        if countdown.is_due():
            self._keeper.recycle(Reason.MAX_REQUESTS, early=not countdown.is_reached(0))

    def takes_more(self, occupied: int, is_full: bool) -> bool:
        """Whether another request may start in the interpreter that serves, which has `occupied` requests.
        `is_full`: whether the next that waits would be refused, for which overlap gives no reason."""
        countdown = self._countdown
        if countdown is None or not countdown.is_reached(occupied + self._more_items()):
            return True
        self._keeper.recycle(Reason.MAX_REQUESTS)
        if is_full and self._keeper.overlap:
            return True
        now = self._clock()
        until = countdown.held_until(now)
        if until <= now:
            return True
        if self._resuming is None:
            self._resuming = asyncio.get_running_loop().call_later(until - now, self._let_on)
        return False

    def items_left(self, occupied: int) -> int:
        """How many items of a batch that starts now may begin. 0: all of them, because there is no limit or
        it has given way. `occupied` as above, the batch is one of them."""
        countdown = self._countdown
        return 0 if countdown is None else countdown.left(occupied - 1 + self._more_items())

    def _more_items(self) -> int:
        """Items in the interpreter that serves, beyond one for each request."""
        interpreter = self._serving.interpreter
        return 0 if interpreter is None else self._running.more_items(interpreter)

    def replacing(self, stage: Stage) -> None:
        """The replacement of the interpreter that serves has come so far."""
        if self._countdown is not None:
            self._countdown.advance(stage, self._clock())
            self._let_on()

    def _let_on(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        self._resume()

    async def _look_after(self, interpreter: Interpreter) -> None:
        pulse = Pulse(self._clock(), self._policy.silence)
        over: list[asyncio.Future[Any]] = [interpreter.client.lost, interpreter.child.exited]
        while not interpreter.gone:
            pause = min(self._pause(pulse), max(0.01, self._expires_at - self._clock()))
            await asyncio.wait(over, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            if interpreter.gone:
                return
            try:
                await self._look(interpreter, pulse)
            except Exception as error:  # noqa: BLE001 - nobody else looks: without descriptors for a moment, say
                self._warn_once("looking after interpreter %d failed: %r", interpreter.child.pid, error)
                await asyncio.wait(over, timeout=FAILED_SECONDS, return_when=asyncio.FIRST_COMPLETED)

    async def _look(self, interpreter: Interpreter, pulse: Pulse) -> None:
        await self._check_pulse(interpreter, pulse)
        await interpreter.arena.rest(interpreter.client.trim)
        if interpreter is self._serving.interpreter:
            await self._check_limits(interpreter)

    def _warn_once(self, message: str, *about: object) -> None:
        if not self._warned:
            self._warned = True
            log.warning(message, *about)

    def _pause(self, pulse: Pulse) -> float:
        """Until the next look; one that was not answered is looked at more closely."""
        interval = self._policy.interval
        return min(interval, self._policy.silence / 8) if pulse.failures else interval

    async def _check_pulse(self, interpreter: Interpreter, pulse: Pulse) -> None:
        # Ended with the interpreter, not after the whole timeout.
        asked = asyncio.ensure_future(interpreter.client.healthy(min(ANSWER_SECONDS, self._policy.silence)))
        either: list[asyncio.Future[Any]] = [asked, interpreter.child.exited]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if interpreter.gone:
            asked.cancel()
            return
        now, cpu = self._clock(), usage.cpu_seconds(interpreter.child.pid)
        look = Look(now, asked.result(), cpu, self._running.works(interpreter, now))
        hung = pulse.look(look)
        if not look.answered:
            silent = pulse.silent_for(now)
            self._story.health_check_failed(f"no answer for {silent:.1f} s, {pulse.failures} checks in a row")
        if hung:
            interpreter.condemn(
                Why.HANG,
                f"it answered no health check for {pulse.silent_for(now):.1f} s "
                f"(heartbeat_timeout={self._policy.silence:g} s) and got no processor time for a command",
            )

    def memory(self, interpreter: Interpreter) -> int | None:
        """Bytes of the interpreter and its children, without arguments and results on their way; None where
        that cannot be read. Reads /proc, which takes a moment."""
        pid = interpreter.child.pid
        memory = usage.tree_rss(pid)
        if memory is None or not interpreter.arena.resident:
            return memory
        return memory - usage.mapped(pid, SHARED_NAME)

    async def _check_limits(self, interpreter: Interpreter) -> None:
        limits = self._policy.limits
        if not limits.any:
            return
        memory = None
        if limits.max_memory is not None:
            memory = await asyncio.to_thread(self.memory, interpreter)
            if memory is None:
                self._warn_once("the memory of interpreter %d cannot be read", interpreter.child.pid)
        reason = limits.exceeded(self._clock(), self._expires_at, interpreter.served, memory)
        if reason is not None:
            self._keeper.recycle(reason)
