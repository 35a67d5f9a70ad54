"""What Ray cancels with a request, and what it leaves alone: what an actor asks on nobody's behalf."""

from __future__ import annotations

import asyncio

import pytest
import ray

from snakepit_ray.port import ray_port
from tests.conftest import wait_until

pytestmark = pytest.mark.ray


@ray.remote(num_cpus=0, max_concurrency=100)
class Asked:
    """Answers when it is told to, and knows what was cancelled."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.came: list[str] = []
        self.ended: list[str] = []

    async def wait(self, name: str) -> None:
        self.came.append(name)
        try:
            await self.go.wait()
            self.ended.append(f"{name} answered")
        except asyncio.CancelledError:
            self.ended.append(f"{name} cancelled")
            raise

    async def answer(self) -> None:
        self.go.set()

    async def told(self) -> tuple[list[str], list[str]]:
        return self.came, self.ended


@ray.remote(num_cpus=0, max_concurrency=100)
class Asking:
    def __init__(self, asked: object) -> None:
        self.asked = asked
        self.heard: list[str] = []

    async def request(self) -> None:
        """Asks in four ways: as a request asks, and as an actor does that has something else to say."""
        self.asked.wait.remote("forgotten")
        ray_port.unowned(self.asked.wait, "unowned")
        self.task = ray_port.unowned_task(self._task())
        try:
            await ray_port.owned(self.asked.wait.remote("owned"))
        except BaseException as error:
            self.heard.append(type(error).__name__)
            raise

    async def _task(self) -> None:
        await self.asked.wait.remote("in a task")
        self.heard.append("its task went on")

    async def told(self) -> list[str]:
        return self.heard


def test_a_cancelled_request_takes_along_what_was_asked_for_it_and_nothing_else(cluster: None) -> None:
    asked = Asked.remote()
    asking = Asking.remote(asked)
    ref = asking.request.remote()
    wait_until(lambda: len(ray.get(asked.told.remote())[0]) == 4, 20, "all four are asked")
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref)
    wait_until(lambda: len(ray.get(asked.told.remote())[1]) == 2, 20, "two are cancelled")
    assert set(ray.get(asked.told.remote())[1]) == {"forgotten cancelled", "owned cancelled"}
    assert ray.get(asking.told.remote()) == ["CancelledError"]
    ray.get(asked.answer.remote())
    wait_until(lambda: len(ray.get(asked.told.remote())[1]) == 4, 20, "the others are answered")
    assert set(ray.get(asked.told.remote())[1][2:]) == {"unowned answered", "in a task answered"}
    wait_until(lambda: "its task went on" in ray.get(asking.told.remote()), 20, "the task heard its answer")
    ray.kill(asking)
    ray.kill(asked)
