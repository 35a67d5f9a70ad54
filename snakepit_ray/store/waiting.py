"""What waits for the store in its own process: messages for their answers, watchers for changes."""

from __future__ import annotations

import asyncio
from typing import Any


class Message:
    """Questions that came together, and are answered together."""

    def __init__(self, count: int) -> None:
        self.whole: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._answers: list[Any] = [None] * count
        self._left = count

    def answer(self, index: int, value: Any) -> None:
        """One of the answers."""
        self._answers[index] = value
        self._left -= 1
        if not self._left and not self.whole.done():
            self.whole.set_result(self._answers)


class Watcher:
    """One watch that waits. A timer and a future cost half of what waiting for an event does: there may be a
    thousand watchers, and most of them hear nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_woken = False
        self._loop = loop
        self._waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """The session has changed, or has ended."""
        self.is_woken = True
        self._end()

    async def wait(self, seconds: float) -> bool:
        """Whether it was woken within so many seconds, or since `is_woken` was taken back."""
        if not self.is_woken and seconds > 0:
            self._waiting = self._loop.create_future()
            timer = self._loop.call_later(seconds, self._end)
            try:
                await self._waiting
            finally:
                timer.cancel()
        return self.is_woken

    def _end(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
