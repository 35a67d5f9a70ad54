"""Answers that wait for their request to come by Ray: each is taken once, and none stays for ever."""

from __future__ import annotations

import asyncio

import pytest

from snakepit_ray.process.awaiting import happens
from snakepit_ray.worker import present
from snakepit_ray.worker.present import Kept


def test_an_answer_is_taken_once() -> None:
    async def body() -> None:
        kept = Kept(lambda: None)
        kept.keep("a", ("value", None))
        assert kept.take("b") is None
        assert kept.take("a") == ("value", None)
        assert kept.take("a") is None

    asyncio.run(body())


def test_what_nobody_fetches_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        expired = asyncio.Event()
        kept = Kept(expired.set)
        for number in range(5):
            kept.keep(str(number), (number, None))
        assert list(kept.answers) == ["2", "3", "4"]
        monkeypatch.setattr(present, "KEPT_SECONDS", 0.0)
        kept.keep("last", (None, ValueError()))
        assert await happens(expired, 10.0), "who waits for this worker to be idle looks again"
        assert list(kept.answers) == ["3", "4"]
        for name in list(kept.answers):
            kept.take(name)

    monkeypatch.setattr(present, "MOST_KEPT", 3)
    asyncio.run(body())
