"""This process hears the events of the pools that it has handles of.

- A thread of its own asks every worker and every router, each with one question at a time that waits for
  events there (`port/listeners.py`). While no handler is attached it asks nobody.
- A worker that dies is asked no more when it has left the table; until then it is asked again.
- Events reach the handlers through `telemetry.deliver`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from snakepit_ray import telemetry
from snakepit_ray.port import ray_port

QUESTION_SECONDS = 5.0  # that a question waits for events
STOP_SECONDS = 5.0
AGAIN_SECONDS = 0.5  # after one that failed
log = logging.getLogger("snakepit_ray.telemetry")


class EventSource(Protocol):
    """A pool as this process sees it."""

    closed: bool

    def is_current(self) -> bool:
        """Whether the Ray session that it belongs to goes on."""

    def speakers(self) -> Iterable[tuple[str, Any]]:
        """The actors that have events, each under a name of its own."""


class Listening:
    """What one process listens to."""

    def __init__(self) -> None:
        self._sources: list[EventSource] = []
        self._asking: dict[str, _Asking] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """Actors that are asked now."""
        return len(self._asking)

    def stop(self) -> None:
        """Asks nobody any more."""
        loop, self._loop = self._loop, None
        self._sources = []
        if loop is not None:
            asyncio.run_coroutine_threadsafe(self._end(), loop).result(STOP_SECONDS)
            loop.call_soon_threadsafe(loop.stop)

    async def _end(self) -> None:
        self._reconcile()

    def follow(self, source: EventSource) -> None:
        """Listens to that pool, too, until it is closed."""
        with self._lock:
            self._sources = [*filter(_goes_on, self._sources), source]
        self.changed()

    def changed(self) -> None:
        """The handlers' patterns may be others, or a pool's table."""
        if self._loop is not None or telemetry.patterns():
            self._on_the_loop(self._reconcile)

    def connected(self, timeout: float) -> bool:
        """Waits until every worker knows what this process wants to hear; whether all do."""
        return self._done_within(timeout, self._all_connected)

    def _done_within(self, timeout: float, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        if self._loop is None:
            return True
        if threading.current_thread().name == THREAD:
            return False
        done = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            done.result(timeout)
        except (TimeoutError, concurrent.futures.TimeoutError):
            done.cancel()
            return False
        return True

    def fetch(self, timeout: float) -> bool:
        """Brings what has happened until now in every actor that answers within `timeout` seconds; whether
        all did."""
        return self._done_within(timeout, self._all_fetched)

    async def _all_connected(self) -> None:
        self._reconcile()
        await asyncio.gather(*(asking.knows(telemetry.patterns()) for asking in self._asking.values()))

    async def _all_fetched(self) -> None:
        await asyncio.gather(*(asking.fetch() for asking in self._asking.values()))

    def _on_the_loop(self, call: Callable[[], None]) -> None:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=THREAD, daemon=True).start()
        self._loop.call_soon_threadsafe(call)

    def _reconcile(self) -> None:
        patterns = telemetry.patterns()
        self._sources = [*filter(_goes_on, self._sources)]
        speakers = dict(pair for source in self._sources for pair in source.speakers()) if patterns else {}
        for name in self._asking.keys() - speakers.keys():
            self._asking.pop(name).stop()
        for name in speakers.keys() - self._asking.keys():
            self._asking[name] = _Asking(name, speakers[name])
        for asking in self._asking.values():
            asking.want(patterns)


class _Asking:
    """Asks one actor for its events, again and again."""

    def __init__(self, name: str, actor: Any) -> None:
        self._name = name
        self._actor = actor
        self._id = secrets.token_hex(8)
        self._patterns: tuple[str, ...] = ()
        self._known: tuple[str, ...] = ()
        self._asked = self._answered = 0  # numbers of questions
        self._learnt = asyncio.Event()
        self._is_gone = False  # it has nothing more to tell
        self._task = asyncio.ensure_future(self._run())
        self._telling: asyncio.Task[None] | None = None

    def want(self, patterns: tuple[str, ...]) -> None:
        """These are the patterns from now on."""
        if patterns == self._patterns:
            return
        first, self._patterns = not self._patterns, patterns
        if not first and not self._is_gone:  # the question that waits there ends with this one
            self._telling = asyncio.ensure_future(self.fetch())

    async def knows(self, patterns: tuple[str, ...]) -> None:
        """Waits until the actor gathers events for these patterns, or is gone."""
        while self._known != patterns and not self._is_gone:
            await self._learnt.wait()

    async def fetch(self) -> None:
        """Brings what has happened there until now, if the actor answers."""
        with contextlib.suppress(ray_port.RayError):
            await self._ask(0.0)

    def stop(self) -> None:
        """Asks no more: the actor forgets this process by itself."""
        self._is_gone = True
        for task in (self._task, self._telling):
            if task is not None:
                task.cancel()
        self._learnt.set()

    async def _run(self) -> None:
        timeout = 0.0
        while True:
            try:
                await self._ask(timeout)
                timeout = QUESTION_SECONDS
            except ray_port.ActorDied:  # for good: a pool that somebody else has ended, or a worker that left
                self._is_gone = True
                self._learnt.set()
                return
            except ray_port.RayError as error:
                log.debug("%s does not tell its events: %s", self._name, error)
                timeout, self._known = 0.0, ()
                await asyncio.sleep(AGAIN_SECONDS)

    async def _ask(self, timeout: float) -> None:
        patterns = self._patterns
        number = self._asked = self._asked + 1
        told = await self._actor.events.remote(self._id, patterns, timeout)
        if number > self._answered:  # an older question may be answered after a newer one
            self._answered, self._known = number, patterns
        self._learnt.set()
        self._learnt = asyncio.Event()
        if told.dropped:
            log.warning(
                "%d events of %s were dropped: this process does not keep up", told.dropped, self._name
            )
        telemetry.deliver(told.occurrences)


def _goes_on(source: EventSource) -> bool:
    return not source.closed and source.is_current()


THREAD = "snakepit-telemetry-in"
_listening: Listening | None = None


def follow(source: EventSource) -> None:
    """Handlers that are attached in this process hear that pool's events, until it is closed."""
    global _listening
    if _listening is None:
        _listening = Listening()
        telemetry.listen_far(_listening)
    _listening.follow(source)


def table_changed() -> None:
    """A pool has other workers than before."""
    if _listening is not None:
        _listening.changed()
