"""An event loop whose time is a number: it goes on to the next timer when there is nothing else to do.

A wait of an hour costs nothing, and no busy machine makes one longer. It is for code that waits for events
and timers only: no thread, process or socket is waited for. What looks at a clock is given `loop.time`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at 1000 seconds, so that nothing takes 0 for a time. A test waits for multiples of 1/1024: those
    add up exactly, and no wait is left that is too short to be added to the time."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        loop: Any = self
        if not loop._ready:
            timers = [timer.when() for timer in loop._scheduled if not timer.cancelled()]
            assert timers, "it would wait for ever"
            self.now = max(self.now, min(timers))
        super()._run_once()  # type: ignore[misc] # asyncio's own step, in every version from 3.10 to 3.13


def run(body: Callable[[VirtualLoop], Coroutine[Any, Any, None]], seconds: float = 100_000.0) -> None:
    """Runs a test on such a loop, for at most so many of its seconds."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(asyncio.wait_for(body(loop), seconds))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
