"""Which of a pool's workers may recycle now.

core/worker/recycling.py decides. A worker that asks for a permit waits here for a while. A hundred workers
that want one would otherwise be a thousand questions a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from snakepit_ray.core.worker.recycling import Permits
from snakepit_ray.process.awaiting import happens

PERMIT_SECONDS = 10.0


class PermitDesk:
    """Who may be recycling; `valid`: seconds after which a permit that never came back ends."""

    def __init__(self, valid: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._permits: Permits[str] = Permits(valid)
        self._freed = asyncio.Event()

    async def ask(self, worker_id: str, workers: int) -> bool:
        """Waits until `worker_id`, one of `workers`, may recycle, at most PERMIT_SECONDS; whether it may."""
        deadline = self._clock() + PERMIT_SECONDS
        while not self._permits.ask(worker_id, workers, now := self._clock()):
            if now >= deadline:
                return False
            await happens(self._freed, deadline - now)
        return True

    def give_back(self, worker_id: str) -> None:
        """It is done, or it is gone."""
        self._permits.give_back(worker_id)
        self._freed.set()
        self._freed = asyncio.Event()
