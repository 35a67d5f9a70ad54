"""Who may answer reads of one session from a copy, and until when.

- A holder counts its lease from when it asked for it, the store from when it answered. So a lease ends at the
  holder first, provided that their clocks run equally fast: nobody compares the clocks themselves.
- Each lease has a number, of its store. Who lets go of one says which: words that come late end no newer one.
- A holder that was told to let go of a number keeps no copy of that number, also none that comes later.

The protocol is that of Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file
cache consistency", 1989.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

LEASE_SECONDS = 2.0


class Lease(NamedTuple):
    """One lease, as its holder knows it: which of the leases of one session."""

    holder: str
    number: int
    store: int = 0
    session: str = ""


class Leases:
    """The leases of one session. Times are seconds of the store's monotonic clock.

    `until`: when the leases have ended that a store before this one may have granted. `store`: which store
    this is, of all that there were. `numbers`: where the numbers of leases come from, so that those of
    several sessions are different. `session`: whose they are."""

    def __init__(
        self, until: float, store: int, numbers: Iterator[int] | None = None, session: str = ""
    ) -> None:
        self._store = store
        self._session = session
        self._numbers = count(1) if numbers is None else numbers
        self._ends: dict[str, tuple[int, float]] = {}
        self._before = until

    def grant(self, holder: str, now: float) -> Lease:
        """`holder` may answer from its copy for LEASE_SECONDS since it asked. One that has a lease keeps its
        number: were it another one, a copy under the first would outlive the word that ends the second."""
        number, end = self._ends.get(holder, (0, now))
        if end <= now:
            number = next(self._numbers)
        self._ends[holder] = number, now + LEASE_SECONDS
        return Lease(holder, number, self._store, self._session)

    def release(self, lease: Lease) -> None:
        """Its holder has no copy of it any more. Safe to repeat."""
        if lease.store == self._store and self._ends.get(lease.holder, (0, 0.0))[0] == lease.number:
            del self._ends[lease.holder]

    def standing(self, now: float) -> tuple[Lease, ...]:
        """The leases that may not have ended."""
        return tuple(
            Lease(holder, number, self._store, self._session)
            for holder, (number, end) in self._ends.items()
            if end > now
        )

    def free_from(self, now: float) -> float:
        """When nobody holds a copy any more, if nobody lets go of one before."""
        if not self._ends:
            return max(now, self._before)
        return max([now, self._before, *(end for _, end in self._ends.values())])
