"""Runs tools whose functions travel: in threads of this worker actor, or as Ray tasks.

- "worker" is code inside the supervisor. A function that crashes the process takes the worker along. Each
  worker has a copy of the function of its own.
- "task" is a Ray task for each call. It asks for no CPU, as a pool's interpreters do not by default.
- A function is unpickled once in each worker, when it is first called.
- Nothing of it runs on the event loop: unpickling, decoding and encoding are in the thread, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from contextvars import Context
from functools import cache, partial
from typing import Any

import ray

from snakepit_ray.core.tools.tool import TASK, Tool
from snakepit_ray.port import tool_running
from snakepit_ray.port.tool_messages import AHEAD_VALUES, ToolAnswer, ToolCall
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded, portable_buffers
from snakepit_ray.wire.failures import Failed
from snakepit_ray.worker.tool_hosts import Waits

THREADS = 64  # of one worker, for the tools that run in it: each has its thread while it waits


class ToolCode:
    """The functions of one worker's tools, by registration. `waits`: as in ToolHosts. A task cannot say when
    it calls a pool, so it counts as one that does."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._threads: ThreadPoolExecutor | None = None
        self._functions: dict[str, Any] = {}
        self._refs: dict[str, Any] = {}

    def forget(self, ids: set[str]) -> None:
        """These tools are no more."""
        for known in (self._functions, self._refs):
            for tool_id in ids & known.keys():
                del known[tool_id]

    async def call(self, tool: Tool, call: ToolCall) -> Encoded:
        """The value of a tool that gives one. Raises Failed."""
        with self._watched(tool, call) as calls_pool:
            if tool.info.where == TASK:
                return _value(await self._task(tool, call))
            job = self._pool().submit(Context().run, self._run, tool, call, calls_pool)
            return _value(await asyncio.wrap_future(job))

    async def stream(self, tool: Tool, call: ToolCall) -> AsyncGenerator[Encoded]:
        """The values of a tool that yields. Raises Failed."""
        values = self._task_values if tool.info.where == TASK else self._values
        with self._watched(tool, call) as calls_pool:
            async with aclosing(values(tool, call, calls_pool)) as answers:
                async for answer in answers:
                    value = _value(answer)
                    if answer.is_last:
                        return
                    yield value

    # ---- in a thread --------------------------------------------------------------------------------------

    def _run(self, tool: Tool, call: ToolCall, calls_pool: Callable[[], None]) -> ToolAnswer:
        return tool_running.run(self._function(tool), call, calls_pool)

    async def _values(
        self, tool: Tool, call: ToolCall, calls_pool: Callable[[], None]
    ) -> AsyncGenerator[ToolAnswer]:
        """All of a generator runs in one context, whichever thread it is."""
        context, values = Context(), self._made(tool, call, calls_pool)
        job: Future[ToolAnswer | None] | None = None
        try:
            while True:
                job = self._pool().submit(context.run, _next, values)
                answer = await asyncio.wrap_future(job)
                if answer is None:
                    return
                yield answer
        finally:
            if job is not None:  # a generator that runs cannot be closed: it is when it has yielded
                job.add_done_callback(lambda _: self._pool().submit(context.run, values.close))

    def _made(self, tool: Tool, call: ToolCall, calls_pool: Callable[[], None]) -> Generator[ToolAnswer]:
        yield from tool_running.values(self._function(tool), call, calls_pool)

    @contextmanager
    def _watched(self, tool: Tool, call: ToolCall) -> Iterator[Callable[[], None]]:
        """What the function's thread calls when it calls a pool."""
        loop, is_waiting = asyncio.get_running_loop(), False

        def waits() -> None:
            nonlocal is_waiting
            if not is_waiting and not is_over:
                is_waiting = True
                self._waits(call.request_id, True)

        is_over = False
        if tool.info.where == TASK:
            waits()
        try:
            yield partial(_on_loop, loop, waits)
        finally:
            is_over = True
            if is_waiting:
                self._waits(call.request_id, False)

    def _function(self, tool: Tool) -> Callable[..., Any]:
        function = self._functions.get(tool.id)
        if function is None:
            function = self._functions[tool.id] = ray.cloudpickle.loads(tool.code)
        return function  # type: ignore[no-any-return] # it was pickled as a function

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="snakepit-tool")
        return self._threads

    # ---- as a task ----------------------------------------------------------------------------------------

    async def _task(self, tool: Tool, call: ToolCall) -> ToolAnswer:
        ref = _task().remote(self._ref(tool), _portable(call))
        try:
            answer: ToolAnswer = await ref
        except asyncio.CancelledError:
            ray.cancel(ref)
            raise
        return answer

    async def _task_values(
        self, tool: Tool, call: ToolCall, calls_pool: Callable[[], None]
    ) -> AsyncGenerator[ToolAnswer]:
        ahead = {"_generator_backpressure_num_objects": AHEAD_VALUES}
        refs = _stream_task().options(**ahead).remote(self._ref(tool), _portable(call))
        try:
            async for ref in refs:
                yield await ref
        finally:
            ray.cancel(refs)

    def _ref(self, tool: Tool) -> Any:
        """The function in the object store: a call does not carry it."""
        ref = self._refs.get(tool.id)
        if ref is None:
            ref = self._refs[tool.id] = ray.put(tool.code)
        return ref


def _on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(call)


def _next(values: Iterator[ToolAnswer]) -> ToolAnswer | None:
    return next(values, None)


def _portable(call: ToolCall) -> ToolCall:
    return call._replace(buffers=portable_buffers(call.buffers))


def _value(answer: ToolAnswer) -> Encoded:
    """Raises Failed."""
    if answer.failure:
        raise Failed(pb.Failure.FromString(answer.failure))
    return Encoded(answer.json, list(answer.buffers), [])


@cache
def _task() -> Any:
    return ray.remote(num_cpus=0, max_retries=0)(_run_task)


@cache
def _stream_task() -> Any:
    return ray.remote(num_cpus=0, max_retries=0, num_returns="streaming")(_values_of_task)


def _run_task(code: bytes, call: ToolCall) -> ToolAnswer:
    return tool_running.run(ray.cloudpickle.loads(code), call)


def _values_of_task(code: bytes, call: ToolCall) -> Iterator[ToolAnswer]:
    yield from tool_running.values(ray.cloudpickle.loads(code), call)
