"""Where things lie in the ledger's file: a header, a ring of outcomes, then entries to the end of the file.

    bytes 0 to 255        header: magic, version, the worker's incarnation, what it has counted, and notes
    RING_BYTES more       the newest outcomes (outcomes.py)
    8 * LEASE_WORDS more  how often the copies of some sessions' variables have ended
    ENTRY_BYTES each      entries: begun, facts, outcome (a word each), and the request's name

Words are 64 bits in the byte order of this node, and aligned: a store of one is never seen by halves.

- `begun`: how many calls of the request have begun. An interpreter stores to it. The number of this word in
  the file, counted from 0, is what an entry is called by.
- `facts`: 0 where the entry is free, else LIVE, the place, and BEFORE where an earlier attempt has begun.
- `outcome`: where the outcome is in the ring, 0 where there is none.

An interpreter stores to `begun`, and reads the words of leases. Those lie before the entries, so that they
are where they were when the file has grown."""

from __future__ import annotations

import hashlib
import mmap
import struct

HEADER = struct.Struct("=8s31Q")
MAGIC, VERSION = b"snakepit", 6
INCARNATION = 2  # word
COUNTS = slice(3, 13)  # words: numbers that go on where an earlier process of the worker stopped
NOTES = slice(13, 32)  # words: what the worker is to tell a router that has forgotten it
NUMBER_LIMIT = 2**63  # no counter comes so far: what is beyond is damage

RING_BYTES = 1024 * 1024
LEASE_WORDS = 1024
LEASES = slice((HEADER.size + RING_BYTES) // 8, (HEADER.size + RING_BYTES) // 8 + LEASE_WORDS)  # words
TABLE = HEADER.size + RING_BYTES + 8 * LEASE_WORDS

NAME_BYTES = 40  # a request's id has 28, a part's of a batch 12 more
ENTRY = struct.Struct(f"=QQQ{NAME_BYTES}s")
ENTRY_BYTES = ENTRY.size
ENTRY_WORDS = ENTRY_BYTES // 8
FACTS, OUTCOME, NAME = 1, 2, 3  # words of an entry, after `begun`
FIRST_WORD = TABLE // 8  # of the first entry
FIRST_ENTRIES = 1024  # of a new file; it grows by as many as it has
FIRST_BYTES = TABLE + FIRST_ENTRIES * ENTRY_BYTES

LIVE, BEFORE, PLACE_SHIFT = 1, 2, 8
HERE = 0  # this worker's own interpreter


def fresh() -> bytes:
    """The content of a new file."""
    return HEADER.pack(MAGIC, VERSION, *[0] * 30) + bytes(FIRST_BYTES - HEADER.size)


def is_whole(content: mmap.mmap) -> bool:
    """Whether this is such a file."""
    magic, version, *numbers = HEADER.unpack_from(content)
    return bool((magic, version) == (MAGIC, VERSION) and max(numbers) < NUMBER_LIMIT)


def digest(name: bytes) -> bytes:
    """What stands for a name that is too long."""
    return hashlib.blake2b(name, digest_size=NAME_BYTES).digest()
