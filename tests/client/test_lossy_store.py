"""Callers, their link and a store together: messages are late, lost on either way, or come twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.client.talks import Access
from snakepit_ray.client.variable_talks import VariableTalks
from snakepit_ray.client.variables import Variables
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.state.asked import Question, Watch
from snakepit_ray.errors import VersionConflict
from snakepit_ray.port.store_link import StoreLink, StoreLost
from snakepit_ray.store.store import Store
from snakepit_ray.testing.fake.tools import FakeTools
from tests.virtual_time import VirtualLoop, run

BUDGET = 512.0


class Fate(NamedTuple):
    """What becomes of a message: seconds on its way there and back, how often it comes, and whether the
    answer is lost."""

    there: float
    back: float
    times: int
    is_lost: bool


FATES = st.lists(
    st.builds(
        Fate,
        st.sampled_from([0.0, 0.25, 1.0]),
        st.sampled_from([0.0, 0.5]),
        st.sampled_from([0, 1, 1, 2]),
        st.booleans(),
    ),
    max_size=40,
)


class LossyDoor:
    """The way to a store, on which each message takes its fate from a list. With none left all goes well."""

    def __init__(self, store: Store, fates: list[Fate]) -> None:
        self._store = store
        self._fates = fates

    async def ask(self, questions: Sequence[Question]) -> list[Any]:
        fate = self._fates.pop(0) if self._fates else Fate(0.0, 0.0, 1, False)
        await asyncio.sleep(fate.there)
        for _ in range(fate.times - 1):
            await self._store.ask(questions)
        if not fate.times:
            raise StoreLost
        answers = await self._store.ask(questions)
        await asyncio.sleep(fate.back)
        if fate.is_lost:
            raise StoreLost
        return answers

    async def watch(self, watch: Watch) -> Any:
        return await self._store.watch(watch)


class LoopCalls:
    """Asks from the loop of the test."""

    def __init__(self, link: StoreLink) -> None:
        self._link = link

    def ask(self, question: Question, seconds: float | None = None) -> Any:
        raise AssertionError("a test that runs on one loop does not block")

    async def aask(self, question: Question, seconds: float | None = None) -> Any:
        return await self._link.ask(question, BUDGET)

    def watch(self, watch: Watch, seconds: float | None = None) -> Any:
        raise AssertionError("nobody watches")


def variables_of(store: Store, fates: Sequence[Fate]) -> Variables:
    """One process's view of the session."""
    left = [*fates]

    async def connect() -> LossyDoor:
        return LossyDoor(store, left)

    calls = LoopCalls(StoreLink(connect, BUDGET))
    return Variables(VariableTalks(Access(PoolConfig(), lambda: calls, bytearray, FakeTools("p")), "s"))


def run_with_store(body: Callable[[VirtualLoop, Store], Coroutine[Any, Any, None]]) -> None:
    """Runs a test with a store that is empty."""

    async def whole(loop: VirtualLoop) -> None:
        store = Store(clock=loop.time, wall=loop.time)
        try:
            await body(loop, store)
        finally:
            await store.close()

    run(whole)


@given(st.lists(FATES, min_size=2, max_size=3), st.integers(1, 6))
def test_increments_are_exact(fates: list[list[Fate]], increments: int) -> None:
    async def body(loop: VirtualLoop, store: Store) -> None:
        processes = [variables_of(store, each) for each in fates]
        await processes[0].aregister("n", "integer", 0)
        versions: list[int] = []

        async def increment(variables: Variables) -> None:
            for _ in range(increments):
                while True:
                    value, version = await variables.aget_versioned("n")
                    try:
                        versions.append(await variables.aset("n", value + 1, expected_version=version))
                        break
                    except VersionConflict:
                        continue

        await asyncio.gather(*map(increment, processes))
        total = increments * len(processes)
        assert await processes[0].aget_versioned("n") == (total, total + 1)
        assert sorted(versions) == [*range(2, total + 2)]

    run_with_store(body)


@given(FATES, st.lists(st.booleans(), min_size=1, max_size=25))
def test_writes_that_are_not_waited_for_keep_their_order(fates: list[Fate], pauses: list[bool]) -> None:
    async def body(loop: VirtualLoop, store: Store) -> None:
        variables = variables_of(store, fates)
        await variables.aregister("n", "integer", -1)
        tasks = []
        for number, pause in enumerate(pauses):
            tasks.append(asyncio.ensure_future(variables.aset("n", number)))
            await asyncio.sleep(0.125 if pause else 0)
        assert await asyncio.gather(*tasks) == [*range(2, len(pauses) + 2)]
        assert await variables.aget("n") == len(pauses) - 1

    run_with_store(body)


@given(FATES)
def test_what_was_acknowledged_is_read_by_everybody(fates: list[Fate]) -> None:
    async def body(loop: VirtualLoop, store: Store) -> None:
        writer, reader = variables_of(store, fates[::2]), variables_of(store, fates[1::2])
        await writer.aregister("n", "integer", 0)
        for number in range(1, 6):
            await writer.aset("n", number)
            assert await reader.aget("n") == number

    run_with_store(body)
