"""Knows what one calling process knows of one pool: the workers, how loaded they are, where sessions live.

Rules: choosing a worker takes microseconds and no message; news come on a thread of our own, never on the
caller's event loop; there is one link for each pool in a process, whoever unpickled the handle; it holds a
lease at the router, whose end tells the workers that nobody waits for their answers here any more; the
thread ends with the pool."""

from __future__ import annotations

import concurrent.futures
import itertools
import random
import secrets
import threading
import time
from typing import Any

from snakepit_ray.actors import ray_port
from snakepit_ray.actors.messages import Entry, Snapshot, Update
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.routing import SNAPSHOT_SIZE, RoutingView
from snakepit_ray.errors import PoolClosed

POLL_SECONDS = 20.0
AGAIN_SECONDS = 0.5


class Link:
    """One pool as this process sees it."""

    def __init__(self, config: PoolConfig, router: Any, snapshot: Snapshot) -> None:
        self.config = config
        self.router = router
        self.closed = False
        self.updates = 0
        self._why = "it was shut down"
        self._id = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._lease: Any = None
        self._lock = threading.Lock()
        self._view: RoutingView[str] = RoutingView()
        # worker id -> its bound remote method (making one costs 0.1 ms), its actor's incarnation and itself
        self._execute: dict[str, tuple[Any, int, Any]] = {}
        self._last: list[tuple[Any, int, Any]] = []  # the newest table that had anybody in it
        self._entries: dict[str, Entry] = {}
        self._load_version = self._binding_version = 0
        self._thread: threading.Thread | None = None
        self._news = threading.Event()
        self._learn(snapshot.version, snapshot.entries)

    # ---- the hot path -------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """Of a request of this process: the workers know by its beginning whose it is."""
        return f"{self._id}-{next(self._numbers)}"

    def target(self, session: str | None) -> tuple[Any, int]:
        """The `execute` method of the worker that a request goes to, and its actor's incarnation. Raises
        PoolClosed."""
        execute, incarnation, _ = self._route(session)
        return execute, incarnation

    def batch_target(self, session: str | None) -> tuple[Any, int]:
        """`target` for a whole batch: the method that spreads it over the pool."""
        _, incarnation, actor = self._route(session)
        return actor.execute_batch, incarnation

    def _route(self, session: str | None) -> tuple[Any, int, Any]:
        if self._thread is None:
            self._begin()
        self.check_open()
        with self._lock:
            if not len(self._view):
                return self._nobody()
            key = self._view.choose_for_session(session) if session else self._view.choose(random.random)
            return self._execute[key]

    def actor(self, session: str | None) -> tuple[Any, int]:
        """`target`, but the worker's actor itself."""
        _, incarnation, actor = self._route(session)
        return actor, incarnation

    def _nobody(self) -> tuple[Any, int, Any]:
        """All workers are being restarted at once: one of those that were here takes the request when it is
        back. Raises PoolClosed where there never was one."""
        if not self._last:
            raise PoolClosed(f"pool {self.config.name!r} has no worker that is ready: see repr(pool)")
        return random.choice(self._last)

    def check_open(self) -> None:
        """Raises PoolClosed when the pool is known to have ended."""
        if self.closed:
            raise PoolClosed.named(self.config.name, self._why)

    @property
    def workers(self) -> int:
        """Workers that this process knows to be ready."""
        return len(self._view)

    # ---- news ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                name = f"snakepit-link-{self.config.name}"
                self._thread = threading.Thread(target=self._listen, name=name, daemon=True)
                self._thread.start()

    def _listen(self) -> None:
        while not self.closed:
            try:
                if self._lease is None:
                    self._lease = ray_port.hold_lease(self.router, self._id)
                self._take(self._poll().result())
            except (ray_port.ActorUnavailable, concurrent.futures.CancelledError):
                self._lease = None  # the router restarts: the next one has never heard of us
                self._news.wait(AGAIN_SECONDS)
            except Exception as error:  # noqa: BLE001 - router or Ray are gone for good: so is the pool, for us
                self._why = f"its router is gone: {type(error).__name__}"
                self.closed = True

    def _poll(self) -> concurrent.futures.Future[Update]:
        ref = self.router.watch.remote(
            self._id, self._view.version, self._load_version, self._binding_version, POLL_SECONDS
        )
        future: concurrent.futures.Future[Update] = ref.future()
        return future

    def _take(self, update: Update) -> None:
        self.updates += 1
        self._load_version, self._binding_version = update.load_version, update.binding_version
        if update.entries is not None:
            self._learn(update.version, update.entries)
        with self._lock:
            if update.loads is not None:
                self._view.publish(update.loads)
            for session, worker_id, version in update.bindings:
                self._view.bind(session, worker_id, version)
        self.closed = self.closed or update.closed

    def _learn(self, version: int, entries: list[Entry]) -> None:
        with self._lock:
            if self._view.update(version, [(e.worker_id, e.capacity, e.load) for e in entries]):
                self._entries = {e.worker_id: e for e in entries}
                self._execute = {e.worker_id: (e.actor.execute, e.incarnation, e.actor) for e in entries}
                self._last = list(self._execute.values()) or self._last

    def snapshot(self) -> Snapshot:
        """What a pickled handle carries: at most SNAPSHOT_SIZE workers."""
        with self._lock:
            rows = self._view.sample(SNAPSHOT_SIZE, random.random)
            return Snapshot(self._view.version, [self._entries[key] for key, _, _ in rows])

    def refresh(self, timeout: float) -> None:
        """Fetches the table now: for those who must see a change that they made themselves. Blocks."""
        deadline = time.monotonic() + timeout
        snapshot: Snapshot = (
            self.router.snapshot.remote().future().result(max(0.1, deadline - time.monotonic()))
        )
        self._learn(snapshot.version, snapshot.entries)

    def close(self) -> None:
        """This process is done with the pool."""
        self.closed = True
        self._news.set()


_links: dict[str, Link] = {}
_links_lock = threading.Lock()


def link_to(config: PoolConfig, router: Any, snapshot: Snapshot) -> Link:
    """This process's link to the pool whose router that is; made when there is none."""
    key = str(router._actor_id.hex())
    with _links_lock:
        link = _links.get(key)
        if link is None or link.closed:
            for old in [name for name, known in _links.items() if known.closed]:
                del _links[old]
            link = _links[key] = Link(config, router, snapshot)
        return link
