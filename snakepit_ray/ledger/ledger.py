"""What one worker's requests have begun and what they came to, whatever kills the worker.

Rules:

- An entry belongs to its request from `begin` until the request has ended and its answer has left, however
  many requests come after it. Where all entries are taken the file grows.
- Nobody tells the ledger that an answer has left. It counts as having left LINGER_SECONDS after the end,
  because Ray hands it on within milliseconds.
- What an earlier process of the worker left in the file is kept for EARLIER_SECONDS. Ray sends again what
  that process had not answered, and a caller that was stopped meanwhile sends late.
- An entry that an interpreter may still store to is nobody else's, whether somebody waits for it or not.
- What cannot be known counts as begun. An earlier process's interpreter may outlive it for a moment; until it
  is gone, all that it could begin counts as begun, too.

The file is memory (state_files.py): what is stored is there for the next process of this node, whatever
happens to this one. It need not survive the machine."""

from __future__ import annotations

import mmap
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from snakepit_ray.errors import PoolSaturated
from snakepit_ray.ledger import layout
from snakepit_ray.ledger.entry import Entry
from snakepit_ray.ledger.layout import (
    BEFORE,
    ENTRY,
    ENTRY_BYTES,
    ENTRY_WORDS,
    FACTS,
    FIRST_WORD,
    HERE,
    INCARNATION,
    LIVE,
    NAME,
    NAME_BYTES,
    OUTCOME,
    PLACE_SHIFT,
    TABLE,
)
from snakepit_ray.ledger.outcomes import Outcomes
from snakepit_ray.ledger.states import ALL, NOT_BEGUN, UNKNOWN, Begun, Ended, State
from snakepit_ray.process import state_files
from snakepit_ray.process.state_files import Base, Opened

SUFFIX = ".ledger"
LINGER_SECONDS = 30.0
EARLIER_SECONDS = 3600.0
AT_ONCE = 1000  # entries that are freed in one call at most, so that no call takes long
MOST_AT_ONCE = 16 * 1024  # entries that the file grows by at most, for the same reason


class Ledger(state_files.MappedFile):
    """The ledger of one worker. Make it with `Ledger.open`. `words` are those of its file; an entry is called
    by the number of its first word. `counts` and `notes` are words for the worker's own use, which its next
    process finds as they were. `leases` are those that interpreters read (core/state/copies.py), the first of
    which is word `first_lease` of the file."""

    first_lease = layout.LEASES.start

    def __init__(self, path: Path, opened: Opened, clock: Callable[[], float]) -> None:
        super().__init__(path, opened)
        self.words = self._words
        self.counts, self.notes = self._words[layout.COUNTS], self._words[layout.NOTES]
        self.leases = self._words[layout.LEASES]
        self.outcomes = Outcomes(self._map)
        self._table = self._map  # another mapping of the same file when that has grown
        self._clock = clock
        self._entries: dict[bytes, Entry | int] = {}  # of this process; the word of one that has ended
        self._earlier: dict[bytes, tuple[int, ...]] = {}
        self._earlier_until = clock() + EARLIER_SECONDS
        self._leaving: deque[tuple[float, list[int]]] = deque()  # when, and which entries
        self._free: list[int] = []  # the next one last
        self._settled = not self.found
        self._read()

    @classmethod
    def open(cls, worker_id: str, base: Base = None, clock: Callable[[], float] = time.monotonic) -> Ledger:
        """The ledger of `worker_id`: the one that is there, else a new one.

        Raises ConfigError when the node directory is not ours alone, OSError when no file can be made."""
        path = state_files.path_of(worker_id, SUFFIX, base)
        return cls(path, state_files.open_map(path, layout.fresh(), layout.is_whole), clock)

    def _read(self) -> None:
        size = len(self._table) - TABLE
        whole = memoryview(self._table)[TABLE : TABLE + size - size % ENTRY_BYTES]
        word = FIRST_WORD
        for _, facts, pointer, name in ENTRY.iter_unpack(whole):
            if facts & LIVE:
                key = name.rstrip(b"\0")
                self._earlier[key] = (*self._earlier.get(key, ()), word)
                self.outcomes.found(pointer)
            else:
                self._free.append(word)
            word += ENTRY_WORDS
        whole.release()
        self._free.reverse()

    def close(self) -> None:
        self.counts.release()
        self.notes.release()
        self.leases.release()
        if self._table is not self._map:
            self.words.release()
            self._table.close()
        super().close()

    # ---- what happens to a request ------------------------------------------------------------------------

    def recall(self, request_id: str) -> State:
        """What is known of a request: to be asked once, when it arrives."""
        name = request_id.encode()
        if len(name) > NAME_BYTES:
            name = layout.digest(name)
        if name not in self._entries and name not in self._earlier:
            return UNKNOWN
        words = self._words_of(name)
        for word in words:
            outcome = self.outcomes.load(name, self.words[word + OUTCOME])
            if outcome is not None:
                return Ended(outcome)
        calls = self._calls(name)
        return Begun(calls, self.words[words[0] + FACTS] >> PLACE_SHIFT) if calls else NOT_BEGUN

    def begin(self, request_id: str, place: int = HERE, *, marked: bool = False) -> Entry:
        """The request's entry, which is in the file before the request is sent to `place`: a number of the
        caller's choice below 2**48. `marked`: the interpreter stores to its word, until `Entry.left`; else
        the request counts as begun from now on. A request that begins again (another attempt, another place)
        keeps its entry, and what had begun of it.

        Raises PoolSaturated when all entries are taken and the file cannot grow."""
        if self._leaving and self._leaving[0][0] <= self._clock():
            self._let_go()
        name = request_id.encode()
        if len(name) > NAME_BYTES:
            name = layout.digest(name)
        known = self._entries.get(name)
        before = (known is not None or name in self._earlier) and self._calls(name) > 0
        entry = known if isinstance(known, Entry) and not known.is_over else self._add(name)
        words, word = self.words, entry.word
        if before:  # noted before the word is used again
            words[word + FACTS] |= BEFORE
        words[word] = 0 if marked else ALL
        words[word + OUTCOME] = 0
        words[word + FACTS] = LIVE | (BEFORE if before else 0) | place << PLACE_SHIFT
        entry._inside = marked
        return entry

    def leaves(self, entry: Entry) -> None:
        """For entries: the request has ended, and no interpreter has it."""
        name, word = entry.name, entry.word
        begun = self.words[word] or self.words[word + FACTS] != LIVE
        if not (begun and entry.lingers):
            self._release(name, word)
            return
        if self._entries.get(name) is entry:
            self._entries[name] = word
        until = self._clock() + LINGER_SECONDS
        if not self._leaving or self._leaving[-1][0] < until:
            self._leaving.append((until + 1.0, []))
        self._leaving[-1][1].append(word)

    def next_incarnation(self, candidate: int) -> int:
        """`candidate`, or one more than the last number where that is not less. Below 2**63."""
        number = max(candidate, self.words[INCARNATION] + 1)
        self.words[INCARNATION] = number
        return number

    # ---- what is known ------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether what earlier processes left stays as it is: they have ended, and all that they started."""
        if not self._settled:
            self._settled = self.is_ours_alone()
        return self._settled

    def _words_of(self, name: bytes) -> tuple[int, ...]:
        """The entries of that name, the newest first."""
        known = self._entries.get(name)
        own = () if known is None else (known.word if isinstance(known, Entry) else known,)
        return (*own, *self._earlier.get(name, ()))

    def _calls(self, name: bytes) -> int:
        """How many calls of the request have begun, or may have."""
        if name in self._earlier and not self.settled:
            return ALL  # its interpreter may live
        return max(map(self._calls_of, self._words_of(name)))

    def _calls_of(self, word: int) -> int:
        elsewhere_or_before = self.words[word + FACTS] & ~LIVE
        return ALL if elsewhere_or_before else min(self.words[word], ALL)

    # ---- room ---------------------------------------------------------------------------------------------

    def _add(self, name: bytes) -> Entry:
        if not self._free:
            self._grow()
        entry = self._entries[name] = Entry(self, name, self._free.pop())
        at = 8 * (entry.word + NAME)
        self._table[at : at + NAME_BYTES] = name.ljust(NAME_BYTES, b"\0")
        return entry

    def _release(self, name: bytes, word: int) -> None:
        known = self._entries.get(name)
        if word == (known.word if isinstance(known, Entry) else known):
            del self._entries[name]
        self.words[word + FACTS] = 0
        self._free.append(word)

    def _let_go(self) -> None:
        """Frees entries whose answers have left."""
        now, most = self._clock(), AT_ONCE
        while most and self._leaving and self._leaving[0][0] <= now:
            words = self._leaving[0][1]
            while words and most:
                word = words.pop()
                self._release(self._name_at(word), word)
                most -= 1
            if not words:
                self._leaving.popleft()
        if self._earlier and now >= self._earlier_until and self.settled:
            self._let_earlier_go(most)

    def _let_earlier_go(self, most: int) -> None:
        for _ in range(min(most, len(self._earlier))):
            _, words = self._earlier.popitem()
            for word in words:
                self.words[word + FACTS] = 0
            self._free.extend(words)

    def _name_at(self, word: int) -> bytes:
        at = 8 * (word + NAME)
        return self._table[at : at + NAME_BYTES].rstrip(b"\0")

    def _grow(self) -> None:
        """Twice as many entries, or MOST_AT_ONCE more. Zeros are written: a store into a hole of a full disk
        would end the process."""
        entries = (len(self._table) - TABLE) // ENTRY_BYTES
        end = TABLE + entries * ENTRY_BYTES
        more = min(entries, MOST_AT_ONCE)
        try:
            _write(self.descriptor, bytes(more * ENTRY_BYTES), end)
            table = mmap.mmap(self.descriptor, end + more * ENTRY_BYTES)
        except OSError as error:
            raise PoolSaturated(
                f"{self.path} has {entries} entries, all of requests that run or whose answers are on their "
                f"way, and cannot grow ({error}); this request was not executed: free space there, or "
                "set TMPDIR to another place"
            ) from error
        if self._table is not self._map:
            self.words.release()
            self._table.close()
        self._table, self.words = table, memoryview(table).cast("Q")
        first = FIRST_WORD + entries * ENTRY_WORDS
        self._free.extend(reversed(range(first, first + more * ENTRY_WORDS, ENTRY_WORDS)))


def _write(descriptor: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written
