"""What a worker's side of the circuit breaker lets in, and what it tells the router; no Ray, no waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.circuit import Admit
from snakepit_ray.errors import (
    CircuitOpen,
    CommandError,
    DeadlineExceeded,
    PoolSaturated,
    SnakepitError,
    WorkerCrashed,
)
from snakepit_ray.wire.codec import BatchEnvelope, BatchPart
from snakepit_ray.worker.circuit import Gate

OPEN_SECONDS = 30.0


class Router:
    """What a gate asks and tells."""

    def __init__(self) -> None:
        self.answer = Admit(True, probe=True)
        self.asked = 0
        self.told: list[str] = []

    async def circuit_admit(self) -> Admit:
        self.asked += 1
        return self.answer

    def circuit_failed(self, probe: bool) -> None:
        self.told.append("the try failed" if probe else "failed")

    def circuit_succeeded(self) -> None:
        self.told.append("the try went well")


class Door:
    """A gate, its router, and the time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.router = Router()
        config = PoolConfig.build(name="p", size=1, circuit_breaker={"failures": 3})
        self.gate = Gate(config, "p-0", self.router, lambda: self.now)  # type: ignore[arg-type]

    async def passes(self, outcome: Any = None) -> Any:
        """One request that ends with `outcome`."""
        async with self.gate.passing() as passage:
            if isinstance(outcome, BaseException):
                raise outcome
            return passage.brings(outcome)


def run(body: Callable[[Door], Awaitable[None]]) -> None:
    async def main() -> None:
        await body(Door())

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (WorkerCrashed("it died"), ["failed"]),
        (DeadlineExceeded.after(1.0, "running", "c"), ["failed"]),
        (DeadlineExceeded.after(1.0, "waiting", "c"), []),
        (PoolSaturated("full"), []),
        (CommandError("its own"), []),
    ],
)
def test_only_failures_of_the_pool_are_told_and_a_closed_circuit_asks_nobody(
    error: SnakepitError, told: list[str]
) -> None:
    async def body(door: Door) -> None:
        assert await door.passes("a value") == "a value"
        with pytest.raises(type(error)):
            await door.passes(error)
        assert (door.router.told, door.router.asked) == (told, 0)

    run(body)


def test_an_item_of_a_batch_says_that_the_pool_failed() -> None:
    async def body(door: Door) -> None:
        fine = BatchPart(b"[1]", 1)
        await door.passes(BatchEnvelope([fine, BatchPart(b"[null]", 1, (), [(0, CommandError("own"))])]))
        assert door.router.told == []
        await door.passes(BatchEnvelope([fine, BatchPart(b"[null]", 1, (), [(0, WorkerCrashed("died"))])]))
        assert door.router.told == ["failed"]

    run(body)


def test_an_open_circuit_refuses_without_a_message_until_its_time_is_up() -> None:
    async def body(door: Door) -> None:
        door.gate.set(OPEN_SECONDS)
        door.now += OPEN_SECONDS - 0.5
        with pytest.raises(CircuitOpen, match="3 failed") as refused:
            await door.passes()
        assert refused.value.retry_after_s == pytest.approx(0.5)
        assert door.router.asked == 0
        door.now += 0.5
        await door.passes()
        assert (door.router.asked, door.router.told) == (1, ["the try went well"])
        door.router.answer = Admit(False, 7.0)
        with pytest.raises(CircuitOpen) as refused:
            await door.passes()
        assert refused.value.retry_after_s == 7.0
        door.gate.set(0.0)
        await door.passes()
        assert door.router.asked == 2

    run(body)


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (WorkerCrashed("it died"), ["the try failed"]),
        (CommandError("its own"), ["the try went well"]),
        (asyncio.CancelledError(), []),
    ],
)
def test_the_try_of_an_open_circuit_is_told_unless_it_was_cancelled(
    outcome: BaseException, told: list[str]
) -> None:
    async def body(door: Door) -> None:
        door.gate.set(OPEN_SECONDS)
        door.now += OPEN_SECONDS
        with pytest.raises(type(outcome)):
            await door.passes(outcome)
        assert door.router.told == told

    run(body)
