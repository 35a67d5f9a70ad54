"""A store's disk: its lock, its database with the thread that works on it, and its files."""

from __future__ import annotations

import asyncio
import functools
import logging
import sqlite3
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from snakepit_ray.core.state.asked import Data, Question
from snakepit_ray.core.state.desk import Beginning
from snakepit_ray.core.state.orders import Load, Transaction
from snakepit_ray.errors import SessionQuotaExceeded
from snakepit_ray.store import place, values
from snakepit_ray.store.committer import Called, Committer, Result
from snakepit_ray.store.database import Database
from snakepit_ray.store.files import LARGE, Filed, Files

DAMAGED = (sqlite3.Error, ValueError, TypeError, KeyError, struct.error)
Clock = Callable[[], float]
Said = Callable[[Sequence[Result]], None]
log = logging.getLogger("snakepit_ray.store")


class Disk:
    """Made by `Disk.open`, in the loop of its store. `reset_from`: under which name a damaged file was set
    aside, "" where none lies there."""

    def __init__(
        self,
        lock: place.Lock,
        database: Database,
        beginning: Beginning,
        reset_from: str,
        wall: Clock,
        committed: Callable[[int], None],
    ) -> None:
        self.path = database.path
        self.beginning = beginning
        self.reset_from = reset_from
        self._lock = lock
        self._files = Files(self.path.with_name(self.path.name + ".files"))
        self._writer = ThreadPoolExecutor(1, "snakepit-files")
        self._loop = asyncio.get_running_loop()
        self._say: Said = lambda results: None
        self._committer = Committer(database, self._hear, wall, committed)

    @classmethod
    def open(
        cls,
        path: Path,
        is_named: bool,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        lock_seconds: float = place.LOCK_SECONDS,
        committed: Callable[[int], None] = lambda count: None,
    ) -> Disk:
        """The store at `path`. `is_named`: by the user. `committed`: called after each commit, before anybody
        hears of it. Raises ConfigError where there can be none."""
        lock = place.Lock(path, lock_seconds)
        try:
            database, beginning, reset_from = _opened(path, is_named, clock, wall)
        except BaseException:
            lock.release()
            raise
        return cls(lock, database, beginning, reset_from, wall, committed)

    @property
    def full(self) -> str:
        """Why the last write failed, "" where it did not."""
        return self._committer.is_full

    def listen(self, say: Said) -> None:
        """`say` hears, in the loop, what comes of what is taken."""
        self._say = say

    def _hear(self, results: Sequence[Result]) -> None:
        """In the thread."""
        self._loop.call_soon_threadsafe(self._tell, results)

    def _tell(self, results: Sequence[Result]) -> None:
        for result in results:
            if isinstance(result, Called):
                result.give(result.value)
        self._say([result for result in results if not isinstance(result, Called)])

    def commit(self, transactions: Sequence[Transaction]) -> None:
        """Takes transactions, in their order."""
        self._committer.commit(transactions)

    def load(self, load: Load) -> None:
        """Takes a wish to read."""
        self._committer.load(load)

    # ---- files --------------------------------------------------------------------------------------------

    async def filed(self, question: Question) -> Question:
        """The question with large buffers in files. Raises SessionQuotaExceeded where the disk is full."""
        try:
            change = functools.partial(values.changed, question, self._keep)
            return await self._loop.run_in_executor(self._writer, change)
        except OSError as error:
            raise SessionQuotaExceeded(
                f"the session store cannot write the data of a value ({error}); nothing was changed, and "
                "reads go on: make room on its disk, or delete what is no longer used, and try again",
                quota="disk",
            ) from error

    def _keep(self, data: Data) -> Data:
        return Data(data.json, tuple(map(self._kept, data.buffers)))

    def _kept(self, buffer: Any) -> Any:
        return self._files.keep(buffer) if memoryview(buffer).nbytes >= LARGE else bytes(memoryview(buffer))

    def opened(self, data: Data) -> Data:
        """The value with its files mapped. Raises EncodingError."""
        return Data(
            data.json, tuple(self._files.open(one) if isinstance(one, Filed) else one for one in data.buffers)
        )

    async def sweep_files(self) -> int:
        """Removes files that no row names. Returns how many."""
        named = await self._call(lambda database: database.files())
        if isinstance(named, Exception):
            return 0
        return await self._loop.run_in_executor(self._writer, self._files.sweep, named)

    async def size(self) -> int:
        """Bytes of all that is kept."""
        try:
            files = await self._loop.run_in_executor(self._writer, self._files.size)
        except OSError:  # one was removed meanwhile, by somebody else
            files = 0
        found = await self._call(lambda database: database.size())
        return files + (found if isinstance(found, int) else 0)

    async def _call(self, act: Callable[[Database], Any]) -> Any:
        """What `act` gives in the database's thread, or the exception that it raises."""
        given: asyncio.Future[Any] = self._loop.create_future()
        self._committer.call(act, lambda value: None if given.done() else given.set_result(value))
        return await given

    async def close(self, is_free: bool) -> None:
        """Does what was taken, and lets go of the files. `is_free`: no lease is out, so that the next store
        need not wait for any. Safe to repeat."""
        if is_free:
            self._committer.call(lambda database: database.unlease(), lambda value: None)
        await self._loop.run_in_executor(None, self._committer.close)
        self._writer.shutdown()
        self._lock.release()


def _opened(path: Path, is_named: bool, clock: Clock, wall: Clock) -> tuple[Database, Beginning, str]:
    try:
        return (*_begun(path, clock, wall), place.aside(path))
    except DAMAGED as error:
        if isinstance(error, sqlite3.OperationalError):
            raise place.cannot_write(path, error) from error
        if is_named:
            raise place.damaged(path, error) from error
        why = f"{type(error).__name__}: {error}"
    aside = place.set_aside(path, wall())
    log.warning("the session store %s was damaged (%s); it lies at %s, a new one begins", path, why, aside)
    try:
        return (*_begun(path, clock, wall), str(aside))
    except DAMAGED as error:
        raise place.cannot_write(path, error) from error


def _begun(path: Path, clock: Clock, wall: Clock) -> tuple[Database, Beginning]:
    database = Database(path)
    try:
        return database, database.begin(clock(), wall())
    except BaseException:
        database.close()
        raise
