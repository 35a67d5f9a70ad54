"""What stays the same for a request as long as it runs: the life of its session, and the binding."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from snakepit_ray.core.state.asked import Fence
from snakepit_ray.errors import SessionNotFound, SessionWorkerLost
from snakepit_ray.wire.codec import Encoded
from snakepit_ray.wire.host_call import HostCall
from snakepit_ray.worker.session_pins import FEW, Origin, Pins


class World:
    def __init__(self) -> None:
        self.running: dict[str, Origin] = {}
        self.binding: int | None = 3
        self.pins = Pins("p", self.running.get, self._binding)

    async def _binding(self, session: str) -> int | None:
        await asyncio.sleep(0)
        return self.binding

    def of(self, request: str, session: str = "s") -> Any:
        call = HostCall("session.get", Encoded(b"{}", [], []), "w-0", request, session, None, "", "", None)
        return self.pins.of(call)


def test_a_request_keeps_what_it_has_met_and_its_next_attempt_does_not() -> None:
    async def body() -> None:
        world = World()
        world.running["r"] = Origin(1, is_strict=True)
        pin, same = await asyncio.gather(world.of("r"), world.of("r"))
        assert pin is same and pin.fence == Fence("p", 3)
        pin.generation, world.binding = 7, 9
        assert (await world.of("r")).generation == 7 and pin.fence == Fence("p", 3)
        world.running["r"] = Origin(2, is_strict=True)
        again = await world.of("r")
        assert (again.generation, again.fence) == (0, Fence("p", 9))

    asyncio.run(body())


def test_hints_have_no_fence_and_a_strict_session_that_has_moved_is_lost() -> None:
    async def body() -> None:
        world = World()
        world.running.update(hint=Origin(1, is_strict=False), strict=Origin(1, is_strict=True))
        world.binding = None
        assert (await world.of("hint")).fence is None
        with pytest.raises(SessionWorkerLost, match="moved"):
            await world.of("strict")
        with pytest.raises(SessionNotFound, match="session=id"):
            await world.of("hint", session="")

    asyncio.run(body())


def test_requests_that_have_ended_are_forgotten() -> None:
    async def body() -> None:
        world = World()
        for number in range(10 * FEW):
            world.running[f"r{number}"] = Origin(1, is_strict=False)
            (await world.of(f"r{number}")).generation = number + 1
            world.running.pop(f"r{number - 5}", None)
        assert len(world.pins._pins) <= FEW
        assert [(await world.of(name)).generation for name in world.running] == list(
            range(10 * FEW - 4, 10 * FEW + 1)
        )
        assert (await world.of("nobody's")).generation == 0

    asyncio.run(body())
