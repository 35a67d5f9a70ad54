"""What one calling process knows of one pool: the workers, how loaded they are, where sessions live.

Rules:
- Choosing a worker takes microseconds and no message.
- News come on a thread of our own, never on the caller's event loop. The thread ends with the pool.
- A process has one directory for each pool, whoever unpickled the handle.
- It holds a lease at the router. The end of that tells the workers that nobody here waits for answers any
  more.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from snakepit_ray.client import listening
from snakepit_ray.client.lanes import Lanes
from snakepit_ray.client.status import Status, running_and_waiting
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.routing.view import SNAPSHOT_SIZE, RoutingView
from snakepit_ray.core.sessions.turns import Turns
from snakepit_ray.core.work.request_ids import ids_of
from snakepit_ray.errors import PoolClosed, SnakepitError
from snakepit_ray.port import ray_port
from snakepit_ray.port.messages import Entry, Snapshot, Update, WorkerCounts
from snakepit_ray.wire.lane import Lane

POLL_SECONDS = 20.0
AGAIN_SECONDS = 0.5
ASK_SECONDS = 5.0
SESSION_OVER = "the Ray session that it belongs to was shut down"
FRESH_SECONDS = 1.0  # that the first call of a handle from elsewhere may wait for the present table


class Target(NamedTuple):
    """A worker: its `execute` method (binding one costs 0.1 ms), its actor's incarnation, its actor, and its
    lane."""

    worker_id: str
    execute: Any
    incarnation: int
    actor: Any
    lane: Lane | None = None


class Directory:
    """One pool as this process sees it."""

    def __init__(
        self,
        config: PoolConfig,
        router: Any,
        snapshot: Snapshot,
        *,
        is_old: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.config = config
        self._is_old = is_old
        self.router = router
        self.closed = False
        self._counts = snapshot.counts
        self._loads: dict[str, int] = {}  # as the workers have reported them, by worker
        self._heard_at = self._clock()
        self._is_told = False  # the router tells this process of every change
        self.updates = 0
        self.routers = 0  # lives of the router that this process has met
        self._why = "it was shut down"
        self._id = secrets.token_hex(8)
        self.new_id = ids_of(self._id)  # of a request of this process: the workers know by it whose it is
        self._lease: Any = None
        self._lock = threading.Lock()
        self._view: RoutingView[str] = RoutingView()
        self._timeouts: dict[str, float] = {}  # of commands that declare one
        self._targets: dict[str, Target] = {}
        self._last: list[Target] = []  # the newest table that had anybody in it
        self._entries: dict[str, Entry] = {}
        self._load_version = self._binding_version = 0
        self._thread: threading.Thread | None = None
        self._news = threading.Event()
        self._session = ray_port.session_id()
        self._watchers: list[Callable[[], None]] = []
        self._turns = Turns()
        self._turns_lock = threading.RLock()  # the garbage collector may end a stream in the midst of `take`
        self.lanes = Lanes(config.lane == "auto", ray_port.node_id)
        self._learn(snapshot.version, snapshot.entries)

    # ---- the hot path -------------------------------------------------------------------------------------

    def take_turn(self, session: str) -> tuple[int, int]:
        """The number of this process's next request of a session, and up to which all have ended."""
        with self._turns_lock:
            return self._turns.take(session)

    def end_turn(self, session: str, number: int) -> None:
        """That request has ended. Answers come in threads of their own."""
        with self._turns_lock:
            self._turns.done(session, number)

    def target(self, session: str | None, prefer: str | None = None) -> Target:
        """The worker that a request goes to: that of its session, else `prefer` where it serves, else one
        with little load. Raises PoolClosed."""
        self.check_open()
        if self._thread is None:
            self._begin()
            if self._is_old:
                self._catch_up()
        with self._lock:
            if not len(self._view):
                return self._nobody()
            if session:
                return self._targets[self._view.choose_for_session(session)]
            if prefer is not None and prefer in self._targets:
                return self._targets[prefer]
            return self._targets[self._view.choose(random.random)]

    def _catch_up(self) -> None:
        """The table came with a handle from elsewhere, and may be an old one."""
        with contextlib.suppress(ray_port.RayError, TimeoutError, concurrent.futures.TimeoutError):
            self.refresh(FRESH_SECONDS)

    @property
    def id(self) -> str:
        """Of this process to the pool: what it asks for, and what it runs, ends when it does."""
        return self._id

    def follow(self, changed: Callable[[], None]) -> None:
        """Hears of the router's news from now on, and has `changed` called when the table or the router is
        another one, or the pool is closed."""
        self._watchers.append(changed)
        self._begin()

    def actors(self) -> list[tuple[str, Any]]:
        """The workers that serve, by id, and their actors."""
        with self._lock:
            return [(entry.worker_id, entry.actor) for entry in self._entries.values()]

    def _say_changed(self) -> None:
        for changed in self._watchers:
            changed()

    def avoid(self, worker_id: str) -> None:
        """It has died: others are chosen until the next table."""
        with self._lock:
            self._view.avoid(worker_id)

    def is_current(self) -> bool:
        """Whether the Ray session that this was made in goes on: what belongs to an earlier one must not be
        touched, or Ray aborts the process."""
        return ray_port.session_id() == self._session

    def _nobody(self) -> Target:
        """All workers are being restarted at once: one of those that were here takes the request when it is
        back. Raises PoolClosed where there never was one."""
        if not self._last:
            raise PoolClosed(f"pool {self.config.name!r} has no worker that is ready: see repr(pool)")
        return random.choice(self._last)

    def departed(self, worker_id: str) -> float | None:
        """Seconds since that worker was gone for good, as the router saw it; None where it did not. Blocks.

        Raises PoolClosed when the router is gone, too."""
        asked = self.router.departed.remote(worker_id)
        try:
            gone: float | None = ray_port.get(asked, ASK_SECONDS, self.config.name)
        except PoolClosed:
            raise
        except SnakepitError:  # the router restarts, and forgets
            return None
        return gone

    def check_open(self) -> None:
        """Raises PoolClosed when the pool is known to have ended, or the Ray session that it belongs to."""
        if not self.closed and not self.is_current():
            self._why = SESSION_OVER
            self.close()
        if self.closed:
            raise PoolClosed.named(self.config.name, self._why)

    def declared(self, command: str) -> float | None:
        """The timeout that a command has of its own; None where it has none or nobody knows yet."""
        return self._timeouts.get(command)

    @property
    def workers(self) -> int:
        """Workers that this process knows to be ready."""
        return len(self._view)

    def status(self) -> Status:
        """What this process knows of the pool now. Asks nobody."""
        gone = "" if self.is_current() else SESSION_OVER
        running, waiting = running_and_waiting(self._loads.values(), self.config.capacity)
        return Status(
            self.config.name,
            self.workers,
            self._counts,
            running,
            waiting,
            age=0.0 if self._is_told else self._clock() - self._heard_at,
            closed=self._why if self.closed else gone,
        )

    # ---- news ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                name = f"snakepit-directory-{self.config.name}"
                self._thread = threading.Thread(target=self._listen, name=name, daemon=True)
                self._thread.start()

    def _listen(self) -> None:
        while not self.closed and self.is_current():
            try:
                if self._lease is None:
                    self._lease = ray_port.hold_lease(self.router, self._id)
                    self.routers += 1
                    self._say_changed()
                self._take(self._poll().result())
            except (ray_port.ActorUnavailable, concurrent.futures.CancelledError):
                self._is_told = False
                self._lease = None  # the router restarts: the next one has never heard of us
                self._news.wait(AGAIN_SECONDS)
            except Exception as error:  # noqa: BLE001 - router or Ray are gone for good: so is the pool
                self._why = f"its router is gone: {type(error).__name__}"
                self.closed = True
        self.lanes.close()
        self._say_changed()

    def _poll(self) -> concurrent.futures.Future[Update]:
        ref = self.router.watch.remote(
            self._id, self._view.version, self._load_version, self._binding_version, POLL_SECONDS
        )
        future: concurrent.futures.Future[Update] = ref.future()
        return future

    def _take(self, update: Update) -> None:
        self.updates += 1
        self._is_told = True
        self._hear(update.counts)
        self._load_version, self._binding_version = update.load_version, update.binding_version
        if update.entries is not None:
            self._learn(update.version, update.entries)
            listening.table_changed()
            self._say_changed()
        with self._lock:
            if update.loads is not None:
                self._loads = update.loads
                self._view.publish(update.loads)
            for session, worker_id, version in update.bindings:
                self._view.bind(session, worker_id, version)
        self.closed = self.closed or update.closed

    def _hear(self, counts: WorkerCounts) -> None:
        self._counts = counts
        self._heard_at = self._clock()

    def _learn(self, version: int, entries: list[Entry]) -> None:
        with self._lock:
            if self._view.update(version, [(e.worker_id, e.capacity, e.load) for e in entries]):
                self._entries = {e.worker_id: e for e in entries}
                self._loads = {e.worker_id: e.load for e in entries}
                self._targets = {
                    e.worker_id: Target(e.worker_id, e.actor.execute, e.incarnation, e.actor, e.lane)
                    for e in entries
                }
                self._last = list(self._targets.values()) or self._last
                self._timeouts = {name: most for e in entries for name, most in e.timeouts}

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.config, self.router, self.snapshot())

    def snapshot(self) -> Snapshot:
        """What a pickled handle carries: at most SNAPSHOT_SIZE workers. A sample passes for an older table,
        so that whoever has it is sent the whole one and takes it."""
        with self._lock:
            rows = self._view.sample(SNAPSHOT_SIZE, random.random)
            version = self._view.version - (len(rows) < len(self._view))
            return Snapshot(version, [self._entries[key] for key, _, _ in rows], self._counts)

    def speakers(self) -> list[tuple[str, Any]]:
        """The actors that have events, each under a name of its own: a worker that was restarted is another
        one."""
        with self._lock:
            workers = [(f"{e.worker_id}@{e.incarnation}", e.actor) for e in self._entries.values()]
        return [(f"{self._id}", self.router), *workers]

    def refresh(self, timeout: float) -> None:
        """Fetches the table now: for those who must see a change that they made themselves. Blocks."""
        deadline = self._clock() + timeout
        snapshot: Snapshot = self.router.snapshot.remote().future().result(max(0.1, deadline - self._clock()))
        self._hear(snapshot.counts)
        self._learn(snapshot.version, snapshot.entries)

    def close(self) -> None:
        """This process is done with the pool."""
        self.closed = True
        self._news.set()
        self.lanes.close()

    def why_no_lane(self) -> dict[str, str]:
        """Why the lane of each worker is not used from this process; "" of those that are, or can be."""
        with self._lock:
            entries = list(self._entries.values())
        return {entry.worker_id: self.lanes.why_not(entry.lane) for entry in entries}


_directories: dict[str, Directory] = {}
_directories_lock = threading.Lock()


def _unpickle(config: PoolConfig, router: Any, snapshot: Snapshot) -> Directory:
    return directory_of(config, router, snapshot, is_old=True)


def directory_of(config: PoolConfig, router: Any, snapshot: Snapshot, *, is_old: bool = False) -> Directory:
    """This process's directory of the pool that `router` runs. Made when there is none. `is_old`: the
    snapshot has travelled, and there may be a newer one."""
    key = ray_port.id_of(router)
    with _directories_lock:
        directory = _directories.get(key)
        if directory is None or directory.closed or not directory.is_current():
            for old in [name for name, known in _directories.items() if known.closed]:
                del _directories[old]
            directory = _directories[key] = Directory(config, router, snapshot, is_old=is_old)
            listening.follow(directory)
        return directory
