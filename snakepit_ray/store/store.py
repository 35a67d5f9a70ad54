"""The store of sessions: asks its rules, does what they order, answers.

- It belongs to the running loop. Its clocks and its disk are arguments.
- Questions that come together are put to the rules together, so that their writes share a commit.
- What the rules order is done at once and in order; what takes time says later that it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from snakepit_ray.core.state.asked import Changes, Ended, Question, StoreStats, Watch
from snakepit_ray.core.state.desk import Beginning
from snakepit_ray.core.state.leases import Lease
from snakepit_ray.core.state.orders import Orders
from snakepit_ray.core.state.store import StoreCore
from snakepit_ray.errors import SnakepitError
from snakepit_ray.store import values
from snakepit_ray.store.committer import Durable, Failed, Loaded, Result
from snakepit_ray.store.disk import Disk
from snakepit_ray.store.waiting import Message, Watcher

Clock = Callable[[], float]
T = TypeVar("T")
PORTION = 100  # sessions that are looked at in one piece while others wait
SWEEP_SECONDS = 60.0
ENDED_SECONDS = 0.05
TOLD_TOGETHER = 1_000  # sessions that have ended, in one message


class Holder(Protocol):
    """A process that keeps copies of sessions under leases."""

    def let_go(self, leases: Sequence[Lease]) -> None:
        """Ends the copies of these leases; then `Store.released` is to be called with them."""

    def sessions_ended(self, ended: Sequence[Ended]) -> None:
        """These sessions are no more."""


class Store:
    """What sessions remember, for everybody who asks. `disk`: None: in memory alone. `sweep_seconds`: between
    two sweeps. `open_after`: seconds in which a store in memory answers nothing, because leases of one before
    it may be out."""

    def __init__(
        self,
        disk: Disk | None = None,
        sweep_seconds: float = SWEEP_SECONDS,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        open_after: float = 0.0,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._disk = disk
        self._beginning = _anew(clock, wall, open_after) if disk is None else disk.beginning
        self._core = StoreCore(self._beginning, values.accepted)
        self._loop = asyncio.get_running_loop()
        self._messages: dict[int, tuple[Message, int]] = {}
        self._holders: dict[str, Holder] = {}
        self._watchers: defaultdict[str, set[Watcher]] = defaultdict(set)
        self._recalled: dict[Lease, float] = {}
        self._ended: list[Ended] = []  # that nobody was told of yet
        self._timer: asyncio.TimerHandle | None = None
        self._sweeping = asyncio.ensure_future(self._sweep(sweep_seconds))
        if disk is not None:
            disk.listen(self._hear)

    # ---- questions ----------------------------------------------------------------------------------------

    async def ask(self, questions: Sequence[Question]) -> list[Any]:
        """An answer to each question, in their order: its record, or a SnakepitError (returned, not raised).

        Questions about one session take effect in their order."""
        disk = self._disk
        if disk is None:
            return await self._put([_own(question) for question in questions])
        if any(map(values.is_large, questions)):
            answers = await asyncio.gather(*(self._ask_filed(disk, question) for question in questions))
        else:
            answers = await self._put([_own(question) for question in questions])
        for index, answer in enumerate(answers):
            if isinstance(answer, StoreStats):
                answers[index] = replace(answer, bytes=await disk.size())
        return answers

    async def _ask_filed(self, disk: Disk, question: Question) -> Any:
        """Writes the files of a question before it is put; those without files do not wait for it."""
        try:
            is_large = values.is_large(question)
            plain = await disk.filed(question) if is_large else _own(question)
        except SnakepitError as error:
            return error
        return (await self._put([plain]))[0]

    async def watch(self, watch: Watch) -> Changes | SnakepitError:
        """The changes after the watch's cursor, as soon as there are some, or none when its time is over."""
        watcher = Watcher(self._loop)
        watchers = self._watchers[watch.session]
        watchers.add(watcher)
        try:
            return await self._watch(watch, watcher)
        finally:
            watchers.discard(watcher)
            if not watchers and self._watchers.get(watch.session) is watchers:
                del self._watchers[watch.session]

    async def _watch(self, watch: Watch, watcher: Watcher) -> Changes | SnakepitError:
        end = self._clock() + watch.seconds
        is_use = True
        while True:
            watcher.is_woken = False
            (answer,) = await self._put([watch], is_use)
            is_use = False
            is_over = not isinstance(answer, Changes) or answer.changes
            if is_over or not await watcher.wait(end - self._clock()):
                found: Changes | SnakepitError = answer
                return found

    async def _put(self, questions: Sequence[Question | Watch], is_use: bool = True) -> list[Any]:
        if not questions:
            return []
        message = Message(len(questions))
        now, at = self._clock(), self._wall()
        for index, question in enumerate(questions):
            refusal = None if isinstance(question, Watch) else values.refusal(question)
            if refusal is not None:
                message.answer(index, refusal)
            else:
                self._messages[self._core.ask(question, now, at, is_use)] = message, index
        self._perform()
        return await message.whole

    # ---- holders ------------------------------------------------------------------------------------------

    def attach(self, holder: str, to: Holder) -> int:
        """`holder` may have leases from now on, and hears of sessions that end. Returns: the store's number,
        as its leases have it."""
        self._holders[holder] = to
        self._core.reading.holders.add(holder)
        return self._beginning.store

    def knows(self, holder: str) -> bool:
        """Whether it is attached."""
        return holder in self._holders

    def detach(self, holder: str) -> None:
        """The holder is gone; its leases end by their time. Safe to repeat."""
        self._holders.pop(holder, None)
        self._core.reading.holders.discard(holder)

    def released(self, leases: Sequence[Lease]) -> None:
        """The copies of these leases have ended. Safe to repeat."""
        for lease in leases:
            self._recalled.pop(lease, None)
        self._core.released(leases, self._clock(), self._wall())
        self._perform()

    # ---- orders -------------------------------------------------------------------------------------------

    def _perform(self) -> None:
        """Does what the rules order, until they order nothing more."""
        orders = self._core.take()
        while not orders.are_done:
            self._do(orders)
            orders = self._core.take()
        self._set_timer()

    def _do(self, orders: Orders) -> None:
        for answer in orders.answers:
            message, index = self._messages.pop(answer.number)
            message.answer(index, self._completed(answer.value))
        for session in orders.woken:
            for watcher in self._watchers.get(session, ()):
                watcher.wake()
        if self._disk is not None:
            self._disk.commit(orders.transactions)
            for load in orders.loads:
                self._disk.load(load)
        elif orders.transactions:
            numbers = [one.number for one in orders.transactions]
            self._core.durable(numbers, self._clock(), self._wall())
        self._recall(orders.recalls)
        if orders.ended and not self._ended:
            self._loop.call_later(ENDED_SECONDS, self._tell_ended)
        self._ended += orders.ended

    def _tell_ended(self) -> None:
        """Sessions that end at about the same time are told together: there may be many holders."""
        ended, self._ended = self._ended, []
        for begin in range(0, len(ended), TOLD_TOGETHER):
            for holder in list(self._holders.values()):
                holder.sessions_ended(ended[begin : begin + TOLD_TOGETHER])

    def _hear(self, results: Sequence[Result]) -> None:
        """What has come of orders at the disk."""
        now, at = self._clock(), self._wall()
        for result in results:
            if isinstance(result, Durable):
                self._core.durable(result.numbers, now, at)
            elif isinstance(result, Failed):
                self._core.failed(result.number, result.error, now, at)
            elif isinstance(result, Loaded):
                self._core.loaded(result.load, result.content, now, at)
        self._perform()

    def _recall(self, leases: Sequence[Lease]) -> None:
        by_holder: defaultdict[str, list[Lease]] = defaultdict(list)
        for lease in leases:
            if lease not in self._recalled:  # else it is on its way
                self._recalled[lease] = self._clock()
                by_holder[lease.holder].append(lease)
        for name, own in by_holder.items():
            holder = self._holders.get(name)
            if holder is not None:
                holder.let_go(own)

    def _completed(self, answer: Any) -> Any:
        """The answer with what the rules do not know."""
        disk = self._disk
        if isinstance(answer, StoreStats):
            watchers = sum(map(len, self._watchers.values()))
            if disk is None:
                return replace(answer, watchers=watchers)
            return replace(
                answer,
                watchers=watchers,
                kind="sqlite",
                path=str(disk.path),
                reset_from=disk.reset_from,
                full=disk.full,
            )
        try:
            return answer if disk is None else values.opened(answer, disk.opened)
        except SnakepitError as error:
            return error

    # ---- time ---------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._core.next_tick()
        if at is not None:
            self._timer = self._loop.call_later(max(0.0, at - self._clock()), self._tick)

    def _tick(self) -> None:
        self._core.tick(self._clock(), self._wall())
        self._perform()

    async def _sweep(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            while self._core.sweep(PORTION, self._clock(), self._wall()):
                self._perform()
                await asyncio.sleep(0)
            self._perform()
            if self._disk is not None:
                with contextlib.suppress(OSError):
                    await self._disk.sweep_files()
            oldest = self._clock() - seconds
            self._recalled = {lease: since for lease, since in self._recalled.items() if since > oldest}

    async def close(self) -> None:
        """Ends what runs. Safe to repeat."""
        self._sweeping.cancel()
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sweeping
        if self._disk is not None:
            await self._disk.close(self._core.is_free(self._clock(), self._wall()))


def _own(question: Question) -> Question:
    """The question with its data in this process."""
    return question if values.is_in_memory(question) else values.changed(question, values.in_memory)


def _anew(clock: Clock, wall: Clock, open_after: float) -> Beginning:
    """Of a store that finds nothing. Its numbers are higher than those of stores that began before."""
    number = int(wall() * 1000)
    return Beginning(number, number, clock() + open_after)
