"""What one worker keeps of sessions' variables, so that it and its interpreter answer reads without the
store.

- A worker that asks the store gets a lease. Until that ends, what it has read may be read again here.
- The end of the leases of a session is a word in memory that the interpreter reads, too: what was kept under
  another word than the present one is kept no more. Sessions share words, so that there is a fixed number of
  them. A word that changes for one session ends the copies of the others that share it, which is safe.
- A word changes before the store hears that its lease was released, and nothing is kept of an answer whose
  question began under another word: it was overtaken.
- A holder that has a lease gets the same number again. So nothing is kept under a number that was let go of:
  the store may hear of that after it has answered.
- Each value has the end that its own lease had. A later lease says nothing of what was read before it.
- What was granted to an earlier process of the worker is not this one's to release: its interpreter may still
  read. Holders of two processes have two names.
"""

from __future__ import annotations

import math
import zlib
from collections import OrderedDict
from collections.abc import Iterable, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from snakepit_ray.core.state.asked import Data, Ended, Found, Versioned
from snakepit_ray.core.state.leases import LEASE_SECONDS, Lease

MOST_GONE = 10_000  # sessions of which it is remembered which lease was let go of
MOST_BYTES = 32 << 20  # of values that are kept
EACH = 200  # bytes that a name costs beside its value, about
FULL = 2**64


class Terms(NamedTuple):
    """Until when (seconds of the worker's clock) something may be read again, provided that the word of the
    number `word` is still `stamp`."""

    word: int
    stamp: int
    ends: float


class Kept(NamedTuple):
    """What is known of one name: its value, None where there is no such variable, and until when."""

    value: Versioned | None
    terms: Terms


class Copy(NamedTuple):
    """An answer to a read."""

    found: Found
    terms: Terms


@dataclass
class _Session:
    generation: int
    lease: Lease
    stamp: int
    kept: dict[str, Kept] = field(default_factory=dict)
    bytes: int = 0


class Copies:
    """The copies of one worker, whose leases are of `holder`. `words`: where their ends are told; they are
    this worker's alone to store to. Times are seconds of one clock that goes on evenly."""

    def __init__(
        self, words: MutableSequence[int] | memoryview, holder: str = "", most: int = MOST_BYTES
    ) -> None:
        self.hits = self.misses = 0
        self.holder = holder
        self._words = words
        self._most = most
        self._bytes = 0
        self._sessions: OrderedDict[str, _Session] = OrderedDict()  # the least recently read first
        self._gone: OrderedDict[str, tuple[int, int]] = OrderedDict()  # store and number that was let go of
        self._gone_before = (0, 0)  # of sessions that are not remembered

    # ---- reads --------------------------------------------------------------------------------------------

    def read(
        self, session: str, names: Sequence[str], generation: int, now: float, began: float = math.inf
    ) -> Copy | None:
        """The answer, if all of it is here. `generation`: of the session that is meant, 0: the one that there
        was when the request `began`. A copy that was asked for after that may be of a later one."""
        kept = self._sessions.get(session)
        if kept is None or not self._is_good(session, kept) or generation not in (0, kept.generation):
            self.misses += 1
            return None
        found = [kept.kept.get(name) for name in names]
        known = [one for one in found if one is not None and now < one.terms.ends]
        first = min(known, key=lambda one: one.terms.ends, default=None)
        is_later = not generation and first is not None and first.terms.ends - LEASE_SECONDS > began
        if first is None or is_later or len(known) < len(found):
            self.misses += 1
            return None
        self._sessions.move_to_end(session)
        self.hits += 1
        there = {name: one.value for name, one in zip(names, known, strict=True) if one.value is not None}
        missing = tuple(name for name in names if name not in there)
        return Copy(Found(kept.generation, there, missing), first.terms)

    def asks(self, session: str, now: float) -> Terms:
        """The store is about to be asked: the terms of what it will answer."""
        word = self.word_of(session)
        return Terms(word, self._words[word], now + LEASE_SECONDS)

    def keep(self, session: str, found: Found, terms: Terms) -> bool:
        """The store has answered a question that began with `terms`. Whether that is kept."""
        if (
            found.lease is None
            or self._words[terms.word] != terms.stamp
            or self._is_gone(session, found.lease)
        ):
            return False
        kept = self._sessions.get(session)
        if kept is None or not self._is_good(session, kept) or kept.generation != found.generation:
            self._drop(session)
            kept = self._sessions[session] = _Session(found.generation, found.lease, terms.stamp)
        kept.lease = max(kept.lease, found.lease, key=lambda one: (one.store, one.number))
        values: dict[str, Versioned | None] = {**dict.fromkeys(found.missing), **found.values}
        for name, value in values.items():
            self._forget(kept, name)
            kept.kept[name] = Kept(value, terms)
            self._count(kept, name, kept.kept[name])
        self._sessions.move_to_end(session)
        while self._bytes > self._most and len(self._sessions) > 1:
            self._drop(next(iter(self._sessions)))
        if self._bytes > self._most:
            self._drop(session)
            return False
        return True

    # ---- ends ---------------------------------------------------------------------------------------------

    def let_go(self, leases: Iterable[Lease]) -> tuple[Lease, ...]:
        """Ends the copies of these leases. Returns: those of which nobody has a copy any more."""
        own = tuple(lease for lease in leases if lease.holder == self.holder)
        for lease in own:
            self._let_go(lease.session)
            self._remember(lease)
        return own

    def gives_up(self, session: str) -> Lease | None:
        """The interpreter is about to write: its copies of the session end now, so that the store need not
        ask for that. Returns: the lease that they were kept under, None where there was none."""
        kept = self._sessions.get(session)
        if kept is None:
            return None
        self._let_go(session)
        self._remember(kept.lease)
        return kept.lease

    def ended(self, ended: Iterable[Ended]) -> None:
        """Sessions have ended."""
        for one in ended:
            self._let_go(one.session)

    def word_of(self, session: str) -> int:
        """The number of the session's word."""
        return zlib.crc32(session.encode("utf-8", "surrogatepass")) % len(self._words)

    @property
    def sessions(self) -> int:
        """How many sessions something is kept of."""
        return len(self._sessions)

    @property
    def bytes(self) -> int:
        """Of what is kept, about."""
        return self._bytes

    def _let_go(self, session: str) -> None:
        self._end(self.word_of(session))
        self._drop(session)

    def _remember(self, lease: Lease) -> None:
        """Nothing is kept under that lease from now on."""
        self._gone[lease.session] = max(self._gone.pop(lease.session, (0, 0)), (lease.store, lease.number))
        while len(self._gone) > MOST_GONE:
            self._gone_before = max(self._gone_before, self._gone.popitem(last=False)[1])

    def _is_gone(self, session: str, lease: Lease) -> bool:
        return (lease.store, lease.number) <= self._gone.get(session, self._gone_before)

    def _end(self, word: int) -> None:
        self._words[word] = (self._words[word] + 1) % FULL

    def _is_good(self, session: str, kept: _Session) -> bool:
        return self._words[self.word_of(session)] == kept.stamp

    def _drop(self, session: str) -> None:
        kept = self._sessions.pop(session, None)
        if kept is not None:
            self._bytes -= kept.bytes

    def _forget(self, kept: _Session, name: str) -> None:
        old = kept.kept.pop(name, None)
        if old is not None:
            self._count(kept, name, old, -1)

    def _count(self, kept: _Session, name: str, one: Kept, sign: int = 1) -> None:
        size = sign * (EACH + len(name) + (0 if one.value is None else size_of(one.value.value)))
        kept.bytes += size
        self._bytes += size


def size_of(value: Data) -> int:
    """Bytes of an encoded value."""
    return len(value.json) + sum(memoryview(buffer).nbytes for buffer in value.buffers)
