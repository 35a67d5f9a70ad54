"""What actors and handles say to each other: small values, importable by name (a class of `__main__` would be
pickled by value on every call)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from snakepit_ray.core.routing.reporting import Pace
from snakepit_ray.core.tools.table import WholeTable
from snakepit_ray.wire.lane import Lane


class WorkerFacts(NamedTuple):
    """What a worker says of itself. Times are seconds since 1970; `pid` is the interpreter's, 0 when there is
    none. `rss_bytes` is the memory of the interpreter and its children, as worker_max_memory counts it.
    `node_name` is Ray's name of the node, `error` why the worker does not serve: the router adds both."""

    worker_id: str
    node_id: str
    pid: int
    actor_pid: int
    epoch: tuple[int, int]
    state: str
    capacity: int
    running: int
    waiting: int
    requests: int
    errors: int
    cancelled: int
    queue_timeouts: int
    saturated: int
    recycled: int
    restarts: int
    delegated: int
    by_lane: int
    rss_bytes: int
    started_at: float
    timeouts: tuple[tuple[str, float], ...] = ()  # seconds, of commands that declare one
    present: int = 0  # calls that it serves, also those whose requests another worker runs
    counts_from: int = 0  # the incarnation that began to count: those after it on this node go on
    node_name: str = ""
    error: str = ""
    lane: Lane | None = None  # for handles and workers alone: it has a secret


class Owned(NamedTuple):
    """A session as its worker knows it: what a router that was restarted learns its bindings from. `life`:
    the incarnation that its state is in."""

    session: str
    version: int
    strict: bool
    life: int


class PoolMemory(NamedTuple):
    """What only the router knows and a restart of it would forget: every worker keeps the newest copy."""

    order: int = 0  # rises with every change, over restarts too
    size: int = 0
    next_number: int = 0  # of the next worker's name
    left: dict[str, int] = {}  # counters of workers that left  # noqa: RUF012 - never changed in place


class Hello(NamedTuple):
    """What a worker says when it begins to hold on to a router."""

    facts: WorkerFacts
    memory: PoolMemory
    sessions: list[Owned]
    tools: WholeTable = WholeTable()


class Entry(NamedTuple):
    """One worker in the table that handles hold; `load` is running + waiting when the table was made."""

    worker_id: str
    actor: Any
    capacity: int
    load: int
    incarnation: int
    timeouts: tuple[tuple[str, float], ...] = ()  # seconds, of commands that declare one
    lane: Lane | None = None


class WorkerCounts(NamedTuple):
    """How many workers a pool is to have, and how many of them are quarantined or could not start (both are
    tried again). The others are ready, or start."""

    wanted: int = 0
    quarantined: int = 0
    failed: int = 0


class Update(NamedTuple):
    """What changed since a watcher's last poll; None where nothing did. `bindings` are (session, worker,
    version)."""

    version: int
    load_version: int
    binding_version: int
    entries: list[Entry] | None
    loads: dict[str, int] | None
    bindings: list[tuple[str, str, int]]
    closed: bool
    counts: WorkerCounts


class Snapshot(NamedTuple):
    """What a pickled handle carries: enough to begin with."""

    version: int
    entries: list[Entry]
    counts: WorkerCounts = WorkerCounts()


class Claimed(NamedTuple):
    """The router's answer to a claim: who owns the session now, its actor and its lane when that is another
    worker, and the incarnation of the owner that the session's state is in (0: none)."""

    owner: str
    actor: Any
    version: int
    life: int = 0
    lane: Lane | None = None


class MoveOrder(NamedTuple):
    """Send up to `requests` waiting requests to `target`."""

    target: str
    actor: Any
    requests: int
    lane: Lane | None = None  # of the target


class Room(NamedTuple):
    """What a worker whose queue is full is told: where to send one request, None where nobody else is. And
    how many workers of the pool have a free slot, and how many have work."""

    order: MoveOrder | None
    available: int
    busy: int


class ReportAnswer(NamedTuple):
    """`pace`: how soon to report again, None where the report did not count; `moves`: what to delegate now;
    `generation`: of the router, so that an answer of one that was replaced is known."""

    pace: Pace | None
    moves: list[MoveOrder]
    generation: int


class Delegated(NamedTuple):
    """The answer to a delegated request, for the caller of the worker that sent it: its value, or the
    SnakepitError that it ended with; `free`: the slot is free again."""

    value: Any
    free: bool


class Refused(NamedTuple):
    """A worker's answer to a request that was delegated to it and that it has no free slot for."""

    worker_id: str


class StartCounts(NamedTuple):
    """Numbers of workers: ready, failed so far, wanted."""

    ready: int
    failed: int
    wanted: int


# What a worker counts, and a pool adds up.
COUNTED = (
    "requests",
    "errors",
    "cancelled",
    "queue_timeouts",
    "saturated",
    "recycled",
    "restarts",
    "delegated",
    "by_lane",
)


@dataclass(frozen=True)
class PoolStats:
    """A pool's numbers. `busy` and `available` count workers; `sessions` those that are bound.

    `requests` are those that have their outcome: a value, one of the `errors`, or `cancelled`. A batch counts
    each of its items. `by_lane` are calls that came to their worker over a lane: the others came by Ray."""

    workers: int
    available: int
    busy: int
    waiting: int
    requests: int
    errors: int
    cancelled: int
    queue_timeouts: int
    saturated: int
    recycled: int
    restarts: int
    delegated: int
    by_lane: int
    sessions: int

    def to_original(self) -> dict[str, int]:
        """The numbers under the names that the original library gave them."""
        return {
            "workers": self.workers,
            "available": self.available,
            "busy": self.busy,
            "requests": self.requests,
            "queued": self.waiting,
            "errors": self.errors,
            "queue_timeouts": self.queue_timeouts,
            "pool_saturated": self.saturated,
        }
