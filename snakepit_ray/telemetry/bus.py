"""Events of this process reach their listeners here.

- An event that nobody listens to costs one look into a dict.
- A handler runs in a thread of its own, behind a bounded queue. A slow handler delays no request: what finds
  its queue full is dropped and counted in `Handle.dropped`.
- A handler that raises is detached and logged once.
- A Tap takes events without a handler: another process listens through it (client/listening.py).
- A forked child listens to nothing: its parent's threads are not in it.
"""

from __future__ import annotations

import collections
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

from snakepit_ray.errors import ConfigError, did_you_mean
from snakepit_ray.telemetry.events import CUSTOM, EVENTS

QUEUE_SIZE = 10_000  # events that wait for one handler
FLUSH_SECONDS = CONNECT_SECONDS = 5.0
Handler = Callable[[str, Mapping[str, float], Mapping[str, Any]], None]
log = logging.getLogger("snakepit_ray.telemetry")


class Occurrence(NamedTuple):
    """One event as it happened."""

    event: str
    measurements: Mapping[str, float]
    metadata: Mapping[str, Any]


class _Listener:
    """What Handle and Tap share: patterns, and a bounded queue."""

    def __init__(self, patterns: Iterable[str], queue_size: int) -> None:
        self.patterns = tuple(patterns)
        self.dropped = 0
        self._limit = queue_size
        self._queue: collections.deque[Occurrence] = collections.deque()
        self._changed = threading.Condition()

    def matches(self, event: str) -> bool:
        """Whether it wants that event."""
        return any(fnmatchcase(event, pattern) for pattern in self.patterns)

    def put(self, occurrence: Occurrence) -> None:
        """Queues an event, or drops and counts it where the queue is full."""
        with self._changed:
            if len(self._queue) >= self._limit:
                self.dropped += 1
                is_first = self.dropped == 1
            else:
                self._queue.append(occurrence)
                self._changed.notify_all()
                return
        if is_first:
            log.warning("%r does not keep up: events are dropped (Handle.dropped counts them)", self)

    def detach(self) -> None:
        """Ends it. What was queued is still handed over. Safe to repeat."""
        _change(lambda known: tuple(one for one in known if one is not self))
        with self._changed:
            self._changed.notify_all()


class Handle(_Listener):
    """An attached handler. As a context manager it is detached, and flushed, at the end of the block.

    `dropped` counts the events that found its queue full.
    """

    def __init__(self, patterns: Iterable[str], handler: Handler, queue_size: int) -> None:
        super().__init__(patterns, queue_size)
        self.handler = handler
        self._is_handling = False
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<telemetry.Handle {', '.join(self.patterns)} -> {self.handler!r}>"

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self.detach()
        self._handled(FLUSH_SECONDS)

    def put(self, occurrence: Occurrence) -> None:
        super().put(occurrence)
        if self._thread is None:
            self._begin()

    def connected(self, timeout: float = CONNECT_SECONDS) -> bool:
        """Waits until every worker that this process knows of tells it its events, at most `timeout` seconds;
        whether all do. Without it the events of the next 0.1 s or so may be missed."""
        far = _far
        return far is None or far.connected(timeout)

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Waits until the handler has had every event that has happened until now, in other processes, too,
        at most `timeout` seconds; whether it has. Called by the handler itself, it does not wait."""
        if threading.current_thread() is self._thread:
            return False
        deadline, far = time.monotonic() + timeout, _far
        is_here = far is None or far.fetch(timeout)
        return self._handled(max(0.0, deadline - time.monotonic())) and is_here

    def _handled(self, timeout: float) -> bool:
        if threading.current_thread() is self._thread:
            return False
        with self._changed:
            return self._changed.wait_for(lambda: not (self._queue or self._is_handling), timeout)

    def _begin(self) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="snakepit-telemetry", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (occurrence := self._next()) is not None:
            try:
                self.handler(*occurrence)
            except Exception:  # a user's handler: whatever it raises
                log.warning("%r raised for %s and was detached", self, occurrence.event, exc_info=True)
                self.detach()
                with self._changed:
                    self._queue.clear()

    def _next(self) -> Occurrence | None:
        with self._changed:
            self._is_handling = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._queue or self not in _listeners)
            if not self._queue:
                self._thread = None  # an event that an `emit` still has in its hand begins another
                return None
            self._is_handling = True
            return self._queue.popleft()


class Tap(_Listener):
    """Takes events for a listener in another process; `wake` is called, in any thread, with each of them."""

    def __init__(
        self, patterns: Iterable[str], wake: Callable[[], None], queue_size: int = QUEUE_SIZE
    ) -> None:
        super().__init__(patterns, queue_size)
        self._wake = wake
        _change(lambda known: (*known, self))

    def put(self, occurrence: Occurrence) -> None:
        super().put(occurrence)
        self._wake()

    @property
    def waiting(self) -> int:
        """Events that `take` would return now."""
        return len(self._queue)

    def listen_to(self, patterns: Iterable[str]) -> None:
        """Other patterns from now on; what has come already stays."""
        wanted = tuple(patterns)
        if wanted != self.patterns:
            self.patterns = wanted
            _change(lambda known: known)

    def take(self) -> tuple[list[Occurrence], int]:
        """What has come since the last time, and how many events were dropped since then."""
        with self._changed:
            taken, dropped = list(self._queue), self.dropped
            self._queue.clear()
            self.dropped = 0
        return taken, dropped


_lock = threading.Lock()
_listeners: tuple[_Listener, ...] = ()
# Who hears each event of EVENTS. A hot path looks here before it gathers what nobody hears. Each value is
# replaced as a whole, so `emit` reads it without the lock.
listening: dict[str, tuple[_Listener, ...]] = dict.fromkeys(EVENTS, ())
_far: Far | None = None


def attach(pattern: str, handler: Handler, *, queue_size: int = QUEUE_SIZE) -> Handle:
    """Calls `handler(event, measurements, metadata)` for every event that `pattern` matches.

    Args:
        pattern: a name of EVENTS, where `*` matches anything; `custom.*` are the events of adapters.
        handler: runs in a thread of its own. A handler that raises is detached.
        queue_size: events that may wait for it; more are dropped and counted in `Handle.dropped`.

    Raises ConfigError for a pattern that matches nothing in EVENTS.
    """
    return attach_many((pattern,), handler, queue_size=queue_size)


def attach_many(patterns: Iterable[str], handler: Handler, *, queue_size: int = QUEUE_SIZE) -> Handle:
    """As `attach`, for several patterns with one Handle; an event that several match is told once."""
    if not callable(handler):
        raise ConfigError(f"a telemetry handler is called with each event; got {handler!r}")
    if isinstance(queue_size, bool) or not isinstance(queue_size, int) or queue_size < 1:
        raise ConfigError(f"queue_size is a number of events, at least 1; got {queue_size!r}")
    handle = Handle(patterns, handler, queue_size)
    for pattern in handle.patterns:
        _check_pattern(pattern)
    _change(lambda known: (*known, handle))
    return handle


def _check_pattern(pattern: object) -> None:
    if not isinstance(pattern, str):
        raise ConfigError(f"a telemetry pattern is a string such as 'worker.*'; got {pattern!r}")
    if not pattern.startswith(CUSTOM) and not any(fnmatchcase(event, pattern) for event in EVENTS):
        raise ConfigError(
            f"no telemetry event matches {pattern!r}{did_you_mean(pattern, EVENTS)}; "
            "see snakepit_ray.telemetry.EVENTS"
        )


def enabled(event: str) -> bool:
    """Whether anybody listens, so that a hot path need not gather what nobody hears. Raises ConfigError if
    unknown."""
    return bool(_listening(event))


def emit(
    event: str, measurements: Mapping[str, float] | None = None, metadata: Mapping[str, Any] | None = None
) -> None:
    """Tells whoever listens. Raises ConfigError for an event that is not in EVENTS and, where somebody
    listens, for keys that are not the event's."""
    listeners = _listening(event)
    if not listeners:
        return
    occurrence = Occurrence(event, measurements or {}, metadata or {})
    if event in EVENTS:
        _check(occurrence)
    for listener in listeners:
        listener.put(occurrence)


def deliver(occurrences: Iterable[Occurrence]) -> None:
    """Tells this process's handlers of events that happened in another one; no Tap hears them again."""
    for occurrence in occurrences:
        for listener in _listening(occurrence.event):
            if isinstance(listener, Handle):
                listener.put(occurrence)


class Far(Protocol):
    """Who brings this process the events of others."""

    def changed(self) -> None:
        """`patterns()` may be another; called in the thread that attaches or detaches."""

    def connected(self, timeout: float) -> bool:
        """Waits until the others know what this process wants to hear; whether they do."""

    def fetch(self, timeout: float) -> bool:
        """Brings what has happened until now; whether all of it is here."""


def listen_far(far: Far) -> None:
    """From now on `far` brings the events of other processes."""
    global _far
    with _lock:
        _far = far


def patterns() -> tuple[str, ...]:
    """What the handlers of this process want to hear."""
    handles = (one for one in _listeners if isinstance(one, Handle))
    return tuple(sorted({pattern for handle in handles for pattern in handle.patterns}))


def _listening(event: str) -> tuple[_Listener, ...]:
    listeners = listening.get(event)
    if listeners is None:
        if not event.startswith(CUSTOM):
            raise ConfigError.unknown("telemetry event", [event], tuple(EVENTS))
        return tuple(one for one in _listeners if one.matches(event))
    return listeners


def _check(occurrence: Occurrence) -> None:
    event, measurements, metadata = occurrence
    expected = EVENTS[event]
    if set(measurements) != set(expected.measurements):
        raise ConfigError(
            f"{event}: got measurements {sorted(measurements)}, expected {sorted(expected.measurements)}"
        )
    unknown = metadata.keys() - set(expected.metadata)
    if unknown:
        raise ConfigError.unknown(f"{event} metadata key", unknown, expected.metadata)


def _change(change: Callable[[tuple[_Listener, ...]], tuple[_Listener, ...]]) -> None:
    global _listeners
    with _lock:
        _listeners = change(_listeners)
        listening.update({event: tuple(one for one in _listeners if one.matches(event)) for event in EVENTS})
        far = _far
    if far is not None:
        far.changed()


def _forget_in_a_forked_child() -> None:
    global _lock, _listeners, _far
    _lock = threading.Lock()
    _listeners, _far = (), None
    listening.update(dict.fromkeys(EVENTS, ()))


os.register_at_fork(after_in_child=_forget_in_a_forked_child)
