"""Events travel to listeners in other processes while these ask, and are gathered for nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from snakepit_ray import telemetry
from snakepit_ray.port import listeners as module
from snakepit_ray.port.listeners import Listeners, Told
from tests.supervisor.harness import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(module, "SILENT_SECONDS", 30.0)


def run(body: Callable[[Listeners], Awaitable[None]]) -> None:
    async def main() -> None:
        listeners = Listeners()
        await body(listeners)
        for tap in listeners._taps.values():
            tap.close()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert not telemetry.enabled("stream.started")


def names(told: Told) -> list[str]:
    return [occurrence.event for occurrence in told.occurrences]


def test_a_question_waits_for_events_and_gets_those_that_come_soon_after() -> None:
    async def body(listeners: Listeners) -> None:
        assert await listeners.next("me", ["stream.*"], 0) == Told([], 0)
        waiting = asyncio.ensure_future(listeners.next("me", ["stream.*"], 20))
        await asyncio.sleep(0)
        telemetry.emit("stream.started")
        telemetry.emit("pool.closed", {"uptime": 1})
        telemetry.emit("stream.ended", {"duration": 1, "chunks": 2})
        assert names(await waiting) == ["stream.started", "stream.ended"]

    run(body)


def test_what_happens_between_two_questions_is_told_with_the_next() -> None:
    async def body(listeners: Listeners) -> None:
        await listeners.next("me", ["stream.*"], 0)
        await listeners.next("other", ["pool.*"], 0)
        threading.Thread(target=telemetry.emit, args=("stream.started",)).start()
        assert names(await listeners.next("me", ["stream.*"], 20)) == ["stream.started"]
        assert names(await listeners.next("other", ["pool.*"], 0)) == []
        assert len(listeners) == 2

    run(body)


def test_other_patterns_end_the_question_that_waits_and_lose_nothing() -> None:
    async def body(listeners: Listeners) -> None:
        waiting = asyncio.ensure_future(listeners.next("me", ["stream.*"], 20))
        await asyncio.sleep(0)
        telemetry.emit("stream.started")
        assert names(await listeners.next("me", ["pool.*"], 0)) == ["stream.started"]
        assert await waiting == Told([], 0)
        telemetry.emit("stream.started")
        telemetry.emit("pool.closed", {"uptime": 1})
        assert names(await listeners.next("me", ["pool.*"], 0)) == ["pool.closed"]

    run(body)


def test_a_listener_that_does_not_ask_again_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.01)

    async def body(listeners: Listeners) -> None:
        await listeners.next("me", ["stream.*"], 0)
        await until(lambda: not len(listeners))
        assert not telemetry.enabled("stream.started")

    run(body)
