"""What only the router knows, in words of a worker's ledger. The worker's next process tells the next router,
also where all of them died together."""

from __future__ import annotations

import struct
import zlib
from collections.abc import MutableSequence

from snakepit_ray.port.messages import COUNTED, PoolMemory

FIXED = 3  # order, size, next_number; the counters follow, and last a checksum
CHECKSUM = FIXED + len(COUNTED)


def store(words: MutableSequence[int] | memoryview, memory: PoolMemory) -> None:
    """Notes it down. A crash in the midst leaves what `load` takes for nothing."""
    numbers = [memory.order, memory.size, memory.next_number, *(memory.left.get(name, 0) for name in COUNTED)]
    for place, number in enumerate(numbers):
        words[place] = number
    words[CHECKSUM] = _checksum(numbers)


def load(words: MutableSequence[int] | memoryview) -> PoolMemory:
    """What was noted last; an empty PoolMemory where that is nothing, or damaged."""
    numbers = list(words[:CHECKSUM])
    if not numbers[0] or words[CHECKSUM] != _checksum(numbers):
        return PoolMemory()
    order, size, next_number, *left = numbers
    return PoolMemory(order, size, next_number, dict(zip(COUNTED, left, strict=True)))


def _checksum(numbers: list[int]) -> int:
    return zlib.crc32(struct.pack(f"={len(numbers)}Q", *numbers))
