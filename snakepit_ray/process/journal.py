"""Knows which requests one worker has handed to its interpreters and which of those have begun, also after
its process was killed.

Rules: a memory-mapped file (state_files.py): what is stored is there for the next process of this node,
whatever happens to this one (it need not survive the machine); the newest SLOTS requests are known.

`record` takes 3 microseconds (measured). It writes the digest first, then the mark, and moves the cursor
then. A crash in between leaves, in the oldest slot, a digest (or a part of one) of a request that was not
handed over yet: whatever the next process takes it for does no harm, and it overwrites it first."""

from __future__ import annotations

import hashlib
import mmap
import struct
from pathlib import Path

from snakepit_ray.process import state_files
from snakepit_ray.process.marks import ALL, Mark, Marks
from snakepit_ray.process.state_files import Base, Opened

SUFFIX = ".journal"
SLOTS = 4096
SLOT_BYTES = 16
DIGEST_BYTES, PLACE_BYTES = 12, 4  # a digest of the request's id, and where it went
HERE = 0  # to this worker's own interpreter
UNMARKED = 2**32 - 1  # the same, where the slot's word belongs to another request: it counts as begun
WITHDRAW = 256

# Eight words in the byte order of this node: magic, version, slots, cursor, incarnation, three for later.
HEADER = struct.Struct("=8sQQQQ24x")
MAGIC, VERSION = b"snakepit", 2
CURSOR, INCARNATION = 3, 4  # words
NUMBER_LIMIT = 2**63  # no counter comes so far: what is beyond is damage
SIZE = HEADER.size + SLOTS * SLOT_BYTES
EMPTY = bytes(SLOT_BYTES)


class Journal(state_files.MappedFile):
    """The journal of one worker, and its marks: the word of a slot has the slot's number. Make it with
    `Journal.open`."""

    def __init__(self, path: Path, opened: Opened, marks: Marks) -> None:
        super().__init__(path, opened)
        self.marks = marks
        self._known: dict[bytes, tuple[int, ...]] = {}  # digest -> its slots, the newest last
        cursor = self._words[CURSOR]
        if self.found:
            for slot in range(cursor, cursor + SLOTS):
                self._learn(slot % SLOTS)
        self._first = cursor  # the number of the first record that this process makes

    @classmethod
    def open(cls, worker_id: str, base: Base = None) -> Journal:
        """The journal of `worker_id`: the one that is there, else a new one.

        Raises ConfigError when the node directory is not ours alone, OSError when no file can be made."""
        path = state_files.path_of(worker_id, SUFFIX, base)
        fresh = HEADER.pack(MAGIC, VERSION, SLOTS, 0, 0) + bytes(SIZE - HEADER.size)
        opened = state_files.open_map(path, fresh, _is_whole)
        return cls(path, opened, Marks.open(worker_id, SLOTS, base))

    def remove(self) -> None:
        super().remove()
        self.marks.remove()

    def close(self) -> None:
        super().close()
        self.marks.close()

    def started_before(self, request_id: str) -> bool:
        """Whether this request has begun already (or may have), handed over by this process or an earlier
        one."""
        return any(map(self._has_begun, self._slots_of(request_id)))

    def started_earlier(self, request_id: str) -> bool:
        """`started_before`, handed over by an earlier process alone."""
        return any(self._has_begun(slot) for slot in self._slots_of(request_id) if not self._is_ours(slot))

    def where(self, request_id: str) -> int:
        """The place that it was handed to, as `record` was told; HERE also where it is not known."""
        slots = self._slots_of(request_id)
        place = self._place(slots[-1]) if slots else HERE
        return HERE if place == UNMARKED else place

    def record(self, request_id: str, place: int = HERE, *, marked: bool = False) -> Mark | None:
        """To be called before the request is handed to the interpreter, or to another place: a number of the
        caller's choice, below UNMARKED. `marked`: the interpreter says itself whether it has begun. The mark
        where it does so; None where it does not."""
        cursor = self._words[CURSOR]
        slot = cursor % SLOTS
        at = _at(slot)
        self._forget(slot)
        free = self.marks.is_free(slot)
        if place == HERE and not free:
            place = UNMARKED
        self._map[at : at + SLOT_BYTES] = _digest(request_id) + place.to_bytes(PLACE_BYTES, "little")
        mark = self.marks.take(slot) if marked and free else None
        if mark is None and free:
            self.marks.set(slot, ALL)
        self._words[CURSOR] = cursor + 1
        self._learn(slot)
        return mark

    def withdraw(self, request_id: str) -> None:
        """It was recorded lately and then not handed over after all. One that WITHDRAW others have followed
        stays: the safe side."""
        slots = self._slots_of(request_id)
        if slots and (self._words[CURSOR] - 1 - slots[-1]) % SLOTS < WITHDRAW:
            self._forget(slots[-1])
            self._map[_at(slots[-1]) : _at(slots[-1]) + SLOT_BYTES] = EMPTY

    def _slots_of(self, request_id: str) -> tuple[int, ...]:
        return self._known.get(_digest(request_id), ())

    def _place(self, slot: int) -> int:
        return int.from_bytes(self._entry(slot)[DIGEST_BYTES:], "little")

    def _has_begun(self, slot: int) -> bool:
        if self._place(slot) != HERE:
            return True
        if not self._is_ours(slot) and not self.marks.settled:
            return True  # its interpreter may live
        return self.marks.begun(slot) > 0

    def _is_ours(self, slot: int) -> bool:
        """Whether this process has written it."""
        newest = self._words[CURSOR] - 1
        return newest - (newest - slot) % SLOTS >= self._first

    def _entry(self, slot: int) -> bytes:
        return self._map[_at(slot) : _at(slot) + SLOT_BYTES]

    def _learn(self, slot: int) -> None:
        entry = self._entry(slot)
        if entry != EMPTY:
            digest = entry[:DIGEST_BYTES]
            self._known[digest] = (*self._known.get(digest, ()), slot)

    def _forget(self, slot: int) -> None:
        digest = self._entry(slot)[:DIGEST_BYTES]
        left = tuple(one for one in self._known.get(digest, ()) if one != slot)
        if left:
            self._known[digest] = left
        else:
            self._known.pop(digest, None)

    def next_incarnation(self, candidate: int) -> int:
        """`candidate`, or one more than the last number where that is not less. Below 2**63."""
        number = max(candidate, self._words[INCARNATION] + 1)
        self._words[INCARNATION] = number
        return number


def _is_whole(content: mmap.mmap) -> bool:
    magic, version, slots, cursor, incarnation = HEADER.unpack_from(content)
    known = (magic, version, slots) == (MAGIC, VERSION, SLOTS)
    return known and cursor < NUMBER_LIMIT and incarnation < NUMBER_LIMIT


def _at(slot: int) -> int:
    return HEADER.size + slot * SLOT_BYTES


def _digest(request_id: str) -> bytes:
    return hashlib.blake2b(request_id.encode(), digest_size=DIGEST_BYTES).digest()
