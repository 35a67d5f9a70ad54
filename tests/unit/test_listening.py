"""This process asks the actors of its pools for their events while, and only while, somebody listens here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from snakepit_ray import telemetry
from snakepit_ray.client import listening as module
from snakepit_ray.client.listening import Listening
from snakepit_ray.port import ray_port
from snakepit_ray.port.listeners import Told
from snakepit_ray.telemetry import Occurrence, bus
from tests.conftest import wait_until

STARTED = Occurrence("stream.started", {}, {"pool": "far"})


class Actor:
    """Has events when it is told to; `asked` are the patterns of each question."""

    def __init__(self) -> None:
        self.events = self
        self.asked: list[tuple[str, ...]] = []
        self.waiting: list[asyncio.Future[Told]] = []

    async def remote(self, listener: str, patterns: tuple[str, ...], timeout: float) -> Told:
        self.asked.append(patterns)
        for question in self.waiting:
            if not question.done():
                question.set_result(Told([], 0))
        if not timeout:
            return Told([], 0)
        self.loop = asyncio.get_running_loop()
        self.waiting.append(self.loop.create_future())
        return await self.waiting[-1]

    def tell(self, *occurrences: Occurrence) -> None:
        wait_until(lambda: any(not question.done() for question in self.waiting), 20, "a question waits")
        question = next(one for one in self.waiting if not one.done())
        self.loop.call_soon_threadsafe(question.set_result, Told(list(occurrences), 0))


class Pool:
    def __init__(self, *actors: Actor) -> None:
        self.closed = False
        self.actors = list(actors)

    def is_current(self) -> bool:
        return True

    def speakers(self) -> list[tuple[str, Any]]:
        return [(str(id(actor)), actor) for actor in self.actors]


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    one = Listening()
    monkeypatch.setattr(bus, "_far", one)
    yield one
    for listener in bus._listeners:
        listener.detach()
    one.stop()


def test_nobody_is_asked_while_nobody_listens(listening: Listening) -> None:
    actor = Actor()
    before = threading.enumerate()
    listening.follow(Pool(actor))
    assert actor.asked == []
    assert set(threading.enumerate()) <= set(before)


def test_a_handler_hears_the_events_of_every_actor_of_every_pool(listening: Listening) -> None:
    actors = [Actor() for _ in range(3)]
    listening.follow(Pool(actors[0], actors[1]))
    told: list[Any] = []
    handle = telemetry.attach("stream.*", lambda *event: told.append(event))
    listening.follow(Pool(actors[2]))
    assert handle.connected(20)
    for actor in actors:
        actor.tell(STARTED)
    wait_until(lambda: len(told) == 3, 20, "three events")
    assert {patterns for actor in actors for patterns in actor.asked} == {("stream.*",)}


def test_another_pattern_is_told_at_once(listening: Listening) -> None:
    actor = Actor()
    listening.follow(Pool(actor))
    telemetry.attach("stream.*", print).connected(20)
    wait_until(lambda: actor.waiting, 20, "a question waits")
    with telemetry.attach("pool.*", print) as handle:
        assert handle.connected(20)
        assert ("pool.*", "stream.*") in actor.asked


def test_a_worker_that_joins_is_asked_and_one_that_left_is_not(listening: Listening) -> None:
    first, second = Actor(), Actor()
    pool = Pool(first)
    listening.follow(pool)
    handle = telemetry.attach("stream.*", print)
    assert handle.connected(20)
    pool.actors = [second]
    listening.changed()
    assert handle.connected(20)
    assert second.asked
    wait_until(lambda: len(listening) == 1, 20, "only the second is asked")


def test_a_pool_that_is_closed_is_forgotten(listening: Listening) -> None:
    pool = Pool(Actor())
    listening.follow(pool)
    handle = telemetry.attach("stream.*", print)
    assert handle.connected(20)
    pool.closed = True
    listening.changed()
    wait_until(lambda: len(listening) == 0, 20, "nobody is asked")


def test_who_does_not_answer_is_waited_for_only_so_long(listening: Listening) -> None:
    class Silent(Actor):
        async def remote(self, listener: str, patterns: tuple[str, ...], timeout: float) -> Told:
            await asyncio.sleep(3600)
            raise AssertionError

    listening.follow(Pool(Silent()))
    assert not telemetry.attach("stream.*", print).connected(0.05)


def test_who_is_gone_for_good_is_not_waited_for(listening: Listening) -> None:
    """As the workers of a pool that somebody else has ended, before this process knows it."""

    class Gone(Actor):
        async def remote(self, listener: str, patterns: tuple[str, ...], timeout: float) -> Told:
            self.asked.append(patterns)
            raise ray_port.ActorDied()

    gone, there = Gone(), Actor()
    listening.follow(Pool(gone, there))
    with telemetry.attach("stream.*", print) as handle:
        assert handle.connected(20)
        assert there.asked and len(gone.asked) == 1
        with telemetry.attach("pool.*", print) as another:
            assert another.connected(20)
            assert len(gone.asked) == 1
