"""Listeners of other processes hear the events of this actor's process.

A listener asks `next` again and again. Its patterns travel with each question, so per-request events are
gathered only while somebody asks. A listener that does not ask for SILENT_SECONDS is gone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from snakepit_ray.telemetry import Occurrence, Tap

GATHER_SECONDS = 0.05  # events that come soon after the first travel with it
SILENT_SECONDS = 10.0


class Told(NamedTuple):
    """Events as they happened, and how many were dropped before them because the listener was too slow."""

    occurrences: list[Occurrence]
    dropped: int


class Listeners:
    """The listeners of one actor. Belongs to the running event loop."""

    def __init__(self) -> None:
        self._taps: dict[str, _FarTap] = {}

    def __len__(self) -> int:
        return len(self._taps)

    async def next(self, listener: str, patterns: Sequence[str], timeout: float) -> Told:
        """The events that `patterns` match since the last time.

        Waits for the first at most `timeout` seconds. A newer question of the same listener ends an older
        one, which gets none.
        """
        tap = self._taps.get(listener)
        if tap is None:
            tap = self._taps[listener] = _FarTap(patterns)
        tap.listen_to(patterns)
        told = await tap.next(timeout)
        tap.expire_in(SILENT_SECONDS, lambda: self._forget(listener))
        return told

    def _forget(self, listener: str) -> None:
        self._taps.pop(listener).close()


class _FarTap:
    """One listener's tap, and the question that waits for its events."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._question: asyncio.Future[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._tap = Tap(patterns, self._wake)

    def listen_to(self, patterns: Sequence[str]) -> None:
        """What it hears from now on; what has come already stays."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._tap.listen_to(patterns)

    async def next(self, timeout: float) -> Told:
        """The events since the last time. An older question gets none."""
        self._answer()
        question = self._question = self._loop.create_future()
        if not self._tap.waiting:
            await asyncio.wait([question], timeout=timeout)
        if question is self._question and self._tap.waiting and timeout:
            await asyncio.sleep(GATHER_SECONDS)
        return Told(*self._tap.take()) if question is self._question else Told([], 0)

    def _wake(self) -> None:
        """In any thread: there is an event."""
        if threading.get_ident() == self._thread:
            self._answer()
        else:
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        if self._question is not None and not self._question.done():
            self._question.set_result(None)

    def expire_in(self, seconds: float, then: Callable[[], None]) -> None:
        """Calls `then` unless it is asked again."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self._loop.call_later(seconds, then)

    def close(self) -> None:
        """Hears nothing any more."""
        self._tap.detach()
