"""The newest outcomes of one worker's requests: a ring of bytes in the ledger's file.

Rules:

- The bytes are stored first, and the entry that points at them after. A crash in between leaves an entry
  without an outcome.
- A position counts all bytes that were ever stored. A record that another one has overwritten is recognized
  by its position and its checksum.
- The checksum covers the request's name, so that no request is ever given the outcome of another one.

An outcome that was overwritten is lost, its entry is not: the request counts as begun."""

from __future__ import annotations

import mmap
import struct
import zlib

from snakepit_ray.ledger.layout import HEADER, RING_BYTES

LARGEST = 64 * 1024  # an outcome
RECORD = struct.Struct("=QII")  # position, bytes, checksum; the outcome follows


class Outcomes:
    """The ring; `content` is the ledger's memory."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._next = 0

    def found(self, pointer: int) -> None:
        """An entry of an earlier process points there: what is stored from now on lies behind it."""
        if pointer:
            position = pointer - 1
            _, size, _ = RECORD.unpack_from(self._content, HEADER.size + _within(position))
            self._next = max(self._next, position + RECORD.size + min(size, LARGEST))

    def store(self, name: bytes, outcome: bytes) -> int:
        """The pointer for the request's entry; 0: the outcome is too large to be kept."""
        size = RECORD.size + len(outcome)
        if len(outcome) > LARGEST:
            return 0
        position = self._next
        if position % RING_BYTES + size > RING_BYTES:  # the rest of this round is too short
            position += RING_BYTES - position % RING_BYTES
        at = HEADER.size + position % RING_BYTES
        record = RECORD.pack(position, len(outcome), zlib.crc32(outcome, zlib.crc32(name)))
        self._content[at : at + size] = record + outcome
        self._next = position + size
        return position + 1

    def load(self, name: bytes, pointer: int) -> bytes | None:
        """The outcome that the entry of `name` points at; None where there is none (any more)."""
        if not pointer:
            return None
        at = HEADER.size + _within(pointer - 1)
        position, size, checksum = RECORD.unpack(self._content[at : at + RECORD.size])
        if position != pointer - 1 or size > LARGEST:
            return None
        outcome = self._content[at + RECORD.size : at + RECORD.size + size]
        return outcome if checksum == zlib.crc32(outcome, zlib.crc32(name)) else None


def _within(position: int) -> int:
    """The place in the ring; one that a damaged file names may be too near to its end for a record."""
    return min(position % RING_BYTES, RING_BYTES - RECORD.size)
