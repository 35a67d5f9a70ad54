"""Which ranges of one fixed space are taken: where the next one goes, and which free ones were used before.

- No two taken ranges overlap.
- The lowest gap that is large enough is taken, so that what was touched before is used again.
- Offsets and sizes are whole grains. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, insort

GRAIN = 4096  # bytes: a page, so that what is free can be given back to the system


class Space:
    """`size` bytes, of which ranges are taken and given back."""

    def __init__(self, size: int) -> None:
        self.size = size - size % GRAIN
        self.used = 0  # bytes in taken ranges
        self._taken: list[tuple[int, int]] = []  # (begin, end), in order
        self._touched = 0  # nothing from here on was taken since the last `trim`

    def __len__(self) -> int:
        """How many ranges are taken."""
        return len(self._taken)

    def take(self, size: int) -> int | None:
        """The offset of a range of at least `size` > 0 bytes; None where no gap is large enough."""
        size = whole_grains(size)
        begin = 0
        for taken in self._taken:
            if taken[0] - begin >= size:
                break
            begin = taken[1]
        if begin + size > self.size:
            return None
        insort(self._taken, (begin, begin + size))
        self.used += size
        self._touched = max(self._touched, begin + size)
        return begin

    def give(self, offset: int) -> None:
        """The range that was taken at `offset` is free again. Raises KeyError where none was."""
        index = bisect_left(self._taken, (offset, 0))
        if index == len(self._taken) or self._taken[index][0] != offset:
            raise KeyError(offset)
        begin, end = self._taken.pop(index)
        self.used -= end - begin

    def reserve(self, offset: int, size: int) -> bool:
        """Takes the range of whole grains at `offset`, where all of it is free, without counting it as used.
        A range that is not free counts as used, so that the next `trim` names what is left of it."""
        index = bisect_left(self._taken, (offset, 0))
        before = self._taken[index - 1][1] if index else 0
        after = self._taken[index][0] if index < len(self._taken) else self.size
        if before > offset or after < offset + size:
            self._touched = max(self._touched, min(offset + size, self.size))
            return False
        self._taken.insert(index, (offset, offset + size))
        self.used += size
        return True

    def trim(self) -> list[tuple[int, int]]:
        """The free ranges (offset, size) that were used since the last time."""
        gaps, begin = [], 0
        for taken in [*self._taken, (self._touched, self._touched)]:
            if taken[0] > begin:
                gaps.append((begin, taken[0] - begin))
            begin = max(begin, taken[1])
        self._touched = self._taken[-1][1] if self._taken else 0
        return gaps


def whole_grains(size: int) -> int:
    """`size` bytes, rounded up."""
    return -(-size // GRAIN) * GRAIN
