"""How many items a chunk should have, and how many chunks should be under way, from what earlier ones took.

- A chunk has about TARGET seconds of work, at most MOST items and MOST_BYTES bytes.
- It begins at 1 and grows to at most GROWTH times the chunk that was observed. A chunk that is too long does
  little harm: its interpreter gives the rest back after SHARE seconds.
- The time of an item is the least that was seen lately. On a machine with fewer cores than busy processes
  the clock says many times what an item costs, and smaller chunks would only make more work. It drifts up by
  DRIFT a chunk. Items that take TARGET or longer are believed at once: they go one by one.
- When an item takes longer than SLOW seconds, an extra message costs nothing in comparison, so no item waits
  behind another.
- Cheap work uses few workers. The caller spends time of its own on each chunk, so it cannot keep more workers
  busy than the work of a chunk is longer than that. More would only take the cores from those.
"""

from __future__ import annotations

import math
from typing import Protocol

TARGET = 0.010  # seconds of work in a chunk
MOST = 2_000  # items
MOST_BYTES = 1 << 20
SLOW = 0.050  # seconds an item: from here on nothing is sent ahead of its slot
SHARE = 0.050  # seconds after which an interpreter gives the rest of a chunk back
GROWTH = 8
DRIFT = 1.1  # by which the time of an item may grow from chunk to chunk
QUICKEST = 1e-7  # seconds an item: less is a clock that stood still
SPARE = 1  # workers more than the caller can keep busy: their times vary
LEAST_WORK = 0.001  # seconds: calls that come at once are not divided further
MOVE_SECONDS = 0.001  # that a chunk costs a worker which has another one run it
CALL_SECONDS = 15e-6  # that an awaited call costs its caller's event loop
FIRST_SIZE = 256  # of the first chunks of a batch, at most


class Sizing(Protocol):
    """How one stream of work is cut. A Divider asks it before it cuts, and says what each chunk took."""

    @property
    def ahead(self) -> int:
        """Chunks under way for each slot."""

    def next_size(self, waiting: int, slots: int, places: int) -> int:
        """How many items the next chunk should have, at least 1, where `waiting` items wait and so many
        chunks more (`places`) may be under way on `slots` slots."""

    def observe(self, count: int, seconds: float, nbytes: int = 0) -> None:
        """`count` items took `seconds` in their interpreter, and moved `nbytes`."""


class BatchSize:
    """The size of the next chunk of one stream of like items."""

    def __init__(self, most: int = MOST, start: int = 1) -> None:
        self._most = max(1, min(most, MOST))
        self.size = max(1, min(start, self._most))
        self.known = False
        self._last_seconds = 0.0  # an item, of the last chunk
        self._item_seconds = math.inf  # without what held it up

    def __repr__(self) -> str:
        return f"<BatchSize {self.size} of {self._most}, {self._item_seconds:.2g} s an item>"

    @property
    def ahead(self) -> int:
        """Chunks under way for each slot: one runs, one is near it, unless that gains nothing."""
        return 2 if self.known and self._last_seconds < SLOW else 1

    def observe(self, count: int, seconds: float, nbytes: int = 0) -> None:
        """A chunk of `count` items took `seconds` in its interpreter; `nbytes` went there or came back."""
        count = max(1, count)
        each = max(seconds / count, QUICKEST)
        self.known, self._last_seconds = True, each
        self._item_seconds = each if each >= TARGET else min(each, self._item_seconds * DRIFT)
        fits = int(min(self._most, TARGET / self._item_seconds))
        if nbytes > 0:
            fits = int(min(fits, MOST_BYTES / (nbytes / count)))
        self.size = max(1, min(fits, max(self.size, GROWTH * count)))

    def lasting(self, seconds: float) -> int:
        """So many items take `seconds`, or none where nothing is known."""
        return int(seconds / self._item_seconds)

    def spread(self, slots: int, caller_seconds: float) -> int:
        """How many of `slots` are worth using: the caller spends `caller_seconds` on a chunk of this size.
        Items that travel alone go to all of them.
        """
        if not self.known or caller_seconds <= 0.0 or self._item_seconds >= TARGET:
            return slots
        busy = self._item_seconds * self.size / caller_seconds
        return max(1, min(slots, math.ceil(busy) + SPARE))


class SourceSize:
    """A source whose end nobody knows (`pool.map`): a chunk has what fits.

    `chunk_size`: what every chunk has instead. `in_flight`: items that may be drawn and not handed out; the
    slots in use share them."""

    def __init__(self, chunk_size: int | None = None, in_flight: int | None = None) -> None:
        self._chunk_size = chunk_size
        self._in_flight = in_flight
        self.policy = BatchSize()

    @property
    def ahead(self) -> int:
        """Chunks under way for each slot."""
        return self.policy.ahead

    def next_size(self, waiting: int, slots: int, places: int) -> int:
        """How many items the next chunk should have. What waits says nothing of what the source has."""
        size = self._chunk_size or self.policy.size
        if self._in_flight is None:
            return size
        return min(size, max(1, self._in_flight // (self.ahead * max(1, slots))))

    def observe(self, count: int, seconds: float, nbytes: int = 0) -> None:
        """What a chunk took."""
        self.policy.observe(count, seconds, nbytes)


class WholeSize:
    """A batch that is all there (`pool.execute_batch`): near its end the slots share what is left, so that
    none of them is the last by a whole chunk. The first chunks have at most FIRST_SIZE items, because
    nothing is known of them; what takes long in them is given back. A chunk has `most` items, and the last
    ones no less work than it costs to have them run elsewhere."""

    def __init__(self, total: int, slots: int, most: int = MOST) -> None:
        self._policy = BatchSize(most, start=min(FIRST_SIZE, total // (4 * max(1, slots))))

    def spread(self, slots: int) -> int:
        """How many of `slots` are worth using. The worker that spreads a batch spends MOVE_SECONDS on each
        chunk, so it cannot keep more workers busy than the work of a chunk is longer than that. Items that
        take as long as that go to all of them."""
        return slots if self._policy.lasting(MOVE_SECONDS) <= 1 else self._policy.spread(slots, MOVE_SECONDS)

    @property
    def ahead(self) -> int:
        """Chunks under way for each slot."""
        return self._policy.ahead

    def next_size(self, waiting: int, slots: int, places: int) -> int:
        """How many items the next chunk should have."""
        share = max(-(-waiting // max(1, slots)), self._policy.lasting(MOVE_SECONDS))
        return max(1, min(self._policy.size, share))

    def observe(self, count: int, seconds: float, nbytes: int = 0) -> None:
        """What a chunk took."""
        self._policy.observe(count, seconds, nbytes)


class BurstSize:
    """Calls that come at once (`pool.call`), of which nobody knows when the next ones come: each slot with a
    place gets an equal share. What takes too long is given back, so they are divided with confidence: one
    hiccup does not tear a burst into single calls."""

    ahead = 2  # one runs, one is near; calls wait only a moment before they leave all the same

    def __init__(self) -> None:
        self._last: tuple[float, ...] = ()  # seconds an item, of the last three

    def spread(self, slots: int) -> int:
        """How many of `slots` are worth using. Their caller makes a call in CALL_SECONDS and no faster, and
        each worker more that is awake takes the cores from those that work."""
        each = min(self._last, default=math.inf)
        if each >= TARGET:
            return slots
        return max(1, min(slots, math.ceil(each / CALL_SECONDS) + SPARE))

    def observe(self, count: int, seconds: float, nbytes: int = 0) -> None:
        """`count` of them took `seconds` in their interpreter."""
        self._last = (*self._last[-2:], max(0.0, seconds) / max(1, count))

    def next_size(self, waiting: int, slots: int, places: int) -> int:
        """How many go together: an equal share, but at least LEAST_WORK seconds of work and no more than
        fit."""
        size = min(MOST, -(-waiting // max(1, min(slots, places))))
        each = min(self._last, default=0.0)
        if each > 0.0:
            size = int(max(size, min(waiting, LEAST_WORK / each)))
            size = int(min(size, MOST, TARGET / each))
        return max(1, size)
