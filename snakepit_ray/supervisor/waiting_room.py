"""Knows how a request waits at a worker: for a slot, for another worker to take it, or until its time is up.

Rules: exactly one end for each wait: the slot, another worker's answer, or an error; what was refused or
expired never runs; a waiter that another worker refused returns to its old place."""

from __future__ import annotations

import asyncio
import time

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.errors import (
    DeadlineExceeded,
    PoolClosed,
    PoolSaturated,
    QueueTimeout,
    SnakepitError,
)
from snakepit_ray.supervisor.admission import CLOSED, START, Admission, Expired, Move, Verdict
from snakepit_ray.supervisor.outcomes import Counters, Relayed, Sink
from snakepit_ray.supervisor.story import Story
from snakepit_ray.supervisor.surroundings import Surroundings


class Attempt:
    """One request on its way through this worker: what is left of its budget, which try it is."""

    def __init__(self, request: pb.Request, budget: float | None, sink: Sink | None = None) -> None:
        self.request = request
        self.sink = sink  # of a stream
        self.budget = budget
        self.began = self.entered = time.monotonic()  # of the first try; of this one
        self.number = max(1, request.attempt)
        self.place: int | None = None  # in the queue, of one that comes back to it
        self.recalled = False
        self.losses = 0  # interpreters that died with it in them and had not begun it

    @property
    def waited(self) -> float:
        """Seconds since it came."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float | None:
        """Seconds of its budget; None without one."""
        return None if self.budget is None else self.budget - self.waited


class WaitingRoom:
    """Where requests wait at one worker."""

    def __init__(
        self,
        admission: Admission,
        around: Surroundings,
        story: Story,
        counters: Counters,
        *,
        worker_id: str,
        pool: str,
    ) -> None:
        self.is_closed = False
        self._admission = admission
        self._around = around
        self._story = story
        self._counters = counters
        self._worker_id = worker_id
        self._pool = pool

    def close(self) -> None:
        """Sends everybody away; nobody is let in any more."""
        self.is_closed = True
        self._admission.close()

    async def enter(self, attempt: Attempt, may_move: bool) -> Relayed | None:
        """Waits for a slot: None when it is held, or the answer of the worker that took the request over."""
        request = attempt.request
        if self.is_closed:
            raise self.closed()
        expires_at = attempt.entered + request.options.queue_ms / 1000
        if attempt.budget is not None:
            expires_at = min(expires_at, attempt.began + attempt.budget)
        place = attempt.place if attempt.recalled else None
        verdict = self._admission.wait(request.id, expires_at, may_move, place)
        if verdict is None:
            return await self._overflowed(request, may_move)
        if place is None:
            self._story.enqueued(request, len(self._admission.queue))
        while True:
            decided = await self._verdict(request.id, verdict)
            if decided is START:
                self._story.dequeued(request, attempt.began)
                return None
            if decided is CLOSED:
                raise self.closed()
            if isinstance(decided, Expired):
                raise self._waited_too_long(attempt)
            assert isinstance(decided, Move)
            relayed = await self._moved(attempt, decided)
            if relayed is not None:
                return relayed
            verdict = self._admission.back(decided.waiting)

    async def _moved(self, attempt: Attempt, move: Move) -> Relayed | None:
        """The answer of the worker that a waiter was sent to; None when it was refused there. Raises its
        error."""
        relayed = await self._around.delegate(move.target, _to_send_on(attempt), move.chained)
        if relayed is None:
            return None
        self._counters.delegated += 1
        self._story.moved(attempt.request, move.target, attempt.began)
        if relayed.free and not self._admission.slots.free:
            # The next waiter follows at once to the slot that has just become free: no message to the router.
            self._admission.move(1, move.target, chained=True)
        relayed.unwrap()
        return relayed

    async def _verdict(self, request_id: str, verdict: asyncio.Future[Verdict]) -> Verdict:
        try:
            return await verdict
        except asyncio.CancelledError:
            self._admission.leave(request_id, verdict)
            raise

    async def _overflowed(self, request: pb.Request, may_move: bool) -> Relayed:
        relayed = await self._around.overflow(request) if may_move else None
        if relayed is None:
            self._counters.saturated += 1
            self._story.saturated(len(self._admission.queue), self._admission.queue.limit or 0)
            raise PoolSaturated.full(self._pool, len(self._admission.queue), self._admission.queue.limit or 0)
        self._counters.delegated += 1
        relayed.unwrap()
        return relayed

    def closed(self) -> PoolClosed:
        return PoolClosed(f"pool {self._pool!r} was shut down (worker {self._worker_id} has stopped)")

    def _waited_too_long(self, attempt: Attempt) -> SnakepitError:
        self._counters.queue_timeouts += 1
        request = attempt.request
        limit = request.options.queue_ms / 1000
        waited = time.monotonic() - attempt.entered
        self._story.timed_out(request, waited, limit)
        if attempt.left is not None and attempt.left <= 0:
            return DeadlineExceeded.after(attempt.budget or 0.0, "waiting", request.command)
        return QueueTimeout.after(waited, limit, self._pool)


def _to_send_on(attempt: Attempt) -> pb.Request:
    """A copy to send on: one hop more, and what is left of its times."""
    moved = pb.Request()
    moved.CopyFrom(attempt.request)
    if attempt.left is not None:
        moved.budget_ms = max(1, int(attempt.left * 1000))
    spent = int((time.monotonic() - attempt.entered) * 1000)
    moved.options.queue_ms = max(1, moved.options.queue_ms - spent)
    moved.options.hops += 1
    return moved
