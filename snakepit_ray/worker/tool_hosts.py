"""The processes that run tools "here", as one worker meets them: their questions, and the calls that wait.

- A process asks with one long poll. A newer question of it ends an older one.
- A call waits until its process has come for it, COME_SECONDS at most where it never has.
- A process that has ended fails its calls at once. The router tells of that.
- A call that nobody waits for any more is told to its process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from snakepit_ray.core.tools.tool import Tool
from snakepit_ray.errors import ToolNotFound
from snakepit_ray.port.tool_messages import AHEAD_VALUES, ToolAnswer, ToolCall, ToolTurn
from snakepit_ray.process.awaiting import happens
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded
from snakepit_ray.wire.failures import Failed

Waits = Callable[[str, bool], None]
COME_SECONDS = 10.0  # for a process that has just registered a tool, or a worker that has just come
TELL_TAKEN = AHEAD_VALUES // 4  # values of a stream that were taken before its process is told


class ToolHosts:
    """All of them. Belongs to the running event loop. `waits` is called with the request whose tool has
    called a pool, and True; and when that call of the tool is over, with False."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._hosts: dict[str, _Host] = {}

    async def serve(self, owner: str, number: int, answers: Sequence[ToolAnswer], timeout: float) -> ToolTurn:
        """The question `number` of a process, and what its tools have come to: what it is to do, as soon as
        there is something, after `timeout` seconds at most."""
        return await self._host(owner).serve(number, answers, timeout)

    async def call(self, tool: Tool, call: ToolCall) -> Encoded:
        """The value of a tool that gives one. Raises Failed, ToolNotFound."""
        host = self._host(tool.owner)
        opened = host.begin(call)
        try:
            answer = await host.next(opened)
            return Encoded(answer.json, list(answer.buffers), [])
        finally:
            host.end(opened)

    async def stream(self, tool: Tool, call: ToolCall) -> AsyncGenerator[Encoded]:
        """The values of a tool that yields. Raises Failed, ToolNotFound."""
        host = self._host(tool.owner)
        opened = host.begin(call)
        try:
            while (answer := await host.next(opened)).has_value:
                yield Encoded(answer.json, list(answer.buffers), [])
                host.took(opened)
        finally:
            host.end(opened)

    def gone(self, owners: Iterable[str]) -> None:
        """These processes run no tools any more."""
        for owner in owners:
            host = self._hosts.pop(owner, None)
            if host is not None:
                host.close()

    def _host(self, owner: str) -> _Host:
        host = self._hosts.get(owner)
        if host is None:
            host = self._hosts[owner] = _Host(self._waits)
        return host


class _Open:
    """A call that has no end yet, and what has come of it."""

    def __init__(self, call: ToolCall) -> None:
        self.call = call
        self.answers: deque[ToolAnswer] = deque()
        self.news = asyncio.Event()
        self.is_waiting = False  # for a pool that it has called
        self.is_over = False  # its process has said the last of it, or is gone
        self.taken = 0  # values that its process does not know to be taken


class _Host:
    """One process."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._ids = 0
        self._newest = 0
        self._open: dict[int, _Open] = {}
        self._calls: list[ToolCall] = []
        self._cancels: list[int] = []
        self._taken: list[tuple[int, int]] = []
        self._news = asyncio.Event()
        self._has_come = asyncio.Event()
        self._is_gone = False

    # ---- what the process says ----------------------------------------------------------------------------

    async def serve(self, number: int, answers: Sequence[ToolAnswer], timeout: float) -> ToolTurn:
        for answer in answers:
            opened = self._open.get(answer.id)
            if opened is None:
                continue
            if answer.is_waiting:
                opened.is_waiting = True
                self._waits(opened.call.request_id, True)
            else:
                opened.answers.append(answer)
                opened.is_over = answer.is_last
                opened.news.set()
        if number < self._newest:
            return ToolTurn()
        self._newest = number
        self._has_come.set()
        self._news.set()  # whoever asked before this question gets nothing
        self._news = asyncio.Event()
        if not (self._calls or self._cancels or self._taken or self._is_gone):
            await happens(self._news, timeout)
        return self._turn() if number == self._newest else ToolTurn()

    def _turn(self) -> ToolTurn:
        turn = ToolTurn(self._calls, self._cancels, self._taken)
        self._calls, self._cancels, self._taken = [], [], []
        return turn

    # ---- what commands ask --------------------------------------------------------------------------------

    def begin(self, call: ToolCall) -> _Open:
        self._ids += 1
        opened = self._open[self._ids] = _Open(call._replace(id=self._ids))
        self._calls.append(opened.call)
        self._news.set()
        return opened

    async def next(self, opened: _Open) -> ToolAnswer:
        """What comes next of a call. Raises Failed, ToolNotFound."""
        if not self._has_come.is_set() and not await happens(self._has_come, COME_SECONDS):
            raise _lost(opened.call.name, f"has not come for its calls within {COME_SECONDS:g} s")
        while not opened.answers:
            if self._is_gone:
                raise _lost(opened.call.name, "has ended")
            opened.news.clear()
            await opened.news.wait()
        answer = opened.answers.popleft()
        if answer.failure:
            raise Failed(pb.Failure.FromString(answer.failure))
        return answer

    def took(self, opened: _Open) -> None:
        """The command has taken a value of a stream."""
        opened.taken += 1
        if opened.taken >= TELL_TAKEN and not opened.is_over:
            self._taken.append((opened.call.id, opened.taken))
            opened.taken = 0
            self._news.set()

    def end(self, opened: _Open) -> None:
        """Nobody waits for it any more."""
        call_id = opened.call.id
        del self._open[call_id]
        if opened.is_waiting:
            self._waits(opened.call.request_id, False)
        if opened.is_over:
            return
        if opened.call in self._calls:  # its process has not seen it
            self._calls.remove(opened.call)
            return
        self._cancels.append(call_id)
        self._news.set()

    def close(self) -> None:
        self._is_gone = True
        self._has_come.set()
        self._news.set()
        for opened in self._open.values():
            opened.news.set()


def _lost(name: str, why: str) -> ToolNotFound:
    return ToolNotFound(
        f"the tool {name!r} cannot be reached: the process that registered it {why}; register it again",
        tool=name,
    )
