"""Knows who runs and who waits at one worker: the asyncio side of core/waiting.py.

Rules: exactly one verdict for each that enters: start, move, or an error; who is rejected, expires or is
cancelled while it waits is never started; a slot is given back once, when the interpreter has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from snakepit_ray.core.waiting import Slots, Waiting, WaitingQueue


class Start(NamedTuple):
    """The slot is held: run."""


class Move(NamedTuple):
    """Take the request to `target` (a worker id); if it is refused there, `back` puts it in its old place."""

    target: str
    waiting: Waiting
    chained: bool = False


class Expired(NamedTuple):
    """It waited as long as it may."""

    waited: float


class Closed(NamedTuple):
    """The worker has stopped."""


Verdict = Start | Move | Expired | Closed
START = Start()
CLOSED = Closed()


class Admission:
    """Slots and the queue before them. `open` is False while there is no interpreter to run on."""

    def __init__(self, capacity: int, limit: int | None, clock: Callable[[], float]) -> None:
        self.slots = Slots(capacity)
        self.queue = WaitingQueue(limit)
        self.is_open = False
        self.changed: Callable[[], None] = lambda: None
        self.progressed: Callable[[], None] = lambda: None
        self._clock = clock
        self._verdicts: dict[str, asyncio.Future[Verdict]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    @property
    def free(self) -> int:
        """Slots that a request arriving now could start on."""
        return self.slots.free if self.is_open and not len(self.queue) else 0

    def start_now(self, request_id: str) -> bool:
        """Takes a slot if nobody waits for one: the way of nearly all requests of a pool that is not full."""
        return self.is_open and not len(self.queue) and self.slots.acquire(request_id)

    def wait(self, request_id: str, expires_at: float, movable: bool) -> asyncio.Future[Verdict] | None:
        """Queues; the future gets the verdict. None when the queue is full."""
        if not self.queue.offer(request_id, self._clock(), expires_at, movable):
            return None
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._verdicts[request_id] = verdict
        self._settle()
        return verdict

    def release(self, request_id: str) -> None:
        """Gives the slot back; the next that waits starts."""
        self.slots.release(request_id)
        self._settle()

    def leave(self, request_id: str, verdict: asyncio.Future[Verdict]) -> None:
        """Its caller was cancelled: forgets it if it waits, gives the slot back if it was just granted
        one."""
        self._verdicts.pop(request_id, None)
        waited = self.queue.remove(request_id) is not None
        if not waited and verdict.done() and not verdict.cancelled() and verdict.result() is START:
            self.slots.release(request_id)
        self._settle()

    def set_open(self, is_open: bool) -> None:
        """Opens when an interpreter is ready, closes when it is lost: the waiting stay."""
        self.is_open = is_open
        self._settle()

    def renew(self) -> None:
        """Another interpreter serves: all its slots are free; those that are held belong to the one
        before."""
        self.slots = Slots(self.slots.capacity)

    def close(self) -> None:
        """Sends everybody away who waits; nobody is let in any more."""
        self.is_open = False
        while (waiting := self.queue.pop(self._clock())) is not None:
            self._decide(waiting.id, CLOSED)
        self._settle()

    def move(self, count: int, target: str, *, chained: bool = False) -> int:
        """Sends up to `count` movable waiters to `target`; how many went. `chained`: without the router's
        order."""
        taken = self.queue.take_movable(count, self._clock())
        moved = sum(self._decide(waiting.id, Move(target, waiting, chained)) for waiting in taken)
        self._settle()
        return moved

    def back(self, waiting: Waiting) -> asyncio.Future[Verdict]:
        """A mover was refused: it waits again in its old place."""
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._verdicts[waiting.id] = verdict
        self.queue.put_back(waiting)
        self._settle()
        return verdict

    def _settle(self) -> None:
        now = self._clock()
        for expired in self.queue.expire(now):
            self._decide(expired.id, Expired(now - expired.enqueued_at))
        while self.is_open and self.slots.free and (waiting := self.queue.pop(now)) is not None:
            if self._decide(waiting.id, START):
                self.slots.acquire(waiting.id)
                self.progressed()
        self._arm(now)
        self.changed()

    def _decide(self, request_id: str, verdict: Verdict) -> bool:
        """Gives the verdict, unless the caller was cancelled in this very turn of the loop and has yet to
        leave."""
        future = self._verdicts.pop(request_id, None)
        if future is None or future.done():
            return False
        future.set_result(verdict)
        return True

    def _arm(self, now: float) -> None:
        expiry = self.queue.next_expiry()
        if expiry is None or (self._timer is not None and expiry >= self._timer_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = expiry
        self._timer = asyncio.get_running_loop().call_later(max(0.0, expiry - now), self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self._settle()
