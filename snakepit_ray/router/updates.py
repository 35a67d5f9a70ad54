"""What handles wait for: changes of a pool's table, loads and bindings.

Rules:
- A change of the table, or of how many workers serve, is told at once, loads and bindings at most every
  LOAD_PERIOD.
- Workers are counted when the table changes and not when a handle asks: loads wake every handle.
- A pool where nothing happens wakes nobody before the watcher's own timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from snakepit_ray.core.pool.row import RowState
from snakepit_ray.port.messages import Update, WorkerCounts
from snakepit_ray.process.awaiting import happens
from snakepit_ray.router.members import Members

LOAD_PERIOD = 1.0
SILENT_SECONDS = 2.0  # a handle that has not asked again for so long is gone
RECENT_BINDINGS = 4096  # a watcher that missed more claims learns them from the workers, one delegation each


@dataclass
class Watcher:
    """A handle: the table that it has, the numbers of workers that it was told, and when its last question
    was answered (inf: it is waiting)."""

    version: int
    counts: WorkerCounts
    left_at: float = float("inf")


class Updates:
    """One pool's updates. `clock` is time.monotonic, as that of the event loop."""

    def __init__(self, members: Members, clock: Callable[[], float] = time.monotonic) -> None:
        self.closed = False
        self._clock = clock
        self.known = asyncio.Event()  # the table is whole: after a restart the workers must have spoken first
        self._watchers: dict[str, Watcher] = {}
        self.binding_version = 0
        self._members = members
        self._out_of_service = 0, 0  # quarantined, failed
        self._bindings: deque[tuple[str, str, int]] = deque(maxlen=RECENT_BINDINGS)
        self._table_changed = asyncio.Event()
        self._anything_changed = asyncio.Event()
        self._asked = asyncio.Event()  # a handle has asked: it knows the table that it named

    def table_changed(self) -> None:
        """The table, or how far a start has come."""
        members = self._members
        self._out_of_service = len(members.in_state(RowState.QUARANTINED)), len(members.failed())
        self._table_changed.set()
        self._table_changed = asyncio.Event()
        self.something_changed()

    def something_changed(self) -> None:
        """A load."""
        self._anything_changed.set()
        self._anything_changed = asyncio.Event()

    def bound(self, session: str, worker_id: str, version: int) -> None:
        """A session got a worker."""
        self.binding_version = version
        self._bindings.append((session, worker_id, version))
        self.something_changed()

    @property
    def counts(self) -> WorkerCounts:
        """How many workers there are to be, and how many of them do not serve."""
        return WorkerCounts(self._members.size, *self._out_of_service)

    async def next(self, handle_id: str, version: int, load: int, binding: int, timeout: float) -> Update:
        """What is new after these versions; waits for it at most `timeout` seconds."""
        before = self._watchers.get(handle_id)
        told = None if before is None else before.counts  # a new handle is answered at once
        watcher = self._watchers[handle_id] = Watcher(version, self.counts)
        self._asked.set()
        self._asked = asyncio.Event()
        await self.known.wait()
        began = self._clock()
        try:
            while not self.closed and (self._members.version, self.counts) == (version, told):
                waited = self._clock() - began
                news = self._members.load_version != load or self.binding_version != binding
                if waited >= timeout or (news and waited >= LOAD_PERIOD):
                    break
                if waited < LOAD_PERIOD:
                    await self.table(LOAD_PERIOD - waited)
                else:
                    await self.anything(timeout - waited)
        finally:
            watcher.left_at, watcher.counts = self._clock(), self.counts
        return self._update(version, load, binding)

    def _update(self, version: int, load: int, binding: int) -> Update:
        members = self._members
        return Update(
            members.version,
            members.load_version,
            self.binding_version,
            members.entries() if members.version != version else None,
            members.loads() if members.load_version != load else None,
            [row for row in self._bindings if row[2] > binding],
            self.closed,
            self.counts,
        )

    async def known_to_all(self, version: int, timeout: float) -> bool:
        """Waits at most `timeout` seconds until no handle that still asks has a table older than `version`;
        whether that is so."""
        deadline = self._clock() + timeout
        while behind := self._behind(version):
            now = self._clock()
            if now >= deadline:
                return False
            silent_at = min(watcher.left_at for watcher in behind) + SILENT_SECONDS
            await happens(self._asked, min(silent_at, deadline) - now)
        return True

    def _behind(self, version: int) -> list[Watcher]:
        silent = self._clock() - SILENT_SECONDS
        self._watchers = {name: w for name, w in self._watchers.items() if w.left_at > silent}
        return [watcher for watcher in self._watchers.values() if watcher.version < version]

    async def table(self, timeout: float) -> None:
        """Waits for a change of the table."""
        await happens(self._table_changed, timeout)

    async def anything(self, timeout: float) -> None:
        """Waits for a change of the table, a load or a binding."""
        await happens(self._anything_changed, timeout)
