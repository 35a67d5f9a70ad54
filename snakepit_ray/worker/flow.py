"""One stream on its way over a lane: no more parts are sent than its caller has taken and AHEAD_PARTS.

- The next part is asked for when there is credit for it. So what a slow caller leaves gathers at the
  worker's own window, whose bound is the producer's.
- A part that is too large for a lane is kept until Ray fetches it. Nobody fetches those of a stream that was
  cancelled.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from snakepit_ray.wire import lane_parts
from snakepit_ray.wire.codec import Part
from snakepit_ray.wire.lane_parts import AHEAD_PARTS
from snakepit_ray.worker.present import Answered


class Keeps(Protocol):
    """Where parts wait that are too large for a lane."""

    def keep(self, name: str, answered: Answered) -> None:
        """Keeps one under a name that nothing else has."""

    def forget(self, name: str) -> None:
        """Nobody fetches that one any more."""


class Flow:
    """The parts of one stream. `write` sends a frame. `threshold`: bytes of the largest buffer that goes by a
    lane."""

    def __init__(self, request_id: str, write: Callable[[bytes], None], keeps: Keeps, threshold: int) -> None:
        self._request_id = request_id
        self._write = write
        self._keeps = keeps
        self._threshold = threshold
        self._credit = AHEAD_PARTS
        self._granted = asyncio.Event()
        self._numbers = itertools.count()
        # Those before the last few were fetched: their caller has taken parts that came after them.
        self._kept: deque[str] = deque(maxlen=4 * AHEAD_PARTS)

    def taken(self, parts: int) -> None:
        """The caller has taken so many parts more."""
        self._credit = min(AHEAD_PARTS, self._credit + parts)
        self._granted.set()

    async def run(self, parts: AsyncGenerator[Part]) -> None:
        """Sends the parts. Raises what ends them, after those before it."""
        try:
            async with aclosing(parts):
                await self._credited()
                async for part in parts:
                    self._send(part)
                    await self._credited()
        except asyncio.CancelledError:
            for name in self._kept:
                self._keeps.forget(name)
            raise

    async def _credited(self) -> None:
        while self._credit <= 0:
            self._granted.clear()
            await self._granted.wait()

    def _send(self, whole: Part) -> None:
        for part, fits in lane_parts.divided(whole, self._threshold):
            self._credit -= 1
            if fits:
                self._write(lane_parts.chunks(self._request_id, part))
                continue
            name = f"{self._request_id}#{next(self._numbers)}"
            self._kept.append(name)
            self._keeps.keep(name, (part, None))
            self._write(lane_parts.kept(self._request_id, name))
