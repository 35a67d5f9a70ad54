"""Knows every event that snakepit_ray tells of, and who listens.

Rules: an event that is not in EVENTS, or a key that is not the event's, is an error; an event that nobody
listens to costs one look into a dict; a handler that raises is detached, logged once, and never breaks what
it watched.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from snakepit_ray.errors import ConfigError, did_you_mean

Handler = Callable[[str, Mapping[str, float], Mapping[str, Any]], None]
log = logging.getLogger(__name__)

CUSTOM = "custom."  # what adapters emit themselves: any name, any keys


class Event(NamedTuple):
    """`measurements` are numbers and always all there; `metadata` says whose they are and may lack keys."""

    measurements: tuple[str, ...]
    metadata: tuple[str, ...]
    doc: str


def _event(measurements: str, metadata: str, doc: str) -> Event:
    return Event(tuple(measurements.split()), tuple(metadata.split()), doc)


# Names end in what a number is where it is not seconds or bytes: duration_us is microseconds, counts are
# plain.
EVENTS: dict[str, Event] = {
    "worker.initialized": _event(
        "initialization_time", "pool worker_id epoch pid node_id", "an interpreter is ready"
    ),
    "worker.start_failed": _event(
        "elapsed", "pool worker_id epoch node_id error", "an interpreter could not be started"
    ),
    "worker.request": _event(
        "duration", "result pool worker_id epoch command session", "a command ended in it"
    ),
    "worker.recycled": _event("uptime request_count", "reason pool worker_id epoch", "replaced on purpose"),
    "worker.crashed": _event(
        "uptime", "pool worker_id epoch exit_code signal", "an interpreter died by itself"
    ),
    "worker.restarted": _event("attempt delay", "pool worker_id epoch reason", "replaced after a failure"),
    "worker.quarantined": _event(
        "restarts window", "pool worker_id", "it failed too often and gets no more requests"
    ),
    "worker.health_check_failed": _event("", "error pool worker_id epoch", "it did not answer in time"),
    "worker.terminated": _event("uptime request_count", "reason pool worker_id epoch", "it ended for good"),
    "pool.ready": _event("workers duration", "pool failed", "start-up is over"),
    "pool.scaled": _event("old_size new_size", "pool", "its number of workers changed"),
    "pool.closed": _event("uptime", "pool reason", "it was shut down"),
    "pool.saturated": _event(
        "queue_size max_queue_size", "available_workers busy_workers pool worker_id", "a request was refused"
    ),
    "pool.capacity_reached": _event(
        "capacity load", "rejected pool worker_id", "all slots of a worker are taken"
    ),
    "pool.circuit_opened": _event("failures window", "pool", "the circuit breaker refuses requests"),
    "pool.circuit_closed": _event("open_for", "pool", "it lets them through again"),
    "queue.enqueued": _event("position", "pool worker_id command session", "a request waits"),
    "queue.dequeued": _event("waited", "pool worker_id command session", "a waiting request got a slot"),
    "queue.timeout": _event(
        "waited limit", "pool worker_id command session", "a waiting request ran out of queue_timeout"
    ),
    "queue.cancelled": _event("waited", "pool worker_id command session", "a waiting request was dropped"),
    "delegation.moved": _event(
        "waited", "pool from_worker to_worker command", "a waiting request moved to another worker"
    ),
    "delegation.failed": _event("", "pool from_worker to_worker command error", "the move did not work out"),
    "request.executed": _event(
        "duration_us", "command success pool session error", "a caller has its outcome"
    ),
    "request.retried": _event("attempt delay", "command pool error", "an idempotent request is sent again"),
    "request.cancelled": _event(
        "duration_us", "command pool started reason", "it was cancelled by its caller or deadline"
    ),
    "stream.started": _event("", "command pool worker_id session", "the first chunk was asked for"),
    "stream.ended": _event(
        "duration chunks", "command pool worker_id session result", "it ended, or was closed"
    ),
    "session.created": _event("ttl", "session", "a session was made"),
    "session.expired": _event("idle", "session", "it was unused for its ttl"),
    "session.deleted": _event("age", "session", "it was deleted"),
    "session.moved": _event(
        "duration", "session pool old_worker new_worker reason", "it has another interpreter, with its state"
    ),
    "session.lost": _event(
        "", "session pool worker_id reason", "its interpreter is gone, and the state in it"
    ),
    "session.variable_changed": _event(
        "version", "session variable type", "a variable was registered or set"
    ),
    "session.write_refused": _event(
        "", "session variable reason", "a constraint, a version or a stale epoch refused it"
    ),
    "affinity.assigned": _event("", "session pool worker_id", "a session was bound to a worker"),
    "affinity.broken": _event("", "session pool worker_id reason", "a binding ended"),
    "affinity.missed": _event(
        "", "session pool worker_id ran_on", "hint: it ran elsewhere because its worker was busy"
    ),
    "tool.registered": _event("", "tool pool session", "a tool can be called"),
    "tool.executed": _event(
        "duration_us", "tool pool session success error", "an interpreter called a host tool"
    ),
}


class Handle:
    """An attached handler; `detach` ends it (again: nothing). Also a context manager."""

    __slots__ = ("handler", "patterns")

    def __init__(self, patterns: tuple[str, ...], handler: Handler) -> None:
        self.patterns = patterns
        self.handler = handler

    def __repr__(self) -> str:
        return f"<telemetry.Handle {', '.join(self.patterns)} -> {self.handler!r}>"

    def matches(self, event: str) -> bool:
        return any(fnmatchcase(event, pattern) for pattern in self.patterns)

    def detach(self) -> None:
        _change(lambda handles: tuple(handle for handle in handles if handle is not self))

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


_lock = threading.Lock()
_handles: tuple[Handle, ...] = ()
_listeners: dict[str, tuple[Handle, ...]] = dict.fromkeys(EVENTS, ())  # replaced as a whole, never changed


def attach(pattern: str, handler: Handler) -> Handle:
    """Calls `handler(event, measurements, metadata)` for every event that `pattern` matches (`*` matches
    anything).

    It is called in the thread, often in the event loop, that emits: be quick. Raises ConfigError for a
    pattern that matches nothing in EVENTS.
    """
    return attach_many((pattern,), handler)


def attach_many(patterns: Iterable[str], handler: Handler) -> Handle:
    """As `attach`, for several patterns with one Handle; an event that several match is told once."""
    handle = Handle(tuple(patterns), handler)
    for pattern in handle.patterns:
        if not pattern.startswith(CUSTOM) and not any(fnmatchcase(event, pattern) for event in EVENTS):
            raise ConfigError(
                f"no telemetry event matches {pattern!r}{did_you_mean(pattern, EVENTS)}; "
                "see snakepit_ray.telemetry.EVENTS"
            )
    _change(lambda handles: (*handles, handle))
    return handle


def enabled(event: str) -> bool:
    """Whether anybody listens, so that a hot path need not gather what nobody hears. Raises ConfigError if
    unknown."""
    return bool(_listening(event))


def emit(
    event: str, measurements: Mapping[str, float] | None = None, metadata: Mapping[str, Any] | None = None
) -> None:
    """Tells whoever listens. Raises ConfigError for an event that is not in EVENTS and, where somebody
    listens, for keys that are not the event's."""
    handles = _listening(event)
    if not handles:
        return
    measurements, metadata = measurements or {}, metadata or {}
    if event in EVENTS:
        _check(event, measurements, metadata)
    for handle in handles:
        try:
            handle.handler(event, measurements, metadata)
        except Exception:  # a user's handler: whatever it raises
            handle.detach()
            log.warning(
                "telemetry handler %r raised for %s and was detached", handle.handler, event, exc_info=True
            )


def _listening(event: str) -> tuple[Handle, ...]:
    handles = _listeners.get(event)
    if handles is None:
        if not event.startswith(CUSTOM):
            raise ConfigError.unknown("telemetry event", [event], tuple(EVENTS))
        return tuple(handle for handle in _handles if handle.matches(event))
    return handles


def _check(event: str, measurements: Mapping[str, float], metadata: Mapping[str, Any]) -> None:
    expected = EVENTS[event]
    if set(measurements) != set(expected.measurements):
        raise ConfigError(
            f"{event}: got measurements {sorted(measurements)}, expected {sorted(expected.measurements)}"
        )
    unknown = metadata.keys() - set(expected.metadata)
    if unknown:
        raise ConfigError.unknown(f"{event} metadata key", unknown, expected.metadata)


def _change(change: Callable[[tuple[Handle, ...]], tuple[Handle, ...]]) -> None:
    global _handles, _listeners
    with _lock:
        _handles = change(_handles)
        _listeners = {
            event: tuple(handle for handle in _handles if handle.matches(event)) for event in EVENTS
        }
