"""How a request waits at a worker: for a slot, for another worker to take it, or until its time is up.

Rules:
- Each wait has exactly one end: the slot, another worker's answer, or an error.
- What was refused or expired never runs.
- A request that another worker refused returns to its old place.
- A slot is of the interpreter that serves. Between its grant and this task's turn that interpreter may have
  gone; the request then returns to its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from snakepit_ray.errors import PoolSaturated, QueueTimeout
from snakepit_ray.supervisor.accounts import Counters
from snakepit_ray.supervisor.admission import Admission
from snakepit_ray.supervisor.attempt import Attempt
from snakepit_ray.supervisor.outcomes import Closing, Relayed, TooLate
from snakepit_ray.supervisor.ports import OtherWorkers
from snakepit_ray.supervisor.story import Story
from snakepit_ray.supervisor.verdicts import CLOSED, HOPELESS, START, Expired, Move, Verdict
from snakepit_ray.wire._pb import interpreter_pb2 as pb

T = TypeVar("T")


class WaitingRoom:
    """Where requests wait at one worker."""

    def __init__(
        self,
        admission: Admission,
        others: OtherWorkers,
        story: Story,
        counters: Counters,
        *,
        pool: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._closing = asyncio.Event()
        self._admission = admission
        self._others = others
        self._story = story
        self._counters = counters
        self._pool = pool

    def close(self) -> None:
        """Sends everybody away; nobody is let in any more."""
        self._closing.set()
        self._admission.close()

    async def unless_closed(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises Closing when the worker stops before it is there; `work` is cancelled
        then."""
        working, closing = asyncio.ensure_future(work), asyncio.ensure_future(self._closing.wait())
        either: list[asyncio.Future[Any]] = [working, closing]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Closing(False)
            return working.result()
        finally:
            working.cancel()
            closing.cancel()

    async def enter(self, attempt: Attempt) -> Relayed | None:
        """Waits for a slot of the interpreter that serves: None when it is held, or the answer of the worker
        that took the request over. Raises Closing, TooLate, QueueTimeout, PoolSaturated and what the other
        worker said."""
        request, admission = attempt.request, self._admission
        verdict = admission.verdict_for(request.id)  # of a request that came back
        if verdict is None:
            if self._closing.is_set():
                raise Closing(False)
            verdict = admission.wait(request.id, attempt.expires_at, attempt.may_move)
            if verdict is None:
                return await self._overflowed(attempt)
            self._story.enqueued(request, len(admission.queue))
            self._story.full(admission.slots.capacity, admission.slots.running)
            if verdict.done():  # those that may start before it have their turns first
                await asyncio.sleep(0)
        while True:
            decided = await verdict
            admission.heard(request.id)
            if decided is START and admission.holds(request.id):
                self._story.dequeued(request, attempt.began)
                return None
            if isinstance(decided, Move):
                relayed = await self._moved(attempt, decided)
                if relayed is not None:
                    return relayed
            if decided is HOPELESS:
                return await self._elsewhere(attempt)
            self._end_of(attempt, decided)
            verdict = admission.come_back(request.id, *attempt.terms)

    def _end_of(self, attempt: Attempt, decided: Verdict) -> None:
        """Raises what ends the wait; returns when it goes on."""
        if decided is CLOSED or self._closing.is_set():
            raise Closing(False)
        if isinstance(decided, Expired):
            self._waited_too_long(attempt)

    async def _moved(self, attempt: Attempt, move: Move) -> Relayed | None:
        """The answer of the worker that a waiter was sent to; None when it was refused there. Raises its
        error."""
        sent = self._others.delegate(move.target, _to_send_on(attempt, self._clock()), move.chained)
        relayed = await self.unless_closed(sent)
        if relayed is None:
            self._story.not_moved(attempt.request, move.target)
            return None
        self._counters.delegated += 1
        self._story.moved(attempt.request, move.target, attempt.began)
        if relayed.free and not self._admission.slots.free:
            # The next waiter follows at once to the slot that has just become free: no message to the router.
            self._admission.move(1, move.target, chained=True)
        relayed.unwrap()
        return relayed

    async def _overflowed(self, attempt: Attempt) -> Relayed:
        relayed = None
        if attempt.may_move:
            relayed = await self.unless_closed(self._others.overflow(attempt.request))
        if relayed is None:
            waiting, limit = len(self._admission.queue), self._admission.queue.limit or 0
            self._counters.saturated += 1
            slots = self._admission.slots
            self._story.saturated(waiting, limit, slots.capacity, slots.running, self._others.pool_load)
            raise PoolSaturated.full(self._pool, waiting, limit)
        self._counters.delegated += 1
        relayed.unwrap()
        return relayed

    async def _elsewhere(self, attempt: Attempt) -> Relayed:
        """The answer of another worker to a request that may not wait here. Raises PoolSaturated."""
        relayed = None
        if attempt.may_move:
            relayed = await self.unless_closed(self._others.overflow(attempt.request))
        if relayed is None:
            self._counters.saturated += 1
            raise PoolSaturated.by_older_calls(self._pool, _calls(attempt.request, self._pool))
        self._counters.delegated += 1
        relayed.unwrap()
        return relayed

    def _waited_too_long(self, attempt: Attempt) -> None:
        if self._clock() >= attempt.ends_at:
            raise TooLate(False)
        self._counters.queue_timeouts += 1
        request = attempt.request
        limit = request.options.queue_ms / 1000
        waited = self._clock() - attempt.entered
        self._story.timed_out(request, waited, limit)
        raise QueueTimeout.after(waited, limit, self._pool)


def _calls(request: pb.Request, pool: str) -> str:
    """The chain of calls that ends with this request, in words."""
    return " -> ".join([*request.chain.calls, f"{pool}.{request.command}"])


def _to_send_on(attempt: Attempt, now: float) -> pb.Request:
    """A copy to send on: one hop more, and what is left of its times."""
    moved = pb.Request()
    moved.CopyFrom(attempt.request)
    if attempt.budget is not None:
        moved.budget_ms = max(1, int((attempt.ends_at - now) * 1000))
    spent = int((now - attempt.entered) * 1000)
    moved.options.queue_ms = max(1, moved.options.queue_ms - spent)
    moved.options.hops += 1
    return moved
