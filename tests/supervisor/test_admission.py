"""Who is let in and in which order, where several things happen in one turn of the loop. No interpreter."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.supervisor.accounts import Counters
from snakepit_ray.supervisor.admission import Admission
from snakepit_ray.supervisor.waiting_room import WaitingRoom


class Quiet:
    """A pool, a story and interpreters of which nothing is to be known."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: [] if name == "recall" else False


def full(ahead: int = 2) -> tuple[Admission, list[str]]:
    """One slot, with short commands: it is taken, and so are the places ahead of it."""
    quiet: Any = Quiet()
    admission = Admission(1, None, time.monotonic, quiet, quiet)
    admission.renew(may_go_ahead=True)
    admission.set_open(True)
    admission.took(0.0001)
    names = [f"r{number}" for number in range(1 + ahead)]
    assert all(admission.start_now(name) for name in names)
    return admission, names


def attempt(name: str) -> Any:
    return SimpleNamespace(
        request=SimpleNamespace(id=name),
        expires_at=time.monotonic() + 60,
        ends_at=time.monotonic() + 60,
        may_move=False,
        began=time.monotonic(),
    )


def test_who_comes_in_the_turn_in_which_others_may_start_goes_after_them() -> None:
    async def body() -> None:
        admission, names = full()
        quiet: Any = Quiet()
        room = WaitingRoom(admission, quiet, quiet, Counters(), pool="pool")
        order: list[str] = []

        async def enter(name: str) -> None:
            if not admission.start_now(name):
                await room.enter(attempt(name))
            order.append(name)

        waiting = asyncio.ensure_future(enter("waits"))
        await asyncio.sleep(0)
        later = [asyncio.ensure_future(enter(f"later-{number}")) for number in range(2)]
        for name in names:  # two answers in one message: there is room for one more than waits
            admission.release(name)
        await asyncio.gather(waiting, *later)
        assert order == ["waits", "later-0", "later-1"]
        assert admission.waiting == 2 and admission.slots.running == 1
        admission.close()

    asyncio.run(body())


def test_one_that_leaves_before_it_starts_holds_up_nobody() -> None:
    async def body() -> None:
        admission, names = full()
        assert admission.wait("waits", time.monotonic() + 60, False) is not None
        admission.release(names[0])
        assert not admission.start_now("late")
        admission.leave("waits")
        assert admission.start_now("late")
        admission.close()

    asyncio.run(body())


class Rooms:
    """An admission with its waiting room, in which requests come, are sent, and are over."""

    def __init__(self, capacity: int) -> None:
        quiet: Any = Quiet()
        self.admission = Admission(capacity, None, time.monotonic, quiet, quiet)
        self.admission.renew(may_go_ahead=True)
        self.admission.set_open(True)
        self.admission.took(0.0001)
        self.came, self.sent, self.over = list[str](), list[str](), 0
        self._room = WaitingRoom(self.admission, quiet, quiet, Counters(), pool="pool")
        self._tasks: list[asyncio.Future[None]] = []

    async def _enter(self, name: str) -> None:
        self.came.append(name)
        if not self.admission.start_now(name):
            await self._room.enter(attempt(name))
        self.sent.append(name)

    def arrive(self, count: int) -> None:
        for _ in range(count):
            self._tasks.append(asyncio.ensure_future(self._enter(f"r{len(self._tasks)}")))

    def release(self, count: int) -> None:
        for name in self.sent[self.over : self.over + count]:
            self.over += 1
            self.admission.release(name)

    async def end(self) -> None:
        while self.over < len(self._tasks):
            await asyncio.sleep(0)
            self.release(len(self._tasks))
        self.admission.close()


@given(capacity=st.integers(1, 2), steps=st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=30))
def test_whatever_happens_in_one_turn_they_are_sent_in_the_order_of_their_arrival(
    capacity: int, steps: list[tuple[int, int, int]]
) -> None:
    """In each turn some arrive, some of those that were sent are over, and some more arrive."""

    async def body() -> None:
        rooms = Rooms(capacity)
        for before, over, after in steps:
            rooms.arrive(before)
            rooms.release(over)
            rooms.arrive(after)
            await asyncio.sleep(0)
        await rooms.end()
        assert rooms.sent == rooms.came

    asyncio.run(body())
