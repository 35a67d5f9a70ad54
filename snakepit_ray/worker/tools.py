"""The tools of one worker's pool, as its interpreters call them: the host's methods `tool.call` and
`tool.list`.

- A name means the session's tool, else the pool's tool, else a command of another pool (`pool.command`).
- The name stands in the method (`tool.call:NAME`), so that nobody decodes arguments to find it.
- The table of tools is the router's. This one learns of each change before whoever made it goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager

from snakepit_ray import telemetry
from snakepit_ray.core.tools.table import Change, ToolTable, WholeTable
from snakepit_ray.core.tools.tool import HERE, Tool
from snakepit_ray.errors import InvalidArguments, ToolNotFound
from snakepit_ray.port import ray_port
from snakepit_ray.port.tool_messages import ToolCall
from snakepit_ray.process.awaiting import happens
from snakepit_ray.wire import chains
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded, portable_buffers
from snakepit_ray.wire.host_call import HostCall, HostHandler
from snakepit_ray.worker.host_calls import TOOL_CALL, TOOL_LIST, described
from snakepit_ray.worker.other_pools import OtherPool, OtherPools
from snakepit_ray.worker.tool_code import ToolCode
from snakepit_ray.worker.tool_hosts import ToolHosts, Waits

KNOWN_SECONDS = 10.0  # for a router to say which tools there are, after this process has begun
# The command of a request that is here, and when it came (milliseconds since 1970); None of no request here.
Present = Callable[[str], tuple[str, int] | None]


class Tools:
    """What one worker knows of tools. `present`: about the request that makes a call. `others`: the pools
    whose commands are tools. `waits`: as in ToolHosts, also of the commands of pools."""

    def __init__(self, pool: str, present: Present, others: OtherPools, waits: Waits) -> None:
        self._others = others
        self._waits = waits
        self.hosts = ToolHosts(waits)
        self._pool = pool
        self._present = present
        self._table = ToolTable()
        self._is_known = asyncio.Event()  # the router has said which tools there are
        self._code = ToolCode(waits)

    @property
    def methods(self) -> dict[str, HostHandler]:
        """The host's methods."""
        return {TOOL_CALL: self._call, TOOL_LIST: self._list}

    def whole(self) -> WholeTable:
        """The table, for a router that was restarted."""
        return self._table.whole()

    def change(self, change: Change) -> bool:
        """The router says what has changed; False where it is to send the whole table."""
        before = {tool.id for tool in self._table.whole().tools} if change.removed else set()
        taken = self._table.take(change)
        self._forget(before)
        self.hosts.gone(change.gone)
        return taken

    def adopt(self, table: WholeTable) -> None:
        """The router sends the whole table."""
        before, owners = {tool.id for tool in self._table.whole().tools}, self._table.owners()
        self._table.adopt(table)
        self._is_known.set()
        self._forget(before)
        self.hosts.gone(owners - self._table.owners())

    def ended(self, sessions: Sequence[str]) -> list[str]:
        """Those of the sessions that may have tools: all of them, before the router has said which there
        are."""
        with_tools = self._table.sessions() if self._is_known.is_set() else set(sessions)
        return [session for session in sessions if session in with_tools]

    def _forget(self, before: set[str]) -> None:
        """The functions of tools that are no more."""
        if before:
            self._code.forget(before - {tool.id for tool in self._table.whole().tools})

    # ---- the methods --------------------------------------------------------------------------------------

    def _call(self, call: HostCall) -> Awaitable[Encoded] | AsyncIterator[Encoded]:
        """`tool.call:NAME`, with the arguments of the tool."""
        name = call.method.partition(":")[2]
        if not name:
            raise InvalidArguments(f"{TOOL_CALL} names its tool: {TOOL_CALL}:NAME")
        tool = self._table.find(name, call.session)
        if tool is None and not self._is_known.is_set():
            return self._stream_later(call) if call.stream else self._call_later(call)
        if tool is None:
            return self._stream_command(name, call) if call.stream else self._call_command(name, call)
        if tool.info.is_stream and not call.stream:
            raise InvalidArguments(f"the tool {name!r} yields values: take them with stream_tool")
        made, runs = self._made(tool, call), self.hosts if tool.info.where == HERE else self._code
        if tool.info.is_stream:
            return self._streamed(call, tool.info.where, runs.stream(tool, made))
        return self._called(call, tool.info.where, runs.call(tool, made))

    async def _call_later(self, call: HostCall) -> Encoded:
        """This process of the worker has just begun: the router has yet to say which tools there are."""
        await self._until_known()
        answer = self._call(call)
        assert not isinstance(answer, AsyncIterator)
        return await answer

    async def _stream_later(self, call: HostCall) -> AsyncGenerator[Encoded]:
        await self._until_known()
        answer = self._call(call)
        if isinstance(answer, AsyncGenerator):
            async with aclosing(answer):
                async for value in answer:
                    yield value
        else:
            yield await answer  # type: ignore[misc] # it is no iterator, so it is awaitable

    async def _until_known(self) -> None:
        await happens(self._is_known, KNOWN_SECONDS)
        self._is_known.set()

    async def _called(self, call: HostCall, where: str, value: Awaitable[Encoded]) -> Encoded:
        with self._told(call, where):
            return await value

    async def _streamed(
        self, call: HostCall, where: str, values: AsyncGenerator[Encoded]
    ) -> AsyncGenerator[Encoded]:
        with self._told(call, where):
            async with aclosing(values):
                async for value in values:
                    yield value

    @contextmanager
    def _told(self, call: HostCall, where: str) -> Iterator[None]:
        """The outcome of this block is an event."""
        began, success = time.monotonic(), False
        try:
            yield
            success = True
        finally:
            if telemetry.listening["tool.executed"]:
                about = {"pool": self._pool, "worker_id": call.worker_id, "session": call.session or None}
                tool = {"tool": call.method.partition(":")[2], "where": where, "success": success}
                took = {"duration_us": int((time.monotonic() - began) * 1e6)}
                telemetry.emit("tool.executed", took, {**tool, **about})

    async def _call_command(self, name: str, call: HostCall) -> Encoded:
        pool, command = await self._command(name, call.session)
        with self._told(call, pool.name), self._waiting(call.request_id):
            return await pool.call(command, call, self._chain(call))

    async def _stream_command(self, name: str, call: HostCall) -> AsyncIterator[Encoded]:
        pool, command = await self._command(name, call.session)
        with self._told(call, pool.name), self._waiting(call.request_id):
            async with aclosing(pool.stream(command, call, self._chain(call))) as values:
                async for value in values:
                    yield value

    @contextmanager
    def _waiting(self, request_id: str) -> Iterator[None]:
        """A command of that request waits for a command of a pool."""
        self._waits(request_id, True)
        try:
            yield
        finally:
            self._waits(request_id, False)

    async def _command(self, name: str, session: str) -> tuple[OtherPool, str]:
        """The pool and the command that a name means. Raises ToolNotFound."""
        found = await self._others.find(name)
        if found is None:
            pools = await asyncio.to_thread(ray_port.pool_names) if "." in name else []
            available = [info.name for info in self._table.seen_by(session)]
            raise ToolNotFound.named(name, [*available, *(f"{pool}.COMMAND" for pool in pools)])
        return found

    def _made(self, tool: Tool, call: HostCall) -> ToolCall:
        seconds = None if call.deadline is None else max(0.001, call.deadline - time.monotonic())
        return ToolCall(
            id=0,
            tool=tool.id,
            name=tool.info.name,
            json=call.payload.json,
            buffers=portable_buffers(call.payload.buffers),
            seconds=seconds,
            request_id=call.request_id,
            session=call.session,
            traceparent=call.traceparent,
            tracestate=call.tracestate,
            chain=self._chain(call).SerializeToString(),
        )

    def _chain(self, call: HostCall) -> pb.Chain:
        """The chain of what this call leads to. Raises InvalidArguments where it is too long."""
        command, began_ms = self._present(call.request_id) or ("", int(time.time() * 1000))
        return chains.lengthened(
            call.chain, call.request_id, f"{self._pool}.{command}", call.worker_id, began_ms
        )

    async def _list(self, call: HostCall) -> Encoded:
        """What a command of this session may call: [{"name", "description", "parameters", ...}]."""
        return described(self._table.seen_by(call.session))
