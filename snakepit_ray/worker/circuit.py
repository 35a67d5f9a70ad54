"""Whether this worker lets requests in: its side of the pool's circuit breaker.

- A pool without a breaker never comes here.
- A closed circuit costs no message. Failures are reported to the router, which counts for the whole pool.
- An open circuit refuses requests at once. After its time the router names the one request that tries.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.circuit import Admit
from snakepit_ray.errors import (
    CircuitOpen,
    DeadlineExceeded,
    SessionWorkerLost,
    SnakepitError,
    WorkerFault,
)
from snakepit_ray.wire.codec import BatchEnvelope
from snakepit_ray.worker.pool_link import PoolLink

CLOSED = float("-inf")
T = TypeVar("T")


class Passage:
    """One request on its way through."""

    def __init__(self) -> None:
        self.failed = False

    def brings(self, answer: T) -> T:
        """What it ended with: of a batch, an item may say that the pool has failed."""
        if isinstance(answer, BatchEnvelope):
            errors = (error for part in answer.parts for _, error in part.failures)
            self.failed = any(isinstance(error, SnakepitError) and counts(error) for error in errors)
        return answer


class Gate:
    """One worker's gate. `set` follows the router's word."""

    def __init__(
        self,
        config: PoolConfig,
        worker_id: str,
        pool_link: PoolLink,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.idle = config.circuit_breaker is None
        self._breaker = config.circuit_breaker
        self._pool = config.name
        self._worker_id = worker_id
        self._pool_link = pool_link
        self._open_until = CLOSED  # after it, somebody must try

    def set(self, open_for: float) -> None:
        """The circuit is open for so many seconds, 0: closed."""
        self._open_until = self._clock() + open_for if open_for else CLOSED

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[Passage]:
        """Around a request. Raises CircuitOpen."""
        probe = (await self._admitted()).probe if self._open_until != CLOSED else False
        passage = Passage()
        try:
            yield passage
        except asyncio.CancelledError:
            raise  # says nothing of the pool; a probe that was cancelled is given up after `reset`
        except SnakepitError as error:
            if counts(error):
                self._pool_link.circuit_failed(probe)
            elif probe:
                self._pool_link.circuit_succeeded()
            raise
        if passage.failed:
            self._pool_link.circuit_failed(probe)
        elif probe:
            self._pool_link.circuit_succeeded()

    async def _admitted(self) -> Admit:
        left = self._open_until - self._clock()
        admit = Admit(False, left) if left > 0 else await self._pool_link.circuit_admit()
        if not admit.allowed:
            assert self._breaker is not None
            failures, window = self._breaker.failures, self._breaker.window
            raise CircuitOpen.opened(self._pool, failures, window, admit.retry_after)
        return admit


def counts(error: SnakepitError) -> bool:
    """Whether an error is a failure of the pool: not the command's own, not the caller's, not a full
    queue."""
    running_late = isinstance(error, DeadlineExceeded) and error.where == "running"
    fault = isinstance(error, WorkerFault) and not isinstance(error, SessionWorkerLost)
    return running_late or fault
