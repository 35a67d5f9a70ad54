"""Which requests wait at one worker.

- FIFO by `seq`. Those that a slot waits for (`first`) go before the others.
- Every id that was admitted leaves exactly once (popped, expired, removed or taken away).
- An expired request is never handed out to start.
- The bound is kept at the door (`offer`), and what was admitted once may always come back to its place.
- `now` and all times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple

_SLACK = 32  # dead heap entries that are tolerated before a heap is rebuilt


class Waiting(NamedTuple):
    """One waiting request."""

    id: str
    seq: int  # its place in the order of arrival at this worker
    enqueued_at: float
    expires_at: float  # min(queue timeout, whole budget), absolute
    movable: bool  # may be delegated to another worker


class _Index:
    """A heap of (rank, seq, id) that forgets lazily: who left is skipped when it surfaces.

    Invariant: at most 2 x live + _SLACK entries, so every operation is O(log live) amortised.
    """

    __slots__ = ("_by_expiry", "_heap", "_live")

    def __init__(self, live: dict[str, Waiting], *, by_expiry: bool = False) -> None:
        self._heap: list[tuple[float, int, str]] = []
        self._live = live
        self._by_expiry = by_expiry  # else by seq

    def push(self, waiting: Waiting) -> None:
        rank = waiting.expires_at if self._by_expiry else waiting.seq
        heappush(self._heap, (rank, waiting.seq, waiting.id))

    def head(self) -> Waiting | None:
        heap = self._heap
        while heap:
            _, seq, name = heap[0]
            waiting = self._live.get(name)
            if waiting is not None and waiting.seq == seq:
                return waiting
            heappop(heap)
        return None

    def trim(self, members: int) -> None:
        """Rebuild when most entries are dead; `members` is how many are alive."""
        if len(self._heap) <= 2 * members + _SLACK:
            return
        alive = {(rank, seq, name) for rank, seq, name in self._heap if self._is_live(seq, name)}
        self._heap = list(alive)
        heapify(self._heap)

    def _is_live(self, seq: int, name: str) -> bool:
        waiting = self._live.get(name)
        return waiting is not None and waiting.seq == seq


class WaitingQueue:
    """The bounded FIFO of one worker. Knows nothing about slots.

    `limit` is how many may wait (None: unbounded, 0: nobody).
    """

    def __init__(self, limit: int | None) -> None:
        if limit is not None and limit < 0:
            raise ValueError(f"limit must be None or >= 0, got {limit}")
        self.limit = limit
        self.waiting: dict[str, Waiting] = {}  # by id; not to be changed from outside
        self.places = count()  # behind all others: the next one, also for who does not wait yet
        self.first_places = count(-(1 << 62))  # before all of those, behind each other
        self._order = _Index(self.waiting)
        self._movable_order = _Index(self.waiting)
        self._expiry = _Index(self.waiting, by_expiry=True)
        self._due: deque[Waiting] = deque()  # expired, not yet reported
        self._movable = 0

    def __len__(self) -> int:
        return len(self.waiting)

    def __contains__(self, id: str) -> bool:
        return id in self.waiting

    def __repr__(self) -> str:
        limit = "unbounded" if self.limit is None else f"limit {self.limit}"
        return f"<WaitingQueue {len(self)} waiting, {self._movable} movable, {limit}>"

    @property
    def movable(self) -> int:
        """How many of the waiting may be delegated."""
        return self._movable

    def is_full(self, beside: int = 0) -> bool:
        """Whether nobody more may wait; `beside`: those that wait elsewhere, and count."""
        return self.limit is not None and len(self.waiting) + beside >= self.limit

    def offer(
        self, id: str, now: float, expires_at: float, movable: bool, beside: int = 0, *, first: bool = False
    ) -> bool:
        """Admit a request at the end of the queue; False when the queue is full (see `is_full`). `first`:
        at the end of those that go before all others.

        Raises ValueError when the id waits already. Those expired by `now` no longer hold a place.
        """
        self._sweep(now)
        if id in self.waiting:
            raise ValueError(f"request {id!r} waits already")
        if self.is_full(beside):
            return False
        place = next(self.first_places if first else self.places)
        self._insert(Waiting(id, place, now, expires_at, movable))
        return True

    def pop(self, now: float) -> Waiting | None:
        """The next to start, oldest first, never an expired one; None when nobody waits."""
        self._sweep(now)
        waiting = self._order.head()
        return None if waiting is None else self._take(waiting)

    def first_seq(self, now: float) -> int | None:
        """The place of the one that `pop` would hand out; None when nobody waits."""
        self._sweep(now)
        waiting = self._order.head()
        return None if waiting is None else waiting.seq

    def expire(self, now: float) -> list[Waiting]:
        """All that expired by `now` (expires_at <= now) and were not reported before, soonest first."""
        self._sweep(now)
        due = list(self._due)
        self._due.clear()
        return due

    def remove(self, id: str) -> Waiting | None:
        """Cancel. None when the id does not wait here (it started, expired, is away, or was never here)."""
        waiting = self.waiting.get(id)
        return None if waiting is None else self._take(waiting)

    def take_movable(self, n: int, now: float) -> list[Waiting]:
        """Take up to `n` of the oldest movable requests out, to be delegated.

        They are in limbo then: the caller either forgets them (another worker has them) or calls
        `put_back`.
        """
        self._sweep(now)
        taken: list[Waiting] = []
        while len(taken) < n and (waiting := self._movable_order.head()) is not None:
            taken.append(self._take(waiting))
        return taken

    def put_back(self, waiting: Waiting) -> None:
        """A refused delegate returns to its place by `seq`.

        It was admitted once, so the bound does not refuse it. If it expired meanwhile, `expire` will report
        it. Raises ValueError when the id waits already.
        """
        if waiting.id in self.waiting:
            raise ValueError(f"request {waiting.id!r} waits already")
        self._insert(waiting)

    def next_expiry(self) -> float | None:
        """When `expire` has something to report next; None when nobody waits."""
        if self._due:
            return self._due[0].expires_at
        waiting = self._expiry.head()
        return None if waiting is None else waiting.expires_at

    def oldest_movable_at(self) -> float | None:
        """When the oldest movable request was enqueued; None when there is none."""
        waiting = self._movable_order.head()
        return None if waiting is None else waiting.enqueued_at

    def _insert(self, waiting: Waiting) -> None:
        self.waiting[waiting.id] = waiting
        self._order.push(waiting)
        self._expiry.push(waiting)
        if waiting.movable:
            self._movable_order.push(waiting)
            self._movable += 1
        self._trim()

    def _take(self, waiting: Waiting) -> Waiting:
        del self.waiting[waiting.id]
        self._movable -= waiting.movable
        self._trim()
        return waiting

    def _trim(self) -> None:
        self._order.trim(len(self.waiting))
        self._expiry.trim(len(self.waiting))
        self._movable_order.trim(self._movable)

    def _sweep(self, now: float) -> None:
        """Set the expired apart, so that no other operation can meet one."""
        while (waiting := self._expiry.head()) is not None and waiting.expires_at <= now:
            self._due.append(self._take(waiting))
