"""The tools of a fake pool: they run in this process, wherever they are registered for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from snakepit_ray.client.tool_info import describe
from snakepit_ray.core.tools.table import ToolTable
from snakepit_ray.core.tools.tool import Tool, ToolInfo
from snakepit_ray.errors import ToolNotFound
from snakepit_ray.port import tool_running
from snakepit_ray.port.tool_messages import ToolAnswer, ToolCall
from snakepit_ray.wire import chains
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded
from snakepit_ray.wire.failures import Failed
from snakepit_ray.wire.host_call import HostCall, HostHandler
from snakepit_ray.worker.host_calls import TOOL_CALL, TOOL_LIST, described


class FakeTools:
    """Tools by session and name, as a pool's router and worker keep them."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._table = ToolTable()
        self._functions: dict[str, Callable[..., Any]] = {}

    @property
    def methods(self) -> dict[str, HostHandler]:
        """The host's methods."""
        return {TOOL_CALL: self._call, TOOL_LIST: self._list}

    def register(
        self,
        functions: Mapping[str, Callable[..., Any]],
        session: str | None,
        where: str,
        description: str = "",
        parameters: Any = None,
    ) -> None:
        """As `client.tools.register`. Raises ConfigError, DuplicateTool."""
        tools = []
        for name, function in functions.items():
            info = describe(name, function, session, where, description, parameters)
            tools.append(Tool(info, secrets.token_hex(8)))
        self._table.add(tools, 0)
        self._functions.update(zip((tool.id for tool in tools), functions.values(), strict=True))

    def unregister(self, name: str, session: str | None) -> None:
        """As `client.tools.unregister`. Raises ToolNotFound."""
        if self._table.remove(name, session or "", 0) is None:
            names = [info.name for info in self.all() if info.session == (session or "")]
            raise ToolNotFound.named(name, names)

    def end(self, session_id: str) -> None:
        """The tools of a session that has ended are no more."""
        self._table.without_sessions([session_id], 0)

    async def aend(self, session_id: str) -> None:
        """`end` for asyncio."""
        self.end(session_id)

    def all(self) -> list[ToolInfo]:
        """Every tool, by session and name."""
        return self._table.all()

    # ---- the methods --------------------------------------------------------------------------------------

    def _call(self, call: HostCall) -> Any:
        name = call.method.partition(":")[2]
        tool = self._table.find(name, call.session)
        if tool is None:
            raise ToolNotFound.named(name, [info.name for info in self._table.seen_by(call.session)])
        made, function = self._made(tool, call), self._functions[tool.id]
        return self._values(function, made) if tool.info.is_stream else self._value(function, made)

    def _made(self, tool: Tool, call: HostCall) -> ToolCall:
        chain = chains.lengthened(
            call.chain, call.request_id, self._pool, call.worker_id, int(time.time() * 1000)
        )
        return ToolCall(
            id=0,
            tool=tool.id,
            name=tool.info.name,
            json=call.payload.json,
            buffers=call.payload.buffers,
            request_id=call.request_id,
            session=call.session,
            chain=chain.SerializeToString(),
        )

    async def _value(self, function: Callable[..., Any], call: ToolCall) -> Encoded:
        return _encoded(_outside_of_loops(lambda: tool_running.run(function, call)))

    async def _values(self, function: Callable[..., Any], call: ToolCall) -> AsyncIterator[Encoded]:
        answers: Iterator[ToolAnswer] = iter(
            _outside_of_loops(lambda: list(tool_running.values(function, call)))
        )
        for answer in answers:
            value = _encoded(answer)
            if not answer.is_last:
                yield value

    async def _list(self, call: HostCall) -> Encoded:
        return described(self._table.seen_by(call.session))


def _outside_of_loops(job: Callable[[], Any]) -> Any:
    """What `job` gives, which may run a loop of its own."""
    if asyncio._get_running_loop() is None:
        return job()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return threads.submit(job).result()


def _encoded(answer: ToolAnswer) -> Encoded:
    """Raises Failed."""
    if answer.failure:
        raise Failed(pb.Failure.FromString(answer.failure))
    return Encoded(answer.json, list(answer.buffers), [])
