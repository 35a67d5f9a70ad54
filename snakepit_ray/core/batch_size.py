"""Knows how many items a chunk should have, from what earlier ones took.

Rules: about TARGET seconds of work a chunk; it starts at 1, at most doubles from one full chunk to the next,
and shrinks at once; items that are slow go one by one, and where they are so slow that a message more does
not matter none waits behind another; bounded by a count and by bytes.
"""

from __future__ import annotations

TARGET = 0.010  # seconds of work in a chunk
MOST = 2_000  # items
MOST_BYTES = 1 << 20
SLOW = 0.050  # seconds an item: from here on nothing is sent ahead of its slot
SHARE = 0.050  # seconds after which an interpreter gives the rest of a chunk back


class BatchSize:
    """The size of the next chunk of one stream of like items."""

    def __init__(self, most: int = MOST, start: int = 1) -> None:
        self._most = max(1, min(most, MOST))
        self.size = max(1, min(start, self._most))
        self.known = False
        self._item_seconds = 0.0

    @property
    def ahead(self) -> int:
        """Chunks under way for each slot: one runs, one is near it, unless that gains nothing."""
        return 2 if self.known and self._item_seconds < SLOW else 1

    def observe(self, count: int, seconds: float, nbytes: int = 0) -> None:
        """A chunk of `count` items took `seconds` in its interpreter; `nbytes` went there or came back."""
        count = max(1, count)
        each = max(seconds / count, 0.0)
        self.known, self._item_seconds = True, each
        fits = self._most
        if each > 0.0:
            fits = int(min(fits, TARGET / each))
        if nbytes > 0:
            fits = int(min(fits, MOST_BYTES / (nbytes / count)))
        fits = max(1, fits)
        # What a chunk of less than the present size says is old news, or of the last few items.
        grown = 2 * self.size if count >= self.size else self.size
        self.size = min(fits, grown)

    def __repr__(self) -> str:
        return f"<BatchSize {self.size} of {self._most}, {self._item_seconds:.2g} s an item>"


class BurstSize:
    """How calls that come at once are divided, where what takes too long is given back: with confidence, so
    that one hiccup does not tear a burst into single calls."""

    def __init__(self) -> None:
        self._last: tuple[float, ...] = ()  # seconds an item, of the last three

    def observe(self, count: int, seconds: float) -> None:
        """`count` of them took `seconds` in their interpreter."""
        self._last = (*self._last[-2:], max(0.0, seconds) / max(1, count))

    def size(self, calls: int, slots: int) -> int:
        """How many of `calls` go together: an equal share for each slot, and no more than fit."""
        size = min(MOST, -(-calls // max(1, slots)))
        each = min(self._last, default=0.0)
        if each > 0.0:
            size = int(min(size, TARGET / each))
        return max(1, size)
