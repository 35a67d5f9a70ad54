"""A fake pool and a real one, asked the same: one adapter, the same outcomes in the same words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.testing import FakePool, FakeRef

pytestmark = pytest.mark.ray

Ask = Callable[[Any], Any]


def get(refs: Any) -> Any:
    """The values of refs of either kind."""
    is_fake = isinstance(refs[0] if isinstance(refs, list) else refs, FakeRef)
    return FakePool.get(refs) if is_fake else ray.get(refs)


async def collected(stream: Any) -> list[Any]:
    return [value async for value in stream]


ASKED: list[Ask] = [
    lambda pool: pool.execute("add", {"a": 5, "b": 3}),
    lambda pool: get(pool.execute.remote("add", {"a": 5, "b": 3})),
    lambda pool: pool.execute("ad", {"a": 5, "b": 3}),
    lambda pool: pool.execute("add", {"a": 5}),
    lambda pool: pool.execute("add", {"a": 5, "c": 3}),
    lambda pool: pool.execute("add", {"a": {5}, "b": 3}),
    lambda pool: pool.execute("add", 5),
    lambda pool: pool.execute("echo", {"x": (1, None, 2**70, float("inf"), b"y", "ü")}),
    lambda pool: pool.execute("echo", {"x": np.arange(5000)})["echoed"]["x"].flags.writeable,
    lambda pool: pool.execute("error_demo", {"error_type": "value"}),
    lambda pool: pool.execute("error_demo", {"error_type": "runtime"}),
    lambda pool: pool.execute("stream_fibonacci", {"count": 3}),
    lambda pool: pool.execute("add", {"a": 1, "b": 2}, timeout=-1),
    lambda pool: pool.execute("add", {"a": 1, "b": 2}, retires=1),
    lambda pool: pool.execute("add", {"a": 1, "b": pool.execute.remote("echo")}),
    lambda pool: get(pool.execute.remote("echo", {"x": pool.execute.remote("add", {"a": 1, "b": 2})})),
    lambda pool: list(pool.stream("stream_fibonacci", {"count": 5})),
    lambda pool: list(pool.stream("stream_fibonaci", {"count": 5})),
    lambda pool: list(pool.stream("add", {"a": 1, "b": 2})),
    lambda pool: get(list(pool.execute_stream.remote("stream_fibonacci", {"count": 5}))),
    lambda pool: asyncio.run(collected(pool.astream("stream_fibonacci", {"count": 5}))),
    lambda pool: pool.execute_stream("stream_fibonacci", {"count": 5}, lambda value: snakepit.HALT),
    lambda pool: pool.execute_batch("add", [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
    lambda pool: pool.execute_batch("add", [{"a": 1, "b": 2}, {"a": "x", "b": 4}]),
    lambda pool: pool.execute_batch("add", [{"a": 1, "b": 2}, {"a": {1}, "b": 4}]),
    lambda pool: [str(one) for one in pool.execute_batch("add", [{"a": 1}], return_exceptions=True)],
    lambda pool: pool.execute_batch("add", []),
    lambda pool: list(pool.map("add", ({"a": i, "b": 1} for i in range(3)))),
    lambda pool: list(pool.map("add", [{"a": 1, "b": 1}, {"b": 1}])),
    lambda pool: pool.submit("add", {"a": 1, "b": 2}).result(),
    lambda pool: asyncio.run(pool.call("add", {"a": 1, "b": 2})),
    lambda pool: asyncio.run(pool.call("add", {"a": {1}, "b": 2})),
    lambda pool: pool.execute_in_session("s", "get_counter"),
    lambda pool: pool.session("s").execute("increment_counter"),
]


def outcome(ask: Ask, pool: Any) -> Any:
    """What it came to: of an error its kinds, its text without a traceback, and what else it says."""
    try:
        return repr(ask(pool))
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("snakepit_ray")]
        facts = {name: value for name, value in vars(error).items() if name not in ("traceback", "cause")}
        return kinds, str(error).splitlines()[0], facts


@pytest.fixture(scope="module")
def fake() -> Any:
    with FakePool() as one:
        yield one


@pytest.mark.parametrize("ask", ASKED, ids=range(len(ASKED)))
def test_a_fake_pool_answers_as_a_pool_does(ask: Ask, shared: snakepit.Pool, fake: FakePool) -> None:
    assert outcome(ask, fake) == outcome(ask, shared)
