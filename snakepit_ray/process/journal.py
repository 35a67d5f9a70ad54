"""Knows which requests one worker has handed to its interpreters, also after its process was killed.

Rules: a memory-mapped file (state_files.py): what is stored is there for the next process of this node,
whatever happens to this one (it need not survive the machine); the newest SLOTS requests are known.

`record` takes 2 microseconds (measured). It writes the digest first and moves the cursor then. A crash in
between leaves, in the oldest slot, a digest (or a part of one) of a request that was not handed over yet: the
next process takes it for started, which is the safe side, and overwrites it first."""

from __future__ import annotations

import hashlib
import mmap
import struct
from pathlib import Path

from snakepit_ray.process import state_files
from snakepit_ray.process.state_files import Base

SUFFIX = ".journal"
SLOTS = 4096
SLOT_BYTES = 16
DIGEST_BYTES, PLACE_BYTES = 12, 4  # a digest of the request's id, and where it went
HERE = 0  # to this worker's own interpreter
WITHDRAW = 256

# Eight words in the byte order of this node: magic, version, slots, cursor, incarnation, three for later.
HEADER = struct.Struct("=8sQQQQ24x")
MAGIC, VERSION = b"snakepit", 2
CURSOR, INCARNATION = 3, 4  # words
NUMBER_LIMIT = 2**63  # no counter comes so far: what is beyond is damage
SIZE = HEADER.size + SLOTS * SLOT_BYTES
EMPTY = bytes(SLOT_BYTES)


class Journal(state_files.MappedFile):
    """The journal of one worker. Make it with `Journal.open`.

    `found`: an earlier process left it. `damaged`: what was left cannot be read, and this is a new one."""

    def __init__(self, path: Path, content: mmap.mmap, found: bool, damaged: bool) -> None:
        super().__init__(path, content)
        self.found = found
        self.damaged = damaged
        self._known: dict[bytes, tuple[int, int]] = {}  # digest -> in how many slots, where the newest says
        for at in range(HEADER.size, SIZE, SLOT_BYTES):
            self._learn(content[at : at + SLOT_BYTES])
        self._earlier = frozenset(self._known)

    @classmethod
    def open(cls, worker_id: str, base: Base = None) -> Journal:
        """The journal of `worker_id`: the one that is there, else a new one.

        Raises ConfigError when the node directory is not ours alone, OSError when no file can be made."""
        path = state_files.path_of(worker_id, SUFFIX, base)
        fresh = HEADER.pack(MAGIC, VERSION, SLOTS, 0, 0) + bytes(SIZE - HEADER.size)
        content, found, damaged = state_files.open_map(path, fresh, _is_whole)
        return cls(path, content, found, damaged)

    def started_before(self, request_id: str) -> bool:
        """Whether this request was handed over already (or was about to be), by this process or an earlier
        one."""
        return _digest(request_id) in self._known

    def started_earlier(self, request_id: str) -> bool:
        """`started_before`, by an earlier process alone."""
        return _digest(request_id) in self._earlier

    def where(self, request_id: str) -> int:
        """The place that it was handed to, as `record` was told; HERE also where it is not known."""
        return self._known.get(_digest(request_id), (0, HERE))[1]

    def record(self, request_id: str, place: int = HERE) -> None:
        """To be called before the request is handed to the interpreter, or to another place: a number of the
        caller's choice, 32 bits."""
        cursor = self._words[CURSOR]
        at = HEADER.size + cursor % SLOTS * SLOT_BYTES
        slot = _digest(request_id) + place.to_bytes(PLACE_BYTES, "little")
        self._forget(self._map[at : at + SLOT_BYTES])
        self._map[at : at + SLOT_BYTES] = slot
        self._words[CURSOR] = cursor + 1
        self._learn(slot)

    def withdraw(self, request_id: str) -> None:
        """It was recorded lately and then not handed over after all. One that WITHDRAW others have followed
        stays: the safe side."""
        digest, cursor = _digest(request_id), self._words[CURSOR]
        for back in range(1, min(WITHDRAW, cursor) + 1):
            at = HEADER.size + (cursor - back) % SLOTS * SLOT_BYTES
            slot = self._map[at : at + SLOT_BYTES]
            if slot[:DIGEST_BYTES] == digest:
                self._map[at : at + SLOT_BYTES] = EMPTY
                self._forget(slot)
                return

    def _learn(self, slot: bytes) -> None:
        if slot != EMPTY:
            digest, place = slot[:DIGEST_BYTES], int.from_bytes(slot[DIGEST_BYTES:], "little")
            count, _ = self._known.get(digest, (0, HERE))
            self._known[digest] = count + 1, place

    def _forget(self, slot: bytes) -> None:
        count, place = self._known.get(slot[:DIGEST_BYTES], (0, HERE))
        if count > 1:
            self._known[slot[:DIGEST_BYTES]] = count - 1, place
        elif count:
            del self._known[slot[:DIGEST_BYTES]]

    def next_incarnation(self, candidate: int) -> int:
        """`candidate`, or one more than the last number where that is not less. Below 2**63."""
        number = max(candidate, self._words[INCARNATION] + 1)
        self._words[INCARNATION] = number
        return number


def _is_whole(content: mmap.mmap) -> bool:
    magic, version, slots, cursor, incarnation = HEADER.unpack_from(content)
    known = (magic, version, slots) == (MAGIC, VERSION, SLOTS)
    return known and cursor < NUMBER_LIMIT and incarnation < NUMBER_LIMIT


def _digest(request_id: str) -> bytes:
    return hashlib.blake2b(request_id.encode(), digest_size=DIGEST_BYTES).digest()
