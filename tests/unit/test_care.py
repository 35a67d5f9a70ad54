"""How an interpreter is looked after over hours, in virtual time; the interpreter is a fake."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit_ray.core.worker.recycling import Limits, Reason
from snakepit_ray.supervisor import care as module
from snakepit_ray.supervisor.care import Care
from snakepit_ray.supervisor.policy import CarePolicy
from tests import virtual_time
from tests.virtual_time import VirtualLoop

INTERVAL, SILENCE, HOUR = 4.0, 16.0, 3600.0


class Interpreter:
    """Answers health checks as it is told to."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.answers = True
        self.looks: list[float] = []  # when it was asked
        self.condemned_at: float | None = None
        self.ready_at, self.start_seconds, self.served = loop.time(), 0.25, 0
        lost, exited = loop.create_future(), loop.create_future()
        self.client: Any = SimpleNamespace(lost=lost, healthy=self._healthy, trim=None)
        self.child: Any = SimpleNamespace(exited=exited, pid=1)
        self.arena: Any = SimpleNamespace(rest=self._rest, resident=0)

    @property
    def gone(self) -> bool:
        return bool(self.child.exited.done())

    def condemn(self, reason: object, why: str) -> None:
        self.condemned_at = self.loop.time()
        self.child.exited.set_result(None)

    async def _healthy(self, seconds: float) -> bool:
        self.looks.append(self.loop.time())
        if not self.answers:
            await asyncio.sleep(seconds)
        return self.answers

    async def _rest(self, trim: object) -> None:
        """Nothing is held."""


class World:
    """A care and what it needs; its interpreter works on a command and gets `cpu` seconds a second."""

    def __init__(self, loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
        self.loop = loop
        self.interpreter = Interpreter(loop)
        self.recycled: list[tuple[float, Reason]] = []
        self.failed: list[str] = []
        self.cpu, self.works = 0.0, False
        monkeypatch.setattr(module.usage, "cpu_seconds", lambda pid: self.cpu * loop.time())
        keeper: Any = SimpleNamespace(overlap=True, recycle=self._recycle)
        serving: Any = SimpleNamespace(interpreter=self.interpreter)
        running: Any = SimpleNamespace(works=lambda interpreter, now: self.works)
        story: Any = SimpleNamespace(health_check_failed=self.failed.append)
        policy = CarePolicy(INTERVAL, SILENCE, Limits(**limits))
        self.care = Care(policy, keeper, serving, running, story, lambda: None, loop.time)
        self.care.begin(self.interpreter)  # type: ignore[arg-type]

    def _recycle(self, reason: Reason, *, early: bool = False) -> None:
        self.recycled.append((self.loop.time(), reason))


def run(body: Any, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
    async def main(loop: VirtualLoop) -> None:
        world = World(loop, monkeypatch, **limits)
        try:
            await body(world)
        finally:
            world.care.stop()

    virtual_time.run(main)


def test_one_that_answers_is_looked_at_every_interval_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(world: World) -> None:
        began = world.loop.time()
        await asyncio.sleep(HOUR + INTERVAL / 2)
        assert world.interpreter.looks == [began + INTERVAL * n for n in range(1, 901)]
        assert (world.interpreter.condemned_at, world.failed, world.recycled) == (None, [], [])

    run(body, monkeypatch)


def test_one_that_answers_nothing_is_looked_at_more_closely_and_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(world: World) -> None:
        await asyncio.sleep(10 * INTERVAL)
        silent_from = world.interpreter.looks[-1]
        world.interpreter.answers = False
        await world.interpreter.child.exited
        assert world.interpreter.condemned_at is not None
        silent = world.interpreter.condemned_at - silent_from
        assert SILENCE <= silent <= SILENCE + INTERVAL
        pauses = [b - a for a, b in zip(world.interpreter.looks, world.interpreter.looks[1:], strict=False)]
        assert max(pauses[-3:]) <= INTERVAL, "a check and its pause"
        assert "no answer" in world.failed[-1]

    run(body, monkeypatch)


@pytest.mark.parametrize(
    ("cpu", "works", "lives"), [(0.9, True, True), (0.0, True, False), (0.9, False, False)]
)
def test_a_deaf_one_lives_while_its_command_gets_processor_time(
    monkeypatch: pytest.MonkeyPatch, cpu: float, works: bool, lives: bool
) -> None:
    async def body(world: World) -> None:
        world.cpu, world.works = cpu, works
        world.interpreter.answers = False
        await asyncio.sleep(HOUR)
        assert (world.interpreter.condemned_at is None) == lives

    run(body, monkeypatch)


def test_one_that_is_too_old_is_replaced_in_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    ttl = HOUR + INTERVAL / 4

    async def body(world: World) -> None:
        await asyncio.sleep(HOUR)
        assert world.recycled == []
        await asyncio.sleep(INTERVAL / 2)
        assert world.recycled[0] == (world.interpreter.ready_at + ttl, Reason.TTL), "not at the next look"

    run(body, monkeypatch, ttl=ttl)


def test_a_look_that_fails_warns_once_and_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(world: World) -> None:
        async def no_descriptors(trim: object) -> None:
            raise OSError(24, "too many open files")

        world.interpreter.arena.rest = no_descriptors
        await asyncio.sleep(HOUR)
        assert (world.interpreter.condemned_at, world.recycled) == (None, [])
        assert len(world.interpreter.looks) > HOUR / (2 * INTERVAL), "it goes on looking"

    with caplog.at_level(logging.WARNING, "snakepit_ray.worker"):
        run(body, monkeypatch)
    assert len([one for one in caplog.records if "looking after" in one.getMessage()]) == 1
