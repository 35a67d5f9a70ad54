"""The one thread that works on the database, for a loop that must not wait for a disk.

- What has gathered while a group was committed is the next group: the more there is, the less each costs.
- A group that fails is tried again one by one, so that only what cannot be written fails. What needs it fails
  with it.
- Between groups, in portions: a checkpoint each second while something is written, and the removal of what
  nobody asks for any more. What fails there is tried again later.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from snakepit_ray.core.state.orders import Content, Load, Transaction
from snakepit_ray.errors import EncodingError, SessionQuotaExceeded, SnakepitError
from snakepit_ray.store.database import Database

LARGEST_GROUP = 1_000  # transactions
CHECKPOINT_SECONDS = 1.0
PORTION = 100  # rows that are removed in one piece
SWEEP_SECONDS = 10.0  # between two looks for rows to remove
REMEMBERED = 10_000  # transactions that have failed


class Durable(NamedTuple):
    """These transactions outlive the process."""

    numbers: tuple[int, ...]


class Failed(NamedTuple):
    """This one has had no effect."""

    number: int
    error: SnakepitError


class Loaded(NamedTuple):
    """What was asked for, or why it cannot be read."""

    load: Load
    content: Content | SnakepitError


class Called(NamedTuple):
    """What a call has given."""

    give: Callable[[Any], None]
    value: Any


Result = Durable | Failed | Loaded | Called
Hear = Callable[[Sequence[Result]], None]


class _Call(NamedTuple):
    """Something else that is to be done with the database."""

    act: Callable[[Database], Any]
    give: Callable[[Any], None]


class Committer:
    """Works on `database` in its thread. `hear` is called there with what has come of each piece of work.
    `committed`: called after each commit, before anybody hears of it. `wall`: seconds since 1970."""

    def __init__(
        self,
        database: Database,
        hear: Hear,
        wall: Callable[[], float] = time.time,
        committed: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._database = database
        self._hear = hear
        self._wall = wall
        self._committed = committed
        self._jobs: queue.SimpleQueue[Transaction | Load | _Call | None] = queue.SimpleQueue()
        self._failed: set[int] = set()
        self._is_full = ""
        self._unchecked_since: float | None = None
        self._sweeps_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="snakepit-committer", daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> str:
        """Why the last write failed, "" where it did not."""
        return self._is_full

    def commit(self, transactions: Sequence[Transaction]) -> None:
        """Takes transactions, in their order."""
        for transaction in transactions:
            self._jobs.put(transaction)

    def load(self, load: Load) -> None:
        """Takes a wish to read."""
        self._jobs.put(load)

    def call(self, act: Callable[[Database], Any], give: Callable[[Any], None]) -> None:
        """Calls `act` with the database in the thread; `give` hears what it gives, or the exception."""
        self._jobs.put(_Call(act, give))

    def close(self) -> None:
        """Does what was taken, and closes the database. Blocks. Safe to repeat."""
        self._jobs.put(None)
        self._thread.join()

    # ---- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        is_open = True
        while is_open:
            jobs = self._gather()
            is_open = None not in jobs
            self._perform([job for job in jobs if job is not None])
            self._keep_house()
        self._database.close()

    def _gather(self) -> list[Transaction | Load | _Call | None]:
        """What has come; waits for something, or until there is housekeeping to do."""
        jobs = []
        try:
            jobs.append(self._jobs.get(timeout=self._idle_seconds()))
            while len(jobs) < LARGEST_GROUP:
                jobs.append(self._jobs.get_nowait())
        except queue.Empty:
            pass
        return jobs

    def _idle_seconds(self) -> float:
        now = time.monotonic()
        ends = [self._sweeps_at]
        if self._unchecked_since is not None:
            ends.append(self._unchecked_since + CHECKPOINT_SECONDS)
        return max(0.0, min(ends) - now)

    def _perform(self, jobs: Sequence[Transaction | Load | _Call]) -> None:
        results: list[Result] = [self._load(job) for job in jobs if isinstance(job, Load)]
        group = [job for job in jobs if isinstance(job, Transaction)]
        if group:
            results += self._commit(group)
        results += [self._call(job) for job in jobs if isinstance(job, _Call)]
        if results:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody hears any more
                self._hear(results)

    def _commit(self, group: Sequence[Transaction]) -> list[Result]:
        if not self._failed or not any(one.needs in self._failed for one in group):
            with contextlib.suppress(Exception):
                return [self._write(group)]
        return [self._commit_one(one) for one in group]

    def _commit_one(self, one: Transaction) -> Result:
        if one.needs in self._failed:
            return self._fail(one, _cannot_write(self._is_full))
        try:
            return self._write([one])
        except sqlite3.Error as error:
            self._is_full = str(error)
            return self._fail(one, _cannot_write(self._is_full))
        except Exception as error:  # noqa: BLE001 - what cannot be written must not end the thread of everybody
            why = f"the session store cannot write it: {type(error).__name__}: {error}"
            return self._fail(one, EncodingError(why))

    def _fail(self, one: Transaction, error: SnakepitError) -> Failed:
        self._failed.add(one.number)
        if len(self._failed) > REMEMBERED:
            self._failed = {number for number in self._failed if number > one.number - REMEMBERED}
        return Failed(one.number, error)

    def _write(self, group: Sequence[Transaction]) -> Durable:
        self._database.commit(group)
        self._is_full = ""
        self._committed(len(group))
        if self._unchecked_since is None:
            self._unchecked_since = time.monotonic()
        return Durable(tuple(one.number for one in group))

    def _load(self, load: Load) -> Loaded:
        try:
            return Loaded(load, self._database.load(load))
        except Exception as error:  # noqa: BLE001 - as above
            path = str(self._database.path)
            what = f"session {load.session!r}" if load.session else "the global programs"
            why = f"{what} cannot be read from {path}: {type(error).__name__}: {error}"
            return Loaded(load, EncodingError(why, path=path))

    def _call(self, job: _Call) -> Called:
        try:
            return Called(job.give, job.act(self._database))
        except Exception as error:  # noqa: BLE001 - as above
            return Called(job.give, error)

    def _keep_house(self) -> None:
        now = time.monotonic()
        if self._unchecked_since is not None and now - self._unchecked_since >= CHECKPOINT_SECONDS:
            self._unchecked_since = None if self._checkpoint() else now
        if now >= self._sweeps_at:
            self._sweeps_at = now if self._sweep() else now + SWEEP_SECONDS

    def _checkpoint(self) -> bool:
        try:
            self._database.checkpoint()
        except sqlite3.Error:
            return False
        return True

    def _sweep(self) -> bool:
        """Removes a portion. Returns whether there may be more."""
        try:
            gone = self._database.sweep(PORTION, self._wall())
        except sqlite3.Error:
            return False
        if gone and self._unchecked_since is None:
            self._unchecked_since = time.monotonic()
        return gone > 0


def _cannot_write(why: str) -> SnakepitError:
    return SessionQuotaExceeded(
        f"the session store cannot write to its disk ({why}); nothing was changed, and reads go on: make "
        "room there, or delete sessions that are no longer used (pool.sessions.delete), and try again",
        quota="disk",
    )
