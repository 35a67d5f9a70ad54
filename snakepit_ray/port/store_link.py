"""One event loop's link to the store of sessions: questions that are asked at the same time leave together.

- Which questions share a message, and which wait for others: `core/state/backlog.py`.
- Each question has its own answer, its own error and its own deadline. One that is given up takes nothing
  from the others of its message.
- A store that is lost, or is being restarted, is asked again, with the same operation ids. What it has done
  already it answers, and does not do again. After its deadline a question ends with DeadlineExceeded.
- Messages leave in nobody's context, so that Ray takes them for the child of no request.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from snakepit_ray.core.state.asked import Changes, Question, Watch
from snakepit_ray.core.state.backlog import Backlog, Message
from snakepit_ray.errors import DeadlineExceeded, SnakepitError
from snakepit_ray.process.awaiting import within

T = TypeVar("T")
FIRST_PAUSE = 0.05  # seconds before a store that is lost is looked for again; each pause doubles
LONGEST_PAUSE = 1.0


class StoreLost(Exception):
    """What a door led to is gone, or does not answer for now. The same questions may be asked again."""


class Door(Protocol):
    """A way to the store. Both raise StoreLost."""

    def ask(self, questions: Sequence[Question]) -> Coroutine[Any, Any, list[Any]]:
        """An answer to each: its record, or an error of ours."""

    def watch(self, watch: Watch) -> Coroutine[Any, Any, Changes | SnakepitError]:
        """Its answer. Cancelling it ends the question at the store."""


class BlockingDoor(Door, Protocol):
    """A door that a thread can use by itself, too, and a coroutine on any loop."""

    def ask_now(self, questions: Sequence[Question], seconds: float) -> list[Any]:
        """`ask`, which blocks for at most so many seconds. Raises StoreLost, and TimeoutError after that."""


Future: TypeAlias = asyncio.Future[Any] | concurrent.futures.Future[Any]


class _Asked:
    """One question that waits for its answer."""

    __slots__ = ("future", "message", "question", "timer")

    def __init__(self, question: Question, future: Future) -> None:
        self.question = question
        self.future = future
        self.message: _UnderWay | None = None
        self.timer: asyncio.TimerHandle | None = None

    def settle(self, answer: Any) -> None:
        """Its outcome. Later ones change nothing."""
        if self.timer is not None:
            self.timer.cancel()
        with contextlib.suppress(asyncio.InvalidStateError, concurrent.futures.InvalidStateError):
            if self.future.done():
                return
            if isinstance(answer, Exception):
                self.future.set_exception(answer)
            else:
                self.future.set_result(answer)


class _UnderWay:
    """One message on its way."""

    __slots__ = ("message", "task")

    def __init__(self, message: Message[_Asked]) -> None:
        self.message = message
        self.task: asyncio.Task[None] | None = None
        for asked in message.asked:
            asked.message = self

    @property
    def open(self) -> list[_Asked]:
        """Those whose asker still waits."""
        return [asked for asked in self.message.asked if not asked.future.done()]

    def given_up(self) -> None:
        """Where nobody waits for its answers any more, others may leave in its place."""
        if self.task is not None and not self.open:
            self.task.cancel()


class StoreLink:
    """Asks the store. Belongs to the event loop that it is first used in.

    Args:
        connect: finds the store, or makes it. Raises StoreLost where it is to be tried again, and errors of
            ours, which are the answer to whatever waits.
        seconds: how long a question may take altogether, where nothing else is said.
    """

    def __init__(self, connect: Callable[[], Awaitable[Door]], seconds: float) -> None:
        self._connect = connect
        self._seconds = seconds
        self._door: Door | None = None
        self._connecting: asyncio.Task[Door] | None = None
        self._backlog: Backlog[_Asked] = Backlog()
        self._asked: set[_Asked] = set()
        self._leaves_soon = False

    async def ask(self, question: Question, seconds: float | None = None) -> Any:
        """The answer. Raises what the store answers as an error, and DeadlineExceeded after `seconds`."""
        future = asyncio.get_running_loop().create_future()
        self.begin(question, future, seconds)
        return await future

    def begin(self, question: Question, future: Future, seconds: float | None = None) -> None:
        """`ask` for a future of either kind, which gets the answer or the error."""
        loop = asyncio.get_running_loop()
        asked = _Asked(question, future)
        budget = self._seconds if seconds is None else seconds
        asked.timer = loop.call_later(budget, self._expire, asked, budget, context=contextvars.Context())
        self._asked.add(asked)
        self._backlog.add(asked, question)
        if not self._leaves_soon:
            self._leaves_soon = True
            loop.call_soon(self._leave, context=contextvars.Context())

    async def watch(self, watch: Watch, seconds: float | None = None) -> Changes:
        """What has changed, or nothing after `watch.seconds`. A store that is lost meanwhile is asked again.

        Raises what the store answers as an error, and DeadlineExceeded when it does not answer for `seconds`
        more."""
        loop = asyncio.get_running_loop()
        budget = self._seconds if seconds is None else seconds
        deadline, pause = loop.time() + watch.seconds + budget, FIRST_PAUSE
        while True:
            try:
                answer = await within(deadline - loop.time(), self._through(lambda door: door.watch(watch)))
                break
            except StoreLost:
                await asyncio.sleep(min(pause, max(0.0, deadline - loop.time())))
                pause = min(2 * pause, LONGEST_PAUSE)
            except asyncio.TimeoutError:
                raise too_late(budget) from None
        if isinstance(answer, SnakepitError):
            raise answer
        return answer

    @property
    def idle_door(self) -> Door | None:
        """The door, where it is open and nothing is under way. Any thread may look."""
        return None if self._asked else self._door

    def close(self, error: Exception) -> None:
        """Nothing is answered any more: `error` is what everything that waits comes to."""
        for asked in [*self._asked]:
            self._settle(asked, error)

    # ---- messages -----------------------------------------------------------------------------------------

    def _leave(self) -> None:
        self._leaves_soon = False
        while (message := self._backlog.next()) is not None:
            under_way = _UnderWay(message)
            under_way.task = _nobodys_task(self._travel(under_way))
            under_way.task.add_done_callback(functools.partial(self._ended, message))

    def _ended(self, message: Message[_Asked], task: asyncio.Task[None]) -> None:
        self._backlog.ended(message)
        self._leave()

    async def _travel(self, under_way: _UnderWay) -> None:
        pause = FIRST_PAUSE
        while asked := under_way.open:
            try:
                answers = await self._answers([one.question for one in asked])
                for one, answer in zip(asked, answers, strict=True):
                    self._settle(one, answer)
            except StoreLost:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait until the deadline
                for one in under_way.open:
                    self._settle(one, error)

    def _answers(self, questions: Sequence[Question]) -> Awaitable[list[Any]]:
        # What is given up here goes on at the store: a write that is half done must not be cancelled there.
        return self._through(lambda door: asyncio.shield(door.ask(questions)))

    def _expire(self, asked: _Asked, budget: float) -> None:
        self._settle(asked, too_late(budget))
        if asked.message is not None:
            asked.message.given_up()

    def _settle(self, asked: _Asked, answer: Any) -> None:
        self._asked.discard(asked)
        asked.settle(answer)

    # ---- the door -----------------------------------------------------------------------------------------

    async def _through(self, ask: Callable[[Door], Awaitable[T]]) -> T:
        door = await self._open_door()
        try:
            return await ask(door)
        except StoreLost:
            if self._door is door:
                self._door = None
            raise

    async def _open_door(self) -> Door:
        if self._door is None:
            if self._connecting is None:
                self._connecting = _nobodys_task(self._connected())
            return await asyncio.shield(self._connecting)
        return self._door

    async def _connected(self) -> Door:
        try:
            self._door = door = await self._connect()
            return door
        finally:
            self._connecting = None


def too_late(budget: float) -> DeadlineExceeded:
    """For a question that the store has not answered within `budget` seconds."""
    return DeadlineExceeded(
        f"the store of sessions did not answer within {budget:g} s: it is being restarted, or its node is "
        "overloaded; what was to be changed may have been changed, so read before you write again",
        budget_s=budget,
        where="waiting",
    )


def _nobodys_task(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return contextvars.Context().run(asyncio.get_running_loop().create_task, work)
