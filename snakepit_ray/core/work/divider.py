"""How one stream of work is divided: which items leave next, and what becomes of a chunk that has ended.

Rules:
- Every item ends once. It waits here, or it is in one chunk that is under way, or it has ended.
- Items leave in the order in which they came. Items that were given back leave before later ones.
- Items that were given back travel with no others. Halves of a chunk that could not be sent would be the same
  chunk again.
- No more chunks are under way than the slots need: `ahead` of the sizing for each slot, and one for each slot
  where order counts, because what a first chunk gives back would come after a second one behind it.
- After a chunk that was refused none leaves until another one has ended. Where none is under way the next try
  comes after AGAIN_SECONDS, because no event of this stream can say that there is room.
- The size of chunks is decided when something has changed, and not chunk by chunk, so that what came at once
  is cut into equal parts.
- Work that waits leaves as long as there are places. `wakes_at` is the one time to ask again without news.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from snakepit_ray.core.work.batch_size import Sizing

T = TypeVar("T")
AGAIN_SECONDS = 0.02  # until the next try of a chunk that was refused while nothing was under way
MOST_FREE = 32  # workers that have just answered and are remembered


class Rules(NamedTuple):
    """In what streams of work differ.

    `in_order`: the items are a session's.
    `gather_seconds`: how long a chunk that is not full waits for more items while others are under way. A
    source brings its items one by one, so a pool with more slots than it fills would get all work in pieces.
    `hold_seconds`: how long items wait for a place. Then all of them leave, and wait at a worker as any other
    request does."""

    in_order: bool = False
    gather_seconds: float = 0.0
    hold_seconds: float = math.inf


PLAIN = Rules()


class Chunk(Generic[T]):  # no dataclass: every worker would pay 3 ms of its start for one
    """Items that travel together; nobody changes it. `number`: of the first item among all that came. `at`:
    when the chunk left. `to`: the worker that it is for, if it matters. `is_whole`: its items cannot be
    cut."""

    __slots__ = ("at", "is_whole", "items", "number", "to")

    def __init__(
        self, number: int, items: Sequence[T], at: float, to: str | None = None, is_whole: bool = False
    ) -> None:
        self.number = number
        self.items = items
        self.at = at
        self.to = to
        self.is_whole = is_whole

    def having(self, items: Sequence[T]) -> Chunk[T]:
        """The same chunk with these of its items."""
        return Chunk(self.number, items, self.at, self.to, self.is_whole)


class _Run(Generic[T]):
    """Items that wait, one after the other from number `number` on; those before `begin` have left."""

    __slots__ = ("begin", "is_whole", "items", "number")

    def __init__(self, number: int, items: Sequence[T], is_whole: bool) -> None:
        self.number = number
        self.items = items
        self.is_whole = is_whole
        self.begin = 0

    def first(self, size: int) -> Sequence[T]:
        """The first `size` of them, all of those that cannot be cut."""
        if self.is_whole or (not self.begin and size >= len(self.items)):
            return self.items
        return self.items[self.begin : self.begin + size]


def _number(run: _Run[T]) -> int:
    return run.number + run.begin


class Divider(Generic[T]):
    """One stream of work. The caller says what has happened, sends what `next` gives, and says what that came
    to. `fits` says how many of some items may travel together, at least 1."""

    def __init__(
        self, sizing: Sizing, rules: Rules = PLAIN, fits: Callable[[Sequence[T]], int] = len
    ) -> None:
        self.sizing = sizing
        self.waiting = 0  # items
        self.is_stopped = False
        self._rules = rules
        self._fits = fits
        self._count = 0  # items that came
        self._is_closed = False
        self._joined: list[T] | None = None  # the items of the last run, if more may join them
        self._fresh: deque[_Run[T]] = deque()
        self._back: list[_Run[T]] = []  # runs that were given back, by number
        self._under_way: set[int] = set()  # the numbers of chunks
        self._free: deque[str] = deque(maxlen=MOST_FREE)  # workers that have just answered
        self._size: tuple[int, int] | None = None  # for so many slots; None: to be decided
        self._refused_at: float | None = None  # since then no chunk has ended
        self._gathers_since: float | None = None
        self._moved_at = -math.inf  # when an item last left, or came where none waited
        self._overdue = 0  # items that have waited for too long: they need no place

    def __repr__(self) -> str:
        return f"<Divider {self.waiting} waiting, {self.under_way} chunks under way>"

    # ---- facts --------------------------------------------------------------------------------------------

    def add(self, items: Sequence[T], now: float) -> None:
        """Items came, which may travel with those before and after them."""
        if not items or self.is_stopped:
            return
        if self._joined is None:
            self._joined = list(items)
            self._fresh.append(_Run(self._count, self._joined, False))
        else:
            run = self._fresh[-1]
            if run.begin:  # what has left
                del self._joined[: run.begin]
                run.number, run.begin = _number(run), 0
            self._joined.extend(items)
        self._came(len(items), now)

    def add_apart(self, items: Sequence[T], now: float, *, is_whole: bool = False) -> None:
        """Items came which travel with no others. `is_whole`: those of them that have not ended go together
        each time."""
        if items and not self.is_stopped:
            self._joined = None
            self._fresh.append(_Run(self._count, items, is_whole))
            self._came(len(items), now)

    def close(self) -> None:
        """No more items come."""
        self._is_closed = True

    def ended(
        self,
        chunk: Chunk[T],
        now: float,
        *,
        left: Sequence[T] = (),
        seconds: float | None = None,
        nbytes: int = 0,
        by: str | None = None,
    ) -> None:
        """A chunk ended, but for its last items, `left`, that never began. `seconds`: what the others took in
        their interpreter, None where nobody knows; `nbytes`: what they moved; `by`: the worker, if it is to
        be preferred."""
        self._under_way.remove(chunk.number)
        count = len(chunk.items) - len(left)
        if seconds is not None and count:
            self.sizing.observe(count, seconds, nbytes)
        if by is not None:
            self._free.append(by)
        self._refused_at = None
        self._size = None
        self._return(chunk.number + count, left, chunk.is_whole, now)

    def refused(self, chunk: Chunk[T], now: float) -> None:
        """A chunk found no place, and nothing of it began."""
        self._under_way.remove(chunk.number)
        self._refused_at = now
        self._return(chunk.number, chunk.items, chunk.is_whole, now)

    def halved(self, chunk: Chunk[T], now: float) -> None:
        """A chunk could not be sent: one of its items cannot be, or cannot be with others."""
        self._under_way.remove(chunk.number)
        half = len(chunk.items) // 2
        self._return(chunk.number, chunk.items[:half], False, now)
        self._return(chunk.number + half, chunk.items[half:], False, now)

    def stop(self) -> None:
        """Nothing leaves any more, and nothing comes back."""
        self.is_stopped = True
        self.waiting = 0
        self._back.clear()
        self._fresh.clear()

    # ---- orders -------------------------------------------------------------------------------------------

    def next(self, slots: int, now: float, *, fills: bool = False) -> Chunk[T] | None:
        """The chunk that leaves now, None where none does. `slots`: those that the stream may use. `fills`:
        more items may come at any moment."""
        if not self._may_leave(slots, now):
            return None
        size = self.size(slots)
        if not self._back and self._gathers(size, now, fills):
            return None
        runs = self._back or self._fresh
        run: _Run[T] = runs[0]
        items = run.first(size)
        if not run.is_whole and (count := self._fits(items)) < len(items):
            items = items[:count]
        to = self._free.pop() if self._free and len(items) > 1 else None
        chunk = Chunk(_number(run), items, now, to, run.is_whole)
        self._leaves(runs, run, chunk, now)
        return chunk

    def has_place(self, slots: int, now: float) -> bool:
        """Whether a chunk more may be under way."""
        return not self._is_refused(now) and len(self._under_way) < self._most(slots)

    def size(self, slots: int) -> int:
        """How many items the next chunk should have."""
        if self._size is None or self._size[0] != slots:
            places = self.waiting if self._overdue else self._most(slots) - len(self._under_way)
            self._size = slots, self.sizing.next_size(self.waiting, slots, places)
        return self._size[1]

    def wants(self, slots: int, now: float) -> bool:
        """Whether a place is free because the items for it have not come."""
        is_short = not self.waiting or self._gathers_since is not None
        return is_short and not self._is_closed and not self._back and self.has_place(slots, now)

    @property
    def under_way(self) -> int:
        """Chunks that have left and not ended."""
        return len(self._under_way)

    @property
    def is_finished(self) -> bool:
        """Whether everything has ended that will ever come."""
        return (self._is_closed or self.is_stopped) and not self.waiting and not self._under_way

    def wakes_at(self, slots: int) -> float:
        """When `next`, which gave nothing, is to be asked again if nothing happens until then; infinity where
        that is not needed."""
        if not self.waiting:
            return math.inf
        if self._refused_at is not None:
            return math.inf if self._under_way else self._refused_at + AGAIN_SECONDS
        if self._gathers_since is not None and len(self._under_way) < self._most(slots):
            return self._gathers_since + self._rules.gather_seconds
        return self._moved_at + self._rules.hold_seconds

    # ---- inside -------------------------------------------------------------------------------------------

    def _most(self, slots: int) -> int:
        """Chunks that may be under way."""
        return slots if self._rules.in_order else slots * self.sizing.ahead

    def _is_refused(self, now: float) -> bool:
        if self._refused_at is None:
            return False
        return bool(self._under_way) or now < self._refused_at + AGAIN_SECONDS

    def _may_leave(self, slots: int, now: float) -> bool:
        if not self.waiting:
            return False
        if self.has_place(slots, now):
            return True
        if not self._overdue and now >= self._moved_at + self._rules.hold_seconds:
            self._overdue, self._size = self.waiting, None
        return self._overdue > 0 and not self._is_refused(now)

    def _gathers(self, size: int, now: float, fills: bool) -> bool:
        """Whether a chunk that is not full waits for more items. One that waits for nothing else goes at
        once."""
        since = now if self._gathers_since is None else self._gathers_since
        is_short = fills and not (self._is_closed or self._overdue) and self.waiting < size
        waits = is_short and bool(self._under_way) and now < since + self._rules.gather_seconds
        self._gathers_since = since if waits else None
        return waits

    def _leaves(
        self, runs: list[_Run[T]] | deque[_Run[T]], run: _Run[T], chunk: Chunk[T], now: float
    ) -> None:
        count = len(chunk.items)
        run.begin += count
        if run.begin >= len(run.items):
            if run.items is self._joined:
                self._joined = None
            del runs[0]
        self.waiting -= count
        self._overdue = max(0, self._overdue - count)
        self._moved_at = now
        self._refused_at = None
        self._under_way.add(chunk.number)

    def _came(self, count: int, now: float) -> None:
        self._count += count
        self._waits(count, now)

    def _return(self, number: int, items: Sequence[T], is_whole: bool, now: float) -> None:
        if items and not self.is_stopped:
            insort(self._back, _Run(number, items, is_whole), key=_number)
            self._waits(len(items), now)

    def _waits(self, count: int, now: float) -> None:
        if not self.waiting:
            self._moved_at = now
        self.waiting += count
        self._size = None
