"""The tools that run in this process, for one pool: a long poll for each worker, which brings calls and takes
answers.

- All of a process run on one event loop in a thread of its own. Functions that are not async run in threads.
- What the tools of a turn come to rides on the next question. A question waits RIDE_SECONDS for that, so that
  a short tool costs one message; what comes later goes with a question of its own, which ends the one that
  waits at the worker.
- A worker that dies is asked again as long as it is in the pool's table. Its calls were lost with it.
- A router that was restarted is told again which tools there are.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

from snakepit_ray.client.directory import Directory
from snakepit_ray.client.tool_calls import RunningCall
from snakepit_ray.client.tool_threads import ToolThreads
from snakepit_ray.core.tools.tool import Tool
from snakepit_ray.errors import ToolNotFound
from snakepit_ray.port import ray_port, tool_running
from snakepit_ray.port.tool_messages import ToolAnswer, ToolCall, ToolTurn

POLL_SECONDS = 20.0
RIDE_SECONDS = 0.001
AGAIN_SECONDS = 0.5  # after a question that failed
log = logging.getLogger("snakepit_ray")


class ToolHost:
    """The tools of one process in one pool."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._tools: dict[str, tuple[Tool, tool_running.Function]] = {}  # by registration
        self._lines: dict[str, _Line] = {}
        self._threads = ToolThreads()
        self._loop = _loop()
        self._routers = max(
            1, directory.routers
        )  # whom the tools were told: the first hears it from `register`
        directory.follow(self._look_soon)

    @property
    def is_closed(self) -> bool:
        """Whether the pool has ended, or the Ray session that it belongs to."""
        return self._directory.closed or not self._directory.is_current()

    def add(self, tools: list[tuple[Tool, tool_running.Function]]) -> None:
        """These can be called from now on."""
        self._tools.update((tool.id, (tool, function)) for tool, function in tools)
        self._look_soon()

    def remove(self, is_gone: Callable[[Tool], bool]) -> None:
        """Those cannot."""
        for tool_id in [tool_id for tool_id, (tool, _) in list(self._tools.items()) if is_gone(tool)]:
            self._tools.pop(tool_id, None)

    def function(self, call: ToolCall) -> tool_running.Function:
        """What a call asks for. Raises ToolNotFound."""
        found = self._tools.get(call.tool)
        if found is None:
            raise ToolNotFound(f"the tool {call.name!r} was unregistered", tool=call.name)
        return found[1]

    def _look_soon(self) -> None:
        self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        """The pool's table, its router or the tools are others than before."""
        directory = self._directory
        if self.is_closed:
            for line in self._lines.values():
                line.close()
            return
        if not self._tools:
            return
        for worker_id, actor in directory.actors():
            if worker_id not in self._lines or self._lines[worker_id].is_over:
                self._lines[worker_id] = _Line(self, worker_id, actor, directory.id, self._threads)
        if directory.routers > self._routers:
            self._routers = directory.routers
            directory.router.add_tools.remote([tool for tool, _ in self._tools.values()])

    def is_there(self, worker_id: str) -> bool:
        """Whether that worker is in the pool's table."""
        return not self.is_closed and any(one == worker_id for one, _ in self._directory.actors())


class _Line:
    """The questions to one worker."""

    def __init__(self, host: ToolHost, worker_id: str, actor: Any, owner: str, threads: ToolThreads) -> None:
        self.is_over = False
        self._host = host
        self._worker_id = worker_id
        self._actor = actor
        self._owner = owner
        self._threads = threads
        self._number = 0
        self._answers: list[ToolAnswer] = []
        self._running: dict[int, RunningCall] = {}
        self._riding: asyncio.TimerHandle | None = None  # the next question waits for answers
        self._leaving = False
        self._polls: set[asyncio.Task[None]] = set()
        self._ask()

    def close(self) -> None:
        """The worker, or the pool, is gone."""
        self.is_over = True
        for poll in list(self._polls):
            poll.cancel()
        self._drop()

    def _drop(self) -> None:
        running, self._running = self._running, {}
        for call in running.values():
            call.cancel()
        self._answers = []

    # ---- out ----------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Sends the next question, with all answers that there are."""
        if self._riding is not None:
            self._riding.cancel()
            self._riding = None
        self._leaving = False
        if self.is_over or self._host.is_closed:
            return
        self._number += 1
        answers, self._answers = self._answers, []
        poll = asyncio.ensure_future(self._poll(self._number, answers))
        self._polls.add(poll)
        poll.add_done_callback(self._polls.discard)

    async def _poll(self, number: int, answers: list[ToolAnswer]) -> None:
        try:
            turn: ToolTurn = await self._actor.serve_tools.remote(self._owner, number, answers, POLL_SECONDS)
        except ray_port.RayError as error:
            await self._failed(number, error)
            return
        self._take(turn)
        if number == self._number and not self.is_over:
            self._ask_soon()

    def _ask_soon(self) -> None:
        """No question waits at the worker: the next goes with the answers of this turn, or without."""
        if self._answers or not self._running:
            self._ask()
        else:
            self._riding = asyncio.get_running_loop().call_later(RIDE_SECONDS, self._ask)

    async def _failed(self, number: int, error: Exception) -> None:
        if number != self._number:
            return
        self._drop()
        if isinstance(error, ray_port.ActorDied) or not self._host.is_there(self._worker_id):
            self.is_over = True
            return
        log.debug("worker %s does not take the tools of this process now: %s", self._worker_id, error)
        await asyncio.sleep(AGAIN_SECONDS)
        if number == self._number:
            self._ask()

    # ---- in -----------------------------------------------------------------------------------------------

    def _take(self, turn: ToolTurn) -> None:
        for call in turn.calls:
            self._begin(call)
        for call_id in turn.cancels:
            running = self._running.pop(call_id, None)
            if running is not None:
                running.cancel()
        for call_id, count in turn.taken:
            if (streaming := self._running.get(call_id)) is not None:
                streaming.taken(count)

    def _begin(self, call: ToolCall) -> None:
        try:
            function = self._host.function(call)
        except ToolNotFound as error:
            self._answers.append(tool_running.failed_answer(call.id, error))
            return
        running = self._running[call.id] = RunningCall(function, call, self._threads, self._answered)
        running.begin()

    def _answered(self, answer: ToolAnswer) -> None:
        if answer.id not in self._running:  # nobody waits for it any more
            return
        if answer.is_last:
            del self._running[answer.id]
        self._answers.append(answer)
        if not self._leaving:
            self._leaving = True
            asyncio.get_running_loop().call_soon(self._ask)


_lock = threading.Lock()
_running_loop: list[asyncio.AbstractEventLoop] = []


def _loop() -> asyncio.AbstractEventLoop:
    """The loop of this process's tools."""
    with _lock:
        if not _running_loop:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="snakepit-tools", daemon=True).start()
            _running_loop.append(loop)
        return _running_loop[0]
