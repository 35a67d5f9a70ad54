"""Who runs and who waits at one worker: the asyncio side of core/worker/waiting.py.

Rules:
- Each request that waits gets exactly one verdict: start, move, expired or closed.
- A request that is rejected, expires or leaves while it waits is never started.
- A slot belongs to the interpreter that serves. It is given back once, when that interpreter has answered.
- A request that was sent ahead of a slot (core/worker/slots.py) waits in the interpreter. It is recalled
  to its old place in the queue when no slot becomes free for RECALL_SECONDS.
- A request that comes back waits in its old place from that very turn of the loop on, so that no later one
  passes it and the bound of the queue holds.
- At the bound of what an interpreter may serve (`takes_more`) no request starts while its replacement comes.
- A request that may start has its turn of the loop before one that comes after it: that one waits till then.
- A request that is held up (its session is still in the interpreter before) waits aside, without a slot.
- A request that a command has made goes before others, and waits only while core/tools/ages.py says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from snakepit_ray.core.worker.slots import MOST_AHEAD, Prefetch, Slots
from snakepit_ray.core.worker.waiting import Waiting, WaitingQueue
from snakepit_ray.supervisor.nested import Chains, NestedWaits
from snakepit_ray.supervisor.ports import PoolSide
from snakepit_ray.supervisor.verdicts import CLOSED, HOPELESS, START, Expired, Move, Verdict

RECALL_SECONDS = 0.02
log = logging.getLogger("snakepit_ray.worker")


class Interpreters(Chains, Protocol):
    """What runs in the interpreters, as the queue asks for it."""

    def recall(self, ids: list[str]) -> list[str]:
        """Takes back those that have not begun; which ones were asked for."""

    def has_begun(self, request_id: str) -> bool:
        """Whether a request has begun, or nobody knows."""

    def is_held_up(self, request_id: str) -> bool:
        """Whether a waiting request must not enter the present interpreter yet."""


class Admission:
    """Slots and the queue before them. `is_open` is False while there is no interpreter to run on.

    `takes_more(occupied, is_full)`: whether another request may start beside so many, while the queue is full
    or not; None: always."""

    def __init__(
        self,
        capacity: int,
        limit: int | None,
        clock: Callable[[], float],
        pool: PoolSide,
        interpreters: Interpreters,
        takes_more: Callable[[int, bool], bool] | None = None,
    ) -> None:
        self.slots = Slots(capacity)
        self.queue = WaitingQueue(limit)
        self.is_open = False
        self.sends_away = False  # requests that may move go elsewhere
        self._pool = pool
        self._interpreters = interpreters
        self._takes_more = takes_more
        self.prefetch = Prefetch(0)
        self._places: dict[str, int] = {}  # of the requests that were started, and may come back
        self._aside: dict[str, Waiting] = {}  # waiting requests that are held up
        self._starting: set[str] = set()  # requests whose verdict is to start, and that have not heard it
        self._recalled: set[str] = set()  # requests that are expected back, before those that came after them
        self._nested = NestedWaits(interpreters, clock, self._look_in)
        self.inside: dict[str, str] = {}  # requests without a slot, and those that they run inside of
        self._closed = False
        self._recalling: asyncio.TimerHandle | None = None
        self._renewed: asyncio.TimerHandle | None = None
        self._moved_at = 0.0  # a slot became free
        self._is_stuck = False  # none has, since who was ahead was called back
        self._clock = clock
        self._verdicts: dict[str, asyncio.Future[Verdict]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self.watch: asyncio.Event | None = (
            None  # set when something changes; made when somebody waits for that
        )

    @property
    def free(self) -> int:
        """Slots that a request arriving now could start on."""
        return self.slots.free if self.is_open and not len(self.queue) and not self._is_spent() else 0

    @property
    def waiting(self) -> int:
        """Requests that have no slot: in the queue, ahead of it, and aside."""
        return len(self.queue) + self._beside

    @property
    def occupied(self) -> int:
        """Requests that have a slot of the interpreter that serves, or were sent ahead of one."""
        return self.slots.running + len(self.slots.ahead)

    @property
    def movable(self) -> int:
        """Waiting requests that another worker would begin sooner."""
        flows = self.is_open and not self._is_stuck
        movable = self.queue.movable
        return self.prefetch.movable(movable, self.slots.capacity) if flows and movable else movable

    @property
    def _beside(self) -> int:
        return len(self.slots.ahead) + len(self._aside)

    def start_now(self, request_id: str, may_go_ahead: bool = True) -> bool:
        """Takes a slot if nobody waits for one: the way of nearly all requests of a pool that is not full.
        `may_go_ahead`: a place ahead of a slot will do."""
        if not self.is_open or self.queue.waiting or self._recalled or self._starting:
            return False
        if self._takes_more is not None and self._is_spent():
            return False
        if not self.slots.acquire(request_id):
            if not may_go_ahead or not self._room_ahead() or self.queue.is_full(self._beside):
                return False
            self._go_ahead(request_id)
        self._places[request_id] = next(self.queue.places)
        return True

    def holds(self, request_id: str) -> bool:
        """Whether a request that was started may be sent: it has a slot, or a place ahead of one, of the
        interpreter that serves now."""
        return self.is_open and (request_id in self.slots or request_id in self.inside)

    def wait(self, request_id: str, expires_at: float, movable: bool) -> asyncio.Future[Verdict] | None:
        """Queues a request at the end; the future gets the verdict. None when the queue is full."""
        first = self._interpreters.is_nested(request_id)
        now, beside = self._clock(), self._beside
        if not self.queue.offer(request_id, now, expires_at, movable, beside=beside, first=first):
            return None
        return self._entered(request_id)

    def come_back(
        self, request_id: str, since: float, expires_at: float, movable: bool
    ) -> asyncio.Future[Verdict]:
        """Queues a request that was admitted at `since`, in its old place; a slot that it has is free again.
        The bound does not refuse it."""
        place = self._places.get(request_id)
        self._forget(request_id)
        seq = next(self.queue.places) if place is None else place
        self.queue.put_back(Waiting(request_id, seq, since, expires_at, movable))
        return self._entered(request_id)

    def verdict_for(self, request_id: str) -> asyncio.Future[Verdict] | None:
        """The verdict of a request that came back, which may be there already; None of one that does not
        wait."""
        return self._verdicts.get(request_id)

    def heard(self, request_id: str) -> None:
        """It knows its verdict."""
        self._verdicts.pop(request_id, None)
        self._starting.discard(request_id)
        self._nested.leaves(request_id)

    def _entered(self, request_id: str) -> asyncio.Future[Verdict]:
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._verdicts[request_id] = verdict
        self._nested.enters(request_id)
        if self._closed:
            self.queue.remove(request_id)
            self._decide(request_id, CLOSED)
        self._settle()
        return verdict

    def took(self, seconds: float) -> None:
        """A command was over in so long."""
        self.prefetch.observe(seconds)

    def release(self, request_id: str) -> None:
        """Gives the slot back; the next that waits starts."""
        if request_id not in self.slots.ahead and request_id not in self.inside:
            self._moved_at, self._is_stuck = self._clock(), False
        self._forget(request_id)
        self._settle()

    def _forget(self, request_id: str) -> None:
        self.slots.release(request_id)
        self._places.pop(request_id, None)
        self.inside.pop(request_id, None)
        if self._recalled:
            self._recalled.discard(request_id)

    def leave(self, request_id: str) -> bool:
        """A request that is in no interpreter has its outcome: nothing of it stays here. Whether it was
        waiting. Safe to repeat."""
        self.heard(request_id)
        was_held_up = self._aside.pop(request_id, None) is not None
        was_queued = self.queue.remove(request_id) is not None
        self._forget(request_id)
        self._settle()
        return was_queued or was_held_up

    def look_again(self) -> None:
        """Something that kept requests from starting may have changed."""
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
            loop = asyncio.get_running_loop()
            self._renewed = loop.call_later(RECALL_SECONDS, self._interpreters.recall, list(self.slots.ahead))
        self._recalled.clear()  # they are expected from the interpreter before, which may be hung
        self.inside.clear()
        self.slots = Slots(self.slots.capacity)
        self.prefetch = Prefetch(MOST_AHEAD if may_go_ahead else 0)
        self._is_stuck = False

    def close(self) -> None:
        """Sends everybody away who waits; nobody is let in any more."""
        self.is_open = False
        self._closed = True
        for request_id in list(self._verdicts):
            self.queue.remove(request_id)
            self._aside.pop(request_id, None)
            self._decide(request_id, CLOSED)
        self._settle()
        for timer in (self._recalling, self._timer, self._renewed):
            if timer is not None:
                timer.cancel()

    def move(self, count: int, target: str, *, chained: bool = False) -> int:
        """Sends up to `count` movable waiters to `target`; how many went. `chained`: without the router's
        order."""
        moved = 0
        for waiting in self.queue.take_movable(count, self._clock()):
            if self._decide(waiting.id, Move(target, chained)):
                self._places[waiting.id] = waiting.seq
                moved += 1
        self._settle()
        return moved

    def next_change(self) -> asyncio.Event:
        """Set by the next change of the slots or of what waits, and by the end of a call that this worker
        serves. To be taken before the look at what may change."""
        if self.watch is None or self.watch.is_set():
            self.watch = asyncio.Event()
        return self.watch

    def _settle(self) -> None:
        if self.watch is not None:
            self.watch.set()
        if self.queue.waiting or self._aside:
            self._decide_who_goes(self._clock())
            if self._nested:
                self._look_at_nested()
        try:
            self._pool.queue_changed()
        except Exception:  # who listens cannot break what it listens to: a request is being settled
            log.exception("a listener of the queue failed")

    def _decide_who_goes(self, now: float) -> None:
        if self._aside:
            self._let_in(now)
        for expired in self.queue.expire(now):
            self._decide(expired.id, Expired(now - expired.enqueued_at))
        while self.is_open and self._has_room(now) and (waiting := self.queue.pop(now)) is not None:
            if self._interpreters.is_held_up(waiting.id):
                self._aside[waiting.id] = waiting
            elif self._decide(waiting.id, START):
                self._places[waiting.id] = waiting.seq
                self._starting.add(waiting.id)
                self._go_ahead(waiting.id)
                self._pool.queue_progressed()
        self._arm(now)

    def _look_at_nested(self) -> None:
        """Of the requests that commands have made: those that wait no longer."""
        for request_id, outer in self._nested.verdicts(self.queue.waiting, self.slots.holders, self.is_open):
            if self._decide(request_id, START if outer else HOPELESS):
                if outer:
                    self.inside[request_id] = outer
                waiting = self.queue.remove(request_id)
                assert waiting is not None
                self._places[request_id] = waiting.seq

    def _look_in(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._settle)

    def _let_in(self, now: float) -> None:
        """Those aside that are held up no longer, and those whose time is up, are in their old places
        again."""
        for waiting in list(self._aside.values()):
            if waiting.expires_at <= now or not self._interpreters.is_held_up(waiting.id):
                del self._aside[waiting.id]
                self.queue.put_back(waiting)

    def _has_room(self, now: float) -> bool:
        """Whether the next that waits may start. It may not while an older one is on its way back."""
        if not (self.slots.free > 0 or self._room_ahead()) or self._is_spent():
            return False
        if not self._recalled:
            return True
        self._recalled = {one for one in self._recalled if not self._interpreters.has_begun(one)}
        first = self.queue.first_seq(now)
        return first is None or all(first < self._places[one] for one in self._recalled)

    def _is_spent(self) -> bool:
        """Whether the interpreter has all the requests that it may serve, and its replacement is about to
        come."""
        if self._takes_more is None:
            return False
        return not self._takes_more(self.occupied, self.queue.is_full(self._beside))

    def _room_ahead(self) -> bool:
        return not self._is_stuck and len(self.slots.ahead) < self.prefetch.ahead

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
            self._recall_ahead()
        self._recall_in(left if left > 0 else RECALL_SECONDS)

    def _recall_ahead(self) -> None:
        self._recalled.update(self._interpreters.recall(list(self.slots.ahead)))

    def _decide(self, request_id: str, verdict: Verdict) -> bool:
        """Gives the verdict, unless the caller was cancelled in this very turn of the loop and has yet to
        leave."""
        future = self._verdicts.get(request_id)
        if future is None or future.done():
            return False
        future.set_result(verdict)
        return True

    def _arm(self, now: float) -> None:
        expiry = self.queue.next_expiry()
        if self._aside:
            soonest = min(waiting.expires_at for waiting in self._aside.values())
            expiry = soonest if expiry is None else min(expiry, soonest)
        if expiry is None or (self._timer is not None and expiry >= self._timer_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = expiry
        self._timer = asyncio.get_running_loop().call_later(max(0.0, expiry - now), self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self._settle()
