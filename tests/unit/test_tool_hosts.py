"""A worker and the processes whose tools it calls: questions, answers, what is told of an end. No Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from snakepit_ray.core.tools.tool import Tool, ToolInfo
from snakepit_ray.errors import ToolNotFound
from snakepit_ray.port import tool_running
from snakepit_ray.port.tool_messages import AHEAD_VALUES, ToolAnswer, ToolCall, ToolTurn
from snakepit_ray.wire.failures import Failed
from snakepit_ray.worker import tool_hosts
from snakepit_ray.worker.tool_hosts import TELL_TAKEN, ToolHosts

TOOL = Tool(ToolInfo("t"), "id", owner="p")
CALL = ToolCall(0, "id", "t", b"{}", (), request_id="r")


def run(body: Callable[[ToolHosts, list[Any]], Awaitable[None]]) -> None:
    async def within() -> None:
        waits: list[Any] = []
        await body(ToolHosts(lambda request_id, waits_now: waits.append((request_id, waits_now))), waits)

    asyncio.run(asyncio.wait_for(within(), 20))


def value(call: ToolCall, said: object = None, *, is_last: bool = True) -> ToolAnswer:
    return tool_running.value_answer(call.id, said, is_last=is_last)


def test_a_newer_question_ends_an_older_one_and_takes_the_call() -> None:
    async def body(hosts: ToolHosts, waits: list[Any]) -> None:
        first = asyncio.ensure_future(hosts.serve("p", 1, [], 60))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(hosts.serve("p", 2, [], 60))
        assert await first == ToolTurn()
        calling = asyncio.ensure_future(hosts.call(TOOL, CALL))
        (call,) = (await second).calls
        assert await hosts.serve("p", 1, [value(call, 7)], 60) == ToolTurn(), "an old one has answers, too"
        assert (await calling).json == b"7"
        assert await hosts.serve("p", 3, [], 0) == ToolTurn([], [], []), "nothing is to be cancelled"

    run(body)


def test_an_error_arrives_as_it_was() -> None:
    async def body(hosts: ToolHosts, waits: list[Any]) -> None:
        calling = asyncio.ensure_future(hosts.call(TOOL, CALL))
        (call,) = (await hosts.serve("p", 1, [], 60)).calls
        await hosts.serve("p", 2, [tool_running.failed_answer(call.id, LookupError("no"))], 0)
        with pytest.raises(Failed) as failed:
            await calling
        assert (failed.value.failure.type, failed.value.failure.message) == ("LookupError", "no")

    run(body)


def test_a_call_that_is_given_up_is_told_where_it_was_seen() -> None:
    async def body(hosts: ToolHosts, waits: list[Any]) -> None:
        await hosts.serve("p", 1, [], 0)
        unseen = asyncio.ensure_future(hosts.call(TOOL, CALL))
        await asyncio.sleep(0)
        unseen.cancel()
        await asyncio.wait([unseen])
        seen = asyncio.ensure_future(hosts.call(TOOL, CALL))
        await asyncio.sleep(0)
        (call,) = (await hosts.serve("p", 2, [], 60)).calls
        waiting = ToolAnswer(call.id, is_last=False, is_waiting=True)
        await hosts.serve("p", 3, [waiting], 0)
        seen.cancel()
        await asyncio.wait([seen])
        assert await hosts.serve("p", 4, [value(call)], 0) == ToolTurn(cancels=[call.id], calls=[], taken=[])
        assert waits == [("r", True), ("r", False)]

    run(body)


def test_a_stream_tells_what_was_taken_and_ends() -> None:
    async def body(hosts: ToolHosts, waits: list[Any]) -> None:
        taking = hosts.stream(TOOL, CALL)
        first = asyncio.ensure_future(taking.__anext__())
        (call,) = (await hosts.serve("p", 1, [], 60)).calls
        values = [value(call, number, is_last=False) for number in range(AHEAD_VALUES)]
        await hosts.serve("p", 2, values, 0)
        got = [(await first).json, *[(await taking.__anext__()).json for _ in range(AHEAD_VALUES - 1)]]
        assert got == [str(number).encode() for number in range(AHEAD_VALUES)]
        assert (await hosts.serve("p", 3, [], 60)).taken == [(call.id, TELL_TAKEN)] * 3
        await hosts.serve("p", 4, [ToolAnswer(call.id)], 0)
        with pytest.raises(StopAsyncIteration):
            await taking.__anext__()

    run(body)


def test_a_process_that_has_ended_fails_its_calls_and_one_that_never_comes_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(hosts: ToolHosts, waits: list[Any]) -> None:
        calling = asyncio.ensure_future(hosts.call(TOOL, CALL))
        asking = asyncio.ensure_future(hosts.serve("p", 1, [], 60))
        await asyncio.wait([asking])
        hosts.gone(["p", "another"])
        with pytest.raises(ToolNotFound, match=r"the tool 't' cannot be reached.* has ended"):
            await calling
        monkeypatch.setattr(tool_hosts, "COME_SECONDS", 0.01)
        with pytest.raises(ToolNotFound, match="has not come for its calls"):
            await hosts.call(TOOL, CALL)

    run(body)
