"""A pool's circuit breaker: core/pool/circuit.py decides, the workers are told."""

from __future__ import annotations

import time
from collections.abc import Callable

from snakepit_ray import telemetry
from snakepit_ray.config.pool_config import CircuitBreakerConfig
from snakepit_ray.core.pool.circuit import Admit, Breaker
from snakepit_ray.router.members import Members


class PoolCircuit:
    """The circuit of a pool; one without a breaker is always closed."""

    def __init__(
        self,
        config: CircuitBreakerConfig | None,
        members: Members,
        pool: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._pool = pool
        self._breaker = Breaker(config.failures, config.window, config.reset) if config else None
        self._members = members

    def failed(self, probe: bool) -> None:
        """A request failed by the pool's own fault."""
        if self._breaker is not None and self._breaker.failed(self._clock(), probe=probe):
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
        return Admit(True) if self._breaker is None else self._breaker.admit(self._clock())

    def _set(self, open_for: float) -> None:
        for member in self._members.alive():
            member.actor.set_circuit.remote(open_for)
