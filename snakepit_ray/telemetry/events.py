"""Every event that snakepit_ray emits: its name, its numbers, and what it says beside them.

- A name, or a key that is not the event's, is an error where it is emitted.
- A number is in seconds or bytes where its name does not say otherwise: `duration_us` is microseconds, counts
  are plain.
- `items` counts calls and `failed` those of them that failed. A request has one item, a batch or a chunk of
  `pool.map` has many.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

CUSTOM = "custom."  # what adapters emit themselves: any name, any keys


class Event(NamedTuple):
    """`measurements` are numbers and always all there; `metadata` says whose they are and may lack keys."""

    measurements: tuple[str, ...]
    metadata: tuple[str, ...]
    doc: str


class Why(str, enum.Enum):
    """Why an interpreter, or its worker, ended."""

    CRASH_SIGNAL = "crash_signal"
    CRASH_EXIT = "crash_exit"
    HANG = "hang"
    CANCEL_GRACE = "cancel_grace"
    ACTOR_LOST = "actor_lost"
    RECYCLE_AGE = "recycle_age"
    RECYCLE_REQUESTS = "recycle_requests"
    RECYCLE_MEMORY = "recycle_memory"
    RECYCLE_MANUAL = "recycle_manual"
    RECYCLE_TERMINATED = "recycle_terminated"
    SHUTDOWN = "shutdown"


def _event(measurements: str, metadata: str, doc: str) -> Event:
    return Event(tuple(measurements.split()), tuple(metadata.split()), doc)


EVENTS: dict[str, Event] = {
    "worker.initialized": _event(
        "initialization_time", "pool worker_id epoch pid node_id", "an interpreter is ready"
    ),
    "worker.start_failed": _event(
        "elapsed", "pool worker_id epoch error", "an interpreter could not be started"
    ),
    "worker.request": _event(
        "duration items failed", "result pool worker_id epoch command session", "an interpreter has answered"
    ),
    "worker.recycled": _event("uptime request_count", "reason pool worker_id epoch", "replaced on purpose"),
    "worker.crashed": _event(
        "uptime lost",
        "reason pool worker_id epoch exit_code signal",
        "an interpreter was lost, and what ran in it",
    ),
    "worker.restarted": _event("attempt delay", "reason pool worker_id epoch", "replaced after a loss"),
    "worker.quarantined": _event(
        "restarts window", "pool worker_id epoch", "it failed too often and takes no requests for a while"
    ),
    "worker.health_check_failed": _event("", "error pool worker_id epoch", "it did not answer in time"),
    "worker.terminated": _event("uptime request_count", "reason pool worker_id epoch", "it ended for good"),
    "worker.lost": _event("", "reason pool worker_id", "a worker's actor died"),
    "pool.ready": _event("workers duration", "pool failed", "start-up is over"),
    "pool.scaled": _event("old_size new_size", "pool", "its number of workers changed"),
    "pool.closed": _event("uptime", "pool", "it was shut down"),
    "pool.saturated": _event(
        "queue_size max_queue_size",
        "pool worker_id available_workers busy_workers",
        "a request was refused: too many wait at its worker, and no other had room",
    ),
    "pool.capacity_reached": _event(
        "capacity load", "rejected pool worker_id", "a request found all slots of its worker taken"
    ),
    "pool.circuit_opened": _event("failures open_for", "pool", "the circuit breaker refuses requests"),
    "pool.circuit_closed": _event("", "pool", "it lets them through again"),
    "queue.enqueued": _event("position", "pool worker_id command session", "a request waits"),
    "queue.dequeued": _event("waited", "pool worker_id command session", "a waiting request got a slot"),
    "queue.timeout": _event(
        "waited limit", "pool worker_id command session", "a waiting request ran out of queue_timeout"
    ),
    "queue.cancelled": _event("waited", "pool worker_id command session", "a waiting request was dropped"),
    "delegation.moved": _event(
        "waited", "pool from_worker to_worker command", "a waiting request moved to another worker"
    ),
    "delegation.failed": _event(
        "", "pool from_worker to_worker command", "it was refused there and waits in its old place"
    ),
    "request.executed": _event(
        "duration_us items failed",
        "command success pool worker_id session error",
        "a request has its outcome; `success` where no item failed",
    ),
    "request.retried": _event(
        "attempt delay", "command pool worker_id error", "an idempotent request is sent again"
    ),
    "request.cancelled": _event(
        "duration_us items", "command pool worker_id session", "its caller cancelled it, or is gone"
    ),
    "stream.started": _event("", "command pool worker_id session", "a stream has entered an interpreter"),
    "stream.ended": _event(
        "duration chunks", "command pool worker_id session result", "it ended, or was closed"
    ),
    "tool.executed": _event(
        "duration_us",
        "tool where success pool worker_id session",
        "a command's call of a tool has its outcome; of a command of another pool, `where` is that pool",
    ),
    "session.lost": _event(
        "", "session pool worker_id reason", "its interpreter is gone, and the state in it"
    ),
    "session.not_moved": _event(
        "",
        "session pool worker_id epoch error",
        "its adapter could not take its state into the next interpreter",
    ),
    "affinity.assigned": _event("", "session pool worker_id", "a session was bound to a worker"),
    "affinity.broken": _event("", "session pool worker_id reason", "a binding ended"),
}
