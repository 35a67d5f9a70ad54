"""Knows who runs and who waits at one worker: the asyncio side of core/waiting.py.

Rules: exactly one verdict for each that enters: start, move, or an error; who is rejected, expires or is
cancelled while it waits is never started; a slot is given back once, when the interpreter has answered; who
was sent ahead of a slot (core/ahead.py) waits, in the interpreter, and is taken back to its old place in the
queue when no slot becomes free for RECALL_SECONDS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from snakepit_ray.core.ahead import MOST_AHEAD, Pace
from snakepit_ray.core.waiting import Slots, Waiting, WaitingQueue

RECALL_SECONDS = 0.02


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
        self.recall: Callable[[list[str]], None] = lambda ids: None
        self.pace = Pace(0)
        self._places: dict[str, int] = {}  # of those who were started, and may come back
        self._recalling: asyncio.TimerHandle | None = None
        self._moved_at = 0.0  # a slot became free
        self._is_stuck = False  # none has, since who was ahead was called back
        self._clock = clock
        self._verdicts: dict[str, asyncio.Future[Verdict]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    @property
    def free(self) -> int:
        """Slots that a request arriving now could start on."""
        return self.slots.free if self.is_open and not len(self.queue) else 0

    @property
    def waiting(self) -> int:
        """Requests that have no slot: in the queue, and ahead of it."""
        return len(self.queue) + len(self.slots.ahead)

    def start_now(self, request_id: str) -> bool:
        """Takes a slot if nobody waits for one: the way of nearly all requests of a pool that is not full."""
        if not self.is_open or len(self.queue):
            return False
        if self.slots.acquire(request_id):
            return True
        if not self._room_ahead() or self.queue.is_full(len(self.slots.ahead)):
            return False
        self._places[request_id] = self.queue.next_seq()
        self._go_ahead(request_id)
        return True

    def place_of(self, request_id: str) -> int | None:
        """The place in the queue that a request which was started would come back to; asked once."""
        return self._places.pop(request_id, None)

    def wait(
        self, request_id: str, expires_at: float, movable: bool, place: int | None = None
    ) -> asyncio.Future[Verdict] | None:
        """Queues; the future gets the verdict. None when the queue is full. `place`: where it was before."""
        now = self._clock()
        if place is not None:
            return self.back(Waiting(request_id, place, now, expires_at, movable))
        if not self.queue.offer(request_id, now, expires_at, movable, beside=len(self.slots.ahead)):
            return None
        return self._entered(request_id)

    def _entered(self, request_id: str) -> asyncio.Future[Verdict]:
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._verdicts[request_id] = verdict
        self._settle()
        return verdict

    def took(self, seconds: float) -> None:
        """A command was over in so long."""
        self.pace.observe(seconds)

    def release(self, request_id: str) -> None:
        """Gives the slot back; the next that waits starts."""
        if request_id not in self.slots.ahead:
            self._moved_at, self._is_stuck = self._clock(), False
        self._forget(request_id)
        self._settle()

    def _forget(self, request_id: str) -> None:
        self.slots.release(request_id)
        self._places.pop(request_id, None)

    def leave(self, request_id: str, verdict: asyncio.Future[Verdict]) -> None:
        """Its caller was cancelled: forgets it if it waits, gives the slot back if it was just granted
        one."""
        self._verdicts.pop(request_id, None)
        waited = self.queue.remove(request_id) is not None
        if not waited and verdict.done() and not verdict.cancelled() and verdict.result() is START:
            self._forget(request_id)
        self._settle()

    def set_open(self, is_open: bool) -> None:
        """Opens when an interpreter is ready, closes when it is lost: the waiting stay."""
        self.is_open = is_open
        self._settle()

    def renew(self, may_go_ahead: bool = False) -> None:
        """Another interpreter serves: all its slots are free; those that are held belong to the one before,
        and who is ahead of one runs there, too, unless it takes long. `may_go_ahead`: it says what it has
        begun, so that nothing that was sent ahead can be lost with it."""
        if self.slots.ahead:
            asyncio.get_running_loop().call_later(RECALL_SECONDS, self.recall, list(self.slots.ahead))
        self.slots = Slots(self.slots.capacity)
        self.pace = Pace(MOST_AHEAD if may_go_ahead else 0)
        self._is_stuck = False

    def close(self) -> None:
        """Sends everybody away who waits; nobody is let in any more."""
        self.is_open = False
        if self._recalling is not None:
            self._recalling.cancel()
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
        self.queue.put_back(waiting)
        return self._entered(waiting.id)

    def _settle(self) -> None:
        now = self._clock()
        for expired in self.queue.expire(now):
            self._decide(expired.id, Expired(now - expired.enqueued_at))
        while self.is_open and self._has_room() and (waiting := self.queue.pop(now)) is not None:
            if self._decide(waiting.id, START):
                self._places[waiting.id] = waiting.seq
                self._go_ahead(waiting.id)
                self.progressed()
        self._arm(now)
        self.changed()

    def _has_room(self) -> bool:
        return self.slots.free > 0 or self._room_ahead()

    def _room_ahead(self) -> bool:
        return not self._is_stuck and len(self.slots.ahead) < self.pace.ahead

    def _go_ahead(self, request_id: str) -> None:
        self.slots.go_ahead(request_id)
        if self.slots.ahead and self._recalling is None:
            self._moved_at = self._clock()
            self._recall_in(RECALL_SECONDS)

    def _recall_in(self, seconds: float) -> None:
        self._recalling = asyncio.get_running_loop().call_later(seconds, self._recall_if_stuck)

    def _recall_if_stuck(self) -> None:
        self._recalling = None
        if not self.slots.ahead:
            return
        left = self._moved_at + RECALL_SECONDS - self._clock()
        if left <= 0:
            self._is_stuck = True
            self.recall(list(self.slots.ahead))
        self._recall_in(left if left > 0 else RECALL_SECONDS)

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
