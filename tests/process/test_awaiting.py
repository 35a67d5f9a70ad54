"""Waits with a bound: nothing that is cancelled goes on, nothing that is waited for stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from snakepit_ray.process.awaiting import finish, happens, within


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        await within(20, body())
        assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing is left"

    asyncio.run(bounded())


@pytest.mark.parametrize("bound", [None, 60.0])
def test_a_cancellation_in_the_turn_of_the_result_is_not_forgotten(bound: float | None) -> None:
    """`asyncio.wait_for` gives the result then, and a cancelled stream or request went on."""

    async def body() -> None:
        result = asyncio.get_running_loop().create_future()
        went_on = []

        async def wait() -> None:
            went_on.append(await within(bound, result))

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        result.set_result(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not went_on

    run(body)


def test_what_is_too_late_is_cancelled_and_has_ended() -> None:
    async def body() -> None:
        ended = []

        async def slow(error: Exception | None = None) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(error)
                if error is not None:
                    raise error

        with pytest.raises(asyncio.TimeoutError):
            await within(0.001, slow())
        with pytest.raises(ValueError, match="at its end"):
            await within(0.001, slow(ValueError("at its end")))
        task = asyncio.ensure_future(within(60, slow()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(ended) == 3
        for seconds in (0.0, -1.0):
            with pytest.raises(asyncio.TimeoutError):
                await within(seconds, asyncio.get_running_loop().create_future())

    run(body)


def test_results_and_errors_come_through() -> None:
    async def body() -> None:
        async def gives(value: Any) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        assert await within(60, gives(1)) == await within(None, gives(1)) == 1
        with pytest.raises(ValueError, match="its own"):
            await within(60, gives(ValueError("its own")))
        event = asyncio.Event()
        assert not await happens(event, 0.001)
        asyncio.get_running_loop().call_soon(event.set)
        assert await happens(event, 60)
        assert await finish(gives(3)) == 3

    run(body)
