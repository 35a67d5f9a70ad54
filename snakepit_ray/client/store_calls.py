"""The questions of one process to the store: of all its threads and event loops, by one thread and one link.

- Threads block, coroutines await, and neither holds up the link: questions of both leave together.
- Who finds nothing under way asks by itself, in the own thread or on the own loop. That costs two thirds of
  the way by the link, whose thread would only be woken twice for it. If the store is lost meanwhile the link
  asks again. Writes of coroutines always go by the link: it keeps their order where nobody awaits the first
  before the second begins.
- The thread begins with the first question. A process that was forked begins its own.
- An interrupt of a thread that waits ends the wait. What it has asked for may happen all the same.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from snakepit_ray.core.state.asked import Changes, Question, Watch
from snakepit_ray.core.state.backlog import is_write
from snakepit_ray.errors import SnakepitError
from snakepit_ray.port.store_link import BlockingDoor, Door, StoreLink, StoreLost, too_late
from snakepit_ray.process.awaiting import within

THREAD = "snakepit-store"
Waiting: TypeAlias = concurrent.futures.Future[Any]


class StoreCalls:
    """Asks a store. `connect` runs in the loop of the thread; see StoreLink. `seconds`: for each question."""

    def __init__(self, connect: Callable[[], Awaitable[Door]], seconds: float = 60.0) -> None:
        self._connect = connect
        self._default = seconds
        self._pid = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._lock = threading.RLock()  # nothing is put into a loop that ends; a signal handler may ask
        self._ended: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link = StoreLink(self._connect, self._default)
        self._inbox: deque[tuple[Question, Waiting, float | None]] = deque()
        self._is_woken = False
        self._alone = threading.Lock()  # of the one who asks by itself

    def ask(self, question: Question, seconds: float | None = None) -> Any:
        """The answer, within so many seconds. Blocks. Raises as `StoreLink.ask`."""
        budget = self._default if seconds is None else seconds
        # In an actor's coroutine Ray logs a warning of each ray.get, because it blocks the loop.
        door = self._own_way() if asyncio._get_running_loop() is None else None
        if door is not None:
            deadline = time.monotonic() + budget
            try:
                return _answer(door.ask_now([question], budget))
            except StoreLost:
                budget = max(0.0, deadline - time.monotonic())
            except TimeoutError:
                raise too_late(budget) from None
            finally:
                self._alone.release()
        future = self._put(question, budget)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def aask(self, question: Question, seconds: float | None = None) -> Any:
        """`ask` for asyncio, on any event loop."""
        budget = self._default if seconds is None else seconds
        door = None if is_write(question) else self._own_way()
        if door is not None:
            deadline = time.monotonic() + budget
            try:
                return _answer(await within(budget, door.ask([question])))
            except StoreLost:
                budget = max(0.0, deadline - time.monotonic())
            except asyncio.TimeoutError:
                raise too_late(budget) from None
            finally:
                self._alone.release()
        return await asyncio.wrap_future(self._put(question, budget))

    def watch(self, watch: Watch, seconds: float | None = None) -> concurrent.futures.Future[Changes]:
        """What has changed; see `StoreLink.watch`. Cancelling the future ends the question at the store."""
        self._look_for_a_fork()
        with self._lock:
            loop = self._running_loop()
            return asyncio.run_coroutine_threadsafe(self._link.watch(watch, seconds), loop)

    def close(self, error: Exception) -> None:
        """Asks nothing any more, and the thread ends. `error`: what everything that waits comes to, and what
        is asked later. Safe to repeat."""
        self._look_for_a_fork()
        with self._lock:
            if self._ended is None and self._loop is not None:
                self._loop.call_soon_threadsafe(self._end, self._loop, error)
            self._ended = self._ended or error

    # ---- the thread ---------------------------------------------------------------------------------------

    def _own_way(self) -> BlockingDoor | None:
        """The door for this asker alone, who is to release `_alone`; None where the link is to ask."""
        self._look_for_a_fork()
        with self._lock:
            door: Any = None if self._inbox or self._ended is not None else self._link.idle_door
            if hasattr(door, "ask_now") and self._alone.acquire(blocking=False):
                found: BlockingDoor = door
                return found
        return None

    def _put(self, question: Question, seconds: float | None) -> Waiting:
        future: Waiting = concurrent.futures.Future()
        self._look_for_a_fork()
        with self._lock:
            loop = self._running_loop()
            self._inbox.append((question, future, seconds))
            if not self._is_woken:
                self._is_woken = True
                loop.call_soon_threadsafe(self._take)
        return future

    def _take(self) -> None:
        """In the loop."""
        with self._lock:
            self._is_woken = False
            while self._inbox:
                self._link.begin(*self._inbox.popleft())

    def _end(self, loop: asyncio.AbstractEventLoop, error: Exception) -> None:
        self._take()
        self._link.close(error)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_soon(loop.stop)

    def _look_for_a_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._begin_anew()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._ended is not None:
            raise self._ended
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=_run, args=(self._loop,), name=THREAD, daemon=True).start()
        return self._loop


def _answer(answers: list[Any]) -> Any:
    (answer,) = answers
    if isinstance(answer, SnakepitError):
        raise answer
    return answer


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(_ended(asyncio.all_tasks(loop)))
    finally:
        loop.close()


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    """What is left of a loop that ends: it was cancelled."""
    await asyncio.gather(*tasks, return_exceptions=True)
