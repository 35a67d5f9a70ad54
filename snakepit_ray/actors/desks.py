"""What a pool's workers agree on through its router: who may recycle now, and whether requests are let in.

- core/recycling.py and core/circuit.py decide.
- A worker that asks for a permit waits here for a while. A hundred workers that want one would otherwise be a
  thousand questions a second.
"""

from __future__ import annotations

import asyncio
import time

from snakepit_ray import telemetry
from snakepit_ray.actors.members import Members
from snakepit_ray.config.pool_config import CircuitBreakerConfig
from snakepit_ray.core.circuit import Admit, Breaker
from snakepit_ray.core.recycling import Permits
from snakepit_ray.process.awaiting import happens

PERMIT_SECONDS = 10.0


class PermitDesk:
    """Who may be recycling; `valid`: seconds after which a permit that never came back ends."""

    def __init__(self, valid: float) -> None:
        self._permits: Permits[str] = Permits(valid)
        self._freed = asyncio.Event()

    async def ask(self, worker_id: str, workers: int) -> bool:
        """Waits until `worker_id`, one of `workers`, may recycle, at most PERMIT_SECONDS; whether it may."""
        deadline = time.monotonic() + PERMIT_SECONDS
        while not self._permits.ask(worker_id, workers, now := time.monotonic()):
            if now >= deadline:
                return False
            await happens(self._freed, deadline - now)
        return True

    def give_back(self, worker_id: str) -> None:
        """It is done, or it is gone."""
        self._permits.give_back(worker_id)
        self._freed.set()
        self._freed = asyncio.Event()


class PoolCircuit:
    """The circuit of a pool; one without a breaker is always closed."""

    def __init__(self, config: CircuitBreakerConfig | None, members: Members, pool: str) -> None:
        self._pool = pool
        self._breaker = Breaker(config.failures, config.window, config.reset) if config else None
        self._members = members

    def failed(self, probe: bool) -> None:
        """A request failed by the pool's own fault."""
        if self._breaker is not None and self._breaker.failed(time.monotonic(), probe=probe):
            failed = {"failures": self._breaker.limit, "open_for": self._breaker.reset}
            telemetry.emit("pool.circuit_opened", failed, {"pool": self._pool})
            self._set(self._breaker.reset)

    def succeeded(self) -> None:
        """The request that tried an open circuit went well."""
        if self._breaker is not None and self._breaker.succeeded(probe=True):
            telemetry.emit("pool.circuit_closed", {}, {"pool": self._pool})
            self._set(0.0)

    def admit(self) -> Admit:
        """Whether a request may try now."""
        return Admit(True) if self._breaker is None else self._breaker.admit(time.monotonic())

    def _set(self, open_for: float) -> None:
        for member in self._members.present():
            member.actor.set_circuit.remote(open_for)
