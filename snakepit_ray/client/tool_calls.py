"""One call of a tool in the process that registered it, from its arrival to its end.

- An async function runs on the loop of the tools, any other in a thread.
- A generator is at most AHEAD_VALUES values ahead of the command that takes them. When nobody takes them any
  more it is closed.
- A function in a thread cannot be stopped: what it gives when nobody waits any more is dropped.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from contextvars import Context
from typing import Any

from snakepit_ray.client.tool_threads import ToolThreads
from snakepit_ray.port import tool_running
from snakepit_ray.port.tool_messages import AHEAD_VALUES, ToolAnswer, ToolCall

Answered = Callable[[ToolAnswer], None]


class RunningCall:
    """A call that has begun. `answered` is called on the loop with each answer."""

    def __init__(
        self,
        function: tool_running.Function,
        call: ToolCall,
        threads: ToolThreads,
        answered: Answered,
    ) -> None:
        self._function = function
        self._call = call
        self._threads = threads
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        self._is_cancelled = self._is_waiting = False
        self._credit = threading.Semaphore(AHEAD_VALUES)  # of a generator in a thread
        self._ahead = 0  # of one on the loop
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Runs the function."""
        is_stream = tool_running.is_stream(self._function)
        if tool_running.is_async(self._function):
            work = self._take() if is_stream else self._await()
            self._task = Context().run(asyncio.ensure_future, work)
        else:
            run = self._yield if is_stream else self._return
            self._threads.run(lambda: Context().run(run))

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._is_cancelled = True
        self._credit.release()
        if self._task is not None:
            self._task.cancel()

    def _calls_pool(self) -> None:
        """In any thread: the function calls a pool. Its worker is told, once."""
        if not self._is_waiting:
            self._is_waiting = True
            waiting = ToolAnswer(self._call.id, is_last=False, is_waiting=True)
            self._loop.call_soon_threadsafe(self._answered, waiting)

    def taken(self, count: int) -> None:
        """So many values of the stream were taken."""
        self._ahead -= count
        self._more.set()
        self._credit.release(count)

    # ---- in a thread --------------------------------------------------------------------------------------

    def _return(self) -> None:
        if not self._is_cancelled:
            self._hand_over(tool_running.run(self._function, self._call, self._calls_pool))

    def _yield(self) -> None:
        answers = tool_running.values(self._function, self._call, self._calls_pool)
        for answer in answers:
            if answer.has_value:
                self._credit.acquire()
            if self._is_cancelled:
                answers.close()
                return
            self._hand_over(answer)

    def _hand_over(self, answer: ToolAnswer) -> None:
        self._loop.call_soon_threadsafe(self._answered, answer)

    # ---- on the loop --------------------------------------------------------------------------------------

    async def _await(self) -> None:
        call = self._call
        try:
            with tool_running.on_behalf_of(call, time.monotonic(), self._calls_pool):
                value = await tool_running.bound(self._function, call)()
                self._answered(tool_running.value_answer(call.id, value, is_last=True))
        except asyncio.CancelledError:
            self._stopped()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the command gets it
            self._answered(tool_running.failed_answer(call.id, error))

    async def _take(self) -> None:
        call = self._call
        try:
            with tool_running.on_behalf_of(call, time.monotonic(), self._calls_pool):
                async with aclosing(tool_running.bound(self._function, call)()) as values:
                    async for value in values:
                        await self._put(value)
            self._answered(ToolAnswer(call.id))
        except asyncio.CancelledError:
            self._stopped()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the command gets it
            self._answered(tool_running.failed_answer(call.id, error))

    async def _put(self, value: Any) -> None:
        while self._ahead >= AHEAD_VALUES:
            self._more.clear()
            await self._more.wait()
        self._ahead += 1
        self._answered(tool_running.value_answer(self._call.id, value, is_last=False))

    def _stopped(self) -> None:
        """Somebody has cancelled the task: where that was not us, the function itself has."""
        if not self._is_cancelled:
            error = RuntimeError(f"the tool {self._call.name!r} was cancelled in its own process")
            self._answered(tool_running.failed_answer(self._call.id, error))


def is_function(candidate: object) -> bool:
    """Whether it can be a tool."""
    return callable(candidate) and not inspect.isawaitable(candidate)
