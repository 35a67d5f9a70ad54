"""The tools of one worker: what a name means, and what is not known yet. No Ray, no interpreter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from snakepit_ray.core.tools.table import Change, ToolTable, WholeTable
from snakepit_ray.core.tools.tool import Tool, ToolInfo
from snakepit_ray.errors import InvalidArguments, ToolNotFound
from snakepit_ray.port import tool_running
from snakepit_ray.port.tool_messages import ToolCall
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded
from snakepit_ray.wire.host_call import HostCall
from snakepit_ray.worker.tools import Tools


class Nowhere:
    """No pool runs."""

    async def find(self, name: str) -> None:
        return None


def tools() -> Tools:
    nowhere: Any = Nowhere()
    return Tools("p", lambda request_id: ("command", 7), nowhere, lambda request_id, waits: None)


def tool(name: str = "t", session: str = "", **more: Any) -> Tool:
    return Tool(ToolInfo(name, session, **more), f"id of {session}/{name}", owner="process")


def call(method: str, session: str = "", *, stream: bool = False) -> HostCall:
    return HostCall(method, Encoded(b'{"a":1}', [], []), "p-0", "r", session, None, "", "", None, stream)


def asked(one: Tools, what: HostCall) -> Any:
    return one.methods[what.method.partition(":")[0]](what)


async def taken(one: Tools, number: int = 1) -> ToolCall:
    """The one call that waits for the process."""
    (waiting,) = (await one.hosts.serve("process", number, [], 5)).calls
    return waiting


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 20))


def test_the_sessions_tool_is_called_with_the_chain_of_the_request() -> None:
    async def body() -> None:
        one, table = tools(), ToolTable()
        table.add([tool(), tool(session="s")], 1)
        one.adopt(table.whole())
        calling = asyncio.ensure_future(asked(one, call("tool.call:t", "s")))
        made = await taken(one)
        chain = pb.Chain.FromString(made.chain)
        assert (made.tool, made.json) == ("id of s/t", b'{"a":1}')
        assert (chain.root, chain.began_ms, chain.calls, chain.workers) == ("r", 7, ["p.command"], ["p-0"])
        await one.hosts.serve("process", 2, [tool_running.value_answer(made.id, 5, is_last=True)], 0)
        assert (await calling).json == b"5"
        listed = json.loads((await asked(one, call("tool.list", "s"))).json)
        assert [(said["name"], said["session"]) for said in listed] == [("t", "s")]

    run(body)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_waits_until_the_router_has_said_which_tools_there_are(stream: bool) -> None:
    async def body() -> None:
        one, table = tools(), ToolTable()
        table.add([tool(is_stream=stream)], 1)
        answer = asked(one, call("tool.call:t", stream=stream))
        calling = asyncio.ensure_future(answer.__anext__() if stream else answer)
        await asyncio.sleep(0)
        one.adopt(table.whole())
        made = await taken(one)
        value = tool_running.value_answer(made.id, 5, is_last=not stream)
        await one.hosts.serve("process", 2, [value], 0)
        assert (await calling).json == b"5"

    run(body)


def test_what_is_not_there_and_what_is_called_wrongly() -> None:
    async def body() -> None:
        one = tools()
        one.adopt(WholeTable())
        assert one.change(Change(0, 5, (tool("yields", is_stream=True),)))
        with pytest.raises(ToolNotFound, match="no tool 'yield'; did you mean 'yields'"):
            await asked(one, call("tool.call:yield"))
        with pytest.raises(ToolNotFound, match="no tool 'yield'"):
            await asked(one, call("tool.call:yield", stream=True)).__anext__()
        with pytest.raises(InvalidArguments, match="take them with stream_tool"):
            asked(one, call("tool.call:yields"))
        with pytest.raises(InvalidArguments, match="names its tool"):
            asked(one, call("tool.call"))

    run(body)


def test_a_call_outlives_its_tool_and_not_its_process() -> None:
    async def body() -> None:
        one, router = tools(), ToolTable()
        one.adopt(WholeTable())
        assert one.change(router.add([tool()], 1))
        calling = asyncio.ensure_future(asked(one, call("tool.call:t")))
        await taken(one)
        removed, gone = router.remove("t", "", 2), router.without_owners(["process"], 3)
        assert removed is not None and gone is not None
        assert one.change(removed)
        assert not one.change(Change(7, 8)), "it is to be sent the whole table"
        await asyncio.sleep(0)
        assert not calling.done()
        assert one.change(gone)
        with pytest.raises(ToolNotFound, match="has ended"):
            await calling
        assert router.without_owners(["process"], 4) is None, "that is told once"

    run(body)
