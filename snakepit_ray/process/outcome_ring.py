"""Knows the newest small outcomes of one worker's requests, also after its process was killed.

Rules: a ring buffer in a memory-mapped file (state_files.py); an entry is whole or not there: its bytes come
first, and then the word in the header that says where the newest entry is, so that a crash in between leaves
the one before it as the newest (and damages the oldest, whose checksums tell); what does not fit is not kept.

`keep` takes 2 microseconds, 4 for the largest (measured). An outcome has to be known for as long as it is on
its way to its caller, which is milliseconds: BYTES has room for the newest 120 of the largest and for 3,000
of 100 bytes, which is more than a second of what one worker can do, and costs each worker half a megabyte."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from snakepit_ray.process import state_files
from snakepit_ray.process.state_files import Base, Opened

SUFFIX = ".outcomes"
BYTES = 512 * 1024
LARGEST = 4096  # an outcome
LONGEST = 255  # a key

# Words in the byte order of this node: magic, version, bytes, and the place of the newest entry.
HEADER = struct.Struct("=8sQQQ")
MAGIC, VERSION = b"outcomes", 1
NEWEST = 3  # word
SIZE = HEADER.size + BYTES
# Checksum of the rest; lengths of key and outcome; its own place, and that of the entry before it; then both.
CHECKSUM = struct.Struct("=I")
FACTS = struct.Struct("=IIQQ")
FIXED = CHECKSUM.size + FACTS.size
NUMBER_LIMIT = 2**63
assert HEADER.size % 8 == 0


class OutcomeRing(state_files.MappedFile):
    """The ring of one worker. Make it with `OutcomeRing.open`.

    Places count all bytes that were ever written, so that an entry is known to be of this round or not; 0 is
    no place: the first entry has BYTES."""

    def __init__(self, path: Path, opened: Opened) -> None:
        super().__init__(path, opened)
        self._newest, self._next = 0, BYTES
        self._earlier: dict[str, int] = {}  # of the processes before this one: where the newest of a key is
        for place, end, key in self._entries(self._words[NEWEST]):
            if not self._earlier:
                self._newest, self._next = place, end
            self._earlier.setdefault(key, place)
        self._since = self._next  # what lies there or after it is this process's

    @classmethod
    def open(cls, worker_id: str, base: Base = None) -> OutcomeRing:
        """The ring of `worker_id`: the one that is there, else a new one.

        Raises ConfigError when the node directory is not ours alone, OSError when no file can be made."""
        path = state_files.path_of(worker_id, SUFFIX, base)
        fresh = HEADER.pack(MAGIC, VERSION, BYTES, 0) + bytes(BYTES)
        return cls(path, state_files.open_map(path, fresh, _is_whole))

    def __len__(self) -> int:
        return sum(1 for _ in self._entries(self._newest))

    def keep(self, key: str, outcome: bytes) -> bool:
        """To be called before the outcome is handed on; whether it was kept."""
        name = key.encode()
        size = FIXED + len(name) + len(outcome)
        if len(outcome) > LARGEST or len(name) > LONGEST:
            return False
        place = self._next
        if place % BYTES + size > BYTES:  # the rest of this round is too short
            place += BYTES - place % BYTES
        head = FACTS.pack(len(name), len(outcome), place, self._newest) + name
        checksum = zlib.crc32(outcome, zlib.crc32(head))
        at = HEADER.size + place % BYTES
        self._map[at : at + size] = CHECKSUM.pack(checksum) + head + outcome
        self._words[NEWEST] = self._newest = place
        self._next = place + size
        return True

    def find(self, key: str) -> bytes | None:
        """The outcome of that key; None where it is not known (any more). For crashes: what this process kept
        is searched for."""
        place = next(
            (place for place, _, one in self._entries(self._newest, self._since) if one == key), None
        )
        if place is None:
            place = self._earlier.get(key)
        entry = None if place is None else self._entry(place)
        return None if entry is None else entry[2]

    def _entries(self, newest: int, oldest: int = BYTES) -> Iterator[tuple[int, int, str]]:
        """Place, end and key of each entry that is whole, the newest first, down to the place `oldest`."""
        place = newest
        while place >= oldest and (entry := self._entry(place)) is not None:
            before, key, outcome = entry
            yield place, place + FIXED + len(key.encode()) + len(outcome), key
            if not newest - BYTES < before < place:
                return
            place = before

    def _entry(self, place: int) -> tuple[int, str, bytes] | None:
        """The place of the one before it, its key and its outcome; None where it is not whole."""
        at, end = HEADER.size + place % BYTES, SIZE
        if at + FIXED > end:
            return None
        key, size, said, before = FACTS.unpack_from(self._map, at + CHECKSUM.size)
        stop = at + FIXED + key + size
        if said != place or stop > end:
            return None
        entry = self._map[at:stop]
        if CHECKSUM.unpack_from(entry)[0] != zlib.crc32(entry[CHECKSUM.size :]):
            return None
        return before, entry[FIXED : FIXED + key].decode(errors="replace"), entry[FIXED + key :]


def _is_whole(content: mmap.mmap) -> bool:
    magic, version, size, newest = HEADER.unpack_from(content)
    return (magic, version, size) == (MAGIC, VERSION, BYTES) and newest < NUMBER_LIMIT
