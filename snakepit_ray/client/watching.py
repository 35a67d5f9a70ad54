"""Iterators of the changes of a session's variables.

- A watcher asks one question at a time, which waits at the store, and only while somebody waits for the next
  change. A store that is restarted is asked again from where the watcher is.
- A watcher whose pool has ended hears of that within LOOK_SECONDS: the store goes on without the pool.
- The error with which a session ends is raised once; after it there is nothing more.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace

from snakepit_ray.client.records import Change, change_of
from snakepit_ray.client.variable_talks import VariableTalks
from snakepit_ray.core.state import naming
from snakepit_ray.core.state.asked import Changes, Watch

POLL_SECONDS = 30.0  # that a question waits at the store
LOOK_SECONDS = 1.0


class _Cursor:
    """Where a watcher is, and what it has not handed out yet."""

    def __init__(self, session_id: str, names: str | Iterable[str]) -> None:
        self.question = Watch(session_id, naming.patterns(names), seconds=POLL_SECONDS)
        self._changes: deque[Change] = deque()

    def take(self) -> Change | None:
        """The next change that is here."""
        return self._changes.popleft() if self._changes else None

    def moved(self, answer: Changes) -> None:
        """The store has answered."""
        self.question = replace(self.question, cursor=answer.cursor, generation=answer.generation)
        self._changes.extend(map(change_of, answer.changes))


class Watcher(Iterator[Change]):
    """Changes for a thread. Made by `variables.watch`; `with` closes it."""

    def __init__(self, talks: VariableTalks, names: str | Iterable[str]) -> None:
        self._talks = talks
        self._cursor = _Cursor(talks.session_id, names)
        self._lock = threading.Lock()  # of `_asked` and `_is_closed`
        self._asked: concurrent.futures.Future[Changes] | None = None
        self._is_closed = False

    def __iter__(self) -> Watcher:
        return self

    def __next__(self) -> Change:
        """Waits for the next change. Raises StopIteration when it was closed; see `variables.watch`."""
        try:
            self._talks.access.run(self._talks.joined())
            while not self._is_closed:
                change = self._cursor.take()
                if change is not None:
                    return change
                self._ask()
        except BaseException:  # an interrupt among them: the question ends at the store, too
            self.close()
            raise
        raise StopIteration

    def close(self) -> None:
        """Ends the iteration, and the question at the store. Safe to repeat, and from any thread."""
        with self._lock:
            self._is_closed = True
            if self._asked is not None:
                self._asked.cancel()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._asked = asked = self._talks.access.watch(self._cursor.question)
        while not (asked.done() or self._is_closed):
            concurrent.futures.wait([asked], LOOK_SECONDS)
            self._talks.access.calls()  # raises PoolClosed
        if not asked.cancelled() and not self._is_closed:
            self._cursor.moved(asked.result())


class AsyncWatcher(AsyncIterator[Change]):
    """Changes for asyncio. Made by `variables.awatch`; `async with` closes it."""

    def __init__(self, talks: VariableTalks, names: str | Iterable[str]) -> None:
        self._talks = talks
        self._cursor = _Cursor(talks.session_id, names)
        self._asked: asyncio.Future[Changes] | None = None
        self._is_closed = False

    def __aiter__(self) -> AsyncWatcher:
        return self

    async def __anext__(self) -> Change:
        """Waits for the next change. Raises StopAsyncIteration when it was closed; see `variables.watch`."""
        try:
            await self._talks.access.arun(self._talks.joined())
            while not self._is_closed:
                change = self._cursor.take()
                if change is not None:
                    return change
                await self._ask()
        except BaseException:  # a cancellation among them
            await self.aclose()
            raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends the iteration, and the question at the store. Safe to repeat, and from another task."""
        self._is_closed = True
        if self._asked is not None:
            self._asked.cancel()

    async def __aenter__(self) -> AsyncWatcher:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _ask(self) -> None:
        self._asked = asyncio.wrap_future(self._talks.access.watch(self._cursor.question))
        while not (self._asked.done() or self._is_closed):
            await asyncio.wait([self._asked], timeout=LOOK_SECONDS)
            self._talks.access.calls()  # raises PoolClosed
        if not self._asked.cancelled() and not self._is_closed:
            self._cursor.moved(self._asked.result())
