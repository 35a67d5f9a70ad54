"""Questions to the store: each is answered once, in order, whatever is lost, repeated or late on the way."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.state.asked import Changes, Data, Get, Put, Question, Watch, Wrote
from snakepit_ray.core.state.backlog import READS, WRITES, is_write
from snakepit_ray.core.state.writes import Set
from snakepit_ray.errors import ConfigError, DeadlineExceeded, SessionNotFound
from snakepit_ray.port.store_link import StoreLink, StoreLost
from tests.virtual_time import VirtualLoop, run

BUDGET = 64.0


def read(name: str = "x") -> Get:
    return Get("s", (name,))


def write(number: int, session: str = "s") -> Put:
    return Put(session, f"op-{number}", (Set("x", Data(str(number).encode())),))


class World:
    """A store: writes are applied once for each op, and their order is kept. `fate` says what becomes of each
    message: (seconds until it arrives, seconds until it is answered, whether the answer is lost)."""

    def __init__(
        self, fates: Sequence[tuple[float, float, bool]] = (), refuse: Callable[[], None] = lambda: None
    ):
        self.fates = list(fates)
        self.refuse = refuse
        self.messages: list[list[Question]] = []
        self.connected = 0
        self.applied: dict[str, list[str]] = defaultdict(list)
        self.arrivals: Counter[str] = Counter()
        self.answers: dict[str, Any] = {}
        self.present = self.most_present = 0
        self.watched: list[Watch] = []
        self.ended_watches = 0

    async def connect(self) -> World:
        self.refuse()
        self.connected += 1
        return self

    async def ask(self, questions: Sequence[Question]) -> list[Any]:
        self.messages.append([*questions])
        self.present += 1
        self.most_present = max(self.present, self.most_present)
        arrives, answers, is_lost = self.fates.pop(0) if self.fates else (0.0, 0.0, False)
        try:
            await asyncio.sleep(arrives)
            if is_lost and answers == 0.0:
                raise StoreLost
            given = [self.answer(question) for question in questions]
            await asyncio.sleep(answers)
            if is_lost:
                raise StoreLost
            return given
        finally:
            self.present -= 1

    def answer(self, question: Any) -> Any:
        if not is_write(question):
            return question.names[0] if question.session == "s" else SessionNotFound.named(question.session)
        self.arrivals[question.op] += 1
        if question.op not in self.answers:
            self.applied[question.session].append(question.op)
            self.answers[question.op] = Wrote(1, ())
        return self.answers[question.op]

    async def watch(self, watch: Watch) -> Any:
        self.watched.append(watch)
        arrives, answers, is_lost = self.fates.pop(0) if self.fates else (watch.seconds, 0.0, False)
        try:
            await asyncio.sleep(arrives)
        finally:
            self.ended_watches += 1
        if is_lost:
            raise StoreLost
        return Changes(1, int(answers))


def test_what_is_asked_in_one_turn_leaves_together_and_reads_apart_from_writes() -> None:
    async def body(loop: VirtualLoop) -> None:
        world = World()
        link = StoreLink(world.connect, BUDGET)
        asked = [link.ask(read(str(number))) for number in range(3)] + [link.ask(write(1))]
        assert (await asyncio.gather(*asked))[:3] == ["0", "1", "2"]
        assert sorted(len(message) for message in world.messages) == [1, 3]
        assert world.connected == 1

    run(body)


def test_each_question_has_its_own_error() -> None:
    async def body(loop: VirtualLoop) -> None:
        link = StoreLink(World().connect, BUDGET)
        answers = await asyncio.gather(
            link.ask(read("a")), link.ask(Get("t", ("b",))), return_exceptions=True
        )
        assert answers[0] == "a"
        assert isinstance(answers[1], SessionNotFound)

    run(body)


def test_few_messages_are_under_way_and_the_rest_gathers() -> None:
    async def body(loop: VirtualLoop) -> None:
        world = World([(1.0, 0.0, False)] * 20)
        link = StoreLink(world.connect, BUDGET)
        tasks = []
        for number in range(20):
            tasks.append(asyncio.ensure_future(link.ask(read(str(number)))))
            await asyncio.sleep(1 / 1024)
        assert await asyncio.gather(*tasks) == [str(number) for number in range(20)]
        assert world.most_present == READS
        assert [len(message) for message in world.messages] == [1] * READS + [20 - READS]

    run(body)


def test_a_read_does_not_wait_for_writes_that_wait_for_a_lease() -> None:
    async def body(loop: VirtualLoop) -> None:
        world = World([(0.0, 2.0, False)] * WRITES)
        link = StoreLink(world.connect, BUDGET)
        writes = []
        for number in range(WRITES + 1):
            writes.append(asyncio.ensure_future(link.ask(write(number, str(number)))))
            await asyncio.sleep(1 / 1024)
        began = loop.time()
        assert await link.ask(read("x")) == "x"
        assert loop.time() == began
        await asyncio.gather(*writes)

    run(body)


def test_a_store_that_is_lost_is_looked_for_again_and_asked_the_same() -> None:
    async def body(loop: VirtualLoop) -> None:
        world = World([(0.0, 1.0, True), (0.0, 0.0, True), (0.0, 0.0, False)])
        link = StoreLink(world.connect, BUDGET)
        assert await link.ask(write(1)) == Wrote(1, ())
        assert world.arrivals == {"op-1": 2}  # the second message did not arrive
        assert world.applied == {"s": ["op-1"]}
        assert world.connected == 3

    run(body)


def test_a_question_ends_after_its_budget_and_says_who_was_silent() -> None:
    async def body(loop: VirtualLoop) -> None:
        world = World([(1000.0, 0.0, False)] * READS)
        link = StoreLink(world.connect, BUDGET)
        began = loop.time()
        with pytest.raises(DeadlineExceeded, match=r"the store of sessions did not answer within 2 s"):
            await link.ask(read(), 2.0)
        assert loop.time() - began == 2.0

    run(body)


def test_messages_that_nobody_waits_for_any_more_hold_up_no_others() -> None:
    async def body(loop: VirtualLoop) -> None:
        world = World([(1000.0, 0.0, False)] * WRITES)
        link = StoreLink(world.connect, BUDGET)
        silent = []
        for number in range(WRITES):
            silent.append(asyncio.ensure_future(link.ask(write(number, str(number)), 2.0)))
            silent.append(asyncio.ensure_future(link.ask(write(100 + number, str(number)), 1.0)))
            await asyncio.sleep(1 / 1024)
        ended = await asyncio.gather(*silent, return_exceptions=True)
        assert {type(one) for one in ended} == {DeadlineExceeded}
        assert await link.ask(write(9)) == Wrote(1, ())

    run(body)


def test_no_store_to_be_had_is_the_answer_to_what_waits() -> None:
    def refuse() -> None:
        raise ConfigError("the disk is read-only")

    async def body(loop: VirtualLoop) -> None:
        world = World(refuse=refuse)
        link = StoreLink(world.connect, BUDGET)
        asked = [link.ask(read()), link.ask(write(1)), link.watch(Watch("s"))]
        for error in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(error, ConfigError)
        world.refuse = lambda: None
        assert await link.ask(read("x")) == "x"

    run(body)


def test_an_asker_that_is_cancelled_takes_nothing_from_the_others() -> None:
    async def body(loop: VirtualLoop) -> None:
        world = World([(1.0, 0.0, False)])
        link = StoreLink(world.connect, BUDGET)
        first, second = (asyncio.ensure_future(link.ask(read(name))) for name in "ab")
        await asyncio.sleep(0.5)
        first.cancel()
        assert await second == "b"
        assert first.cancelled()

    run(body)


def test_the_future_of_a_thread_is_settled_in_the_same_way() -> None:
    async def body(loop: VirtualLoop) -> None:
        link = StoreLink(World().connect, BUDGET)
        futures = [concurrent.futures.Future[Any]() for _ in range(3)]
        link.begin(read("a"), futures[0])
        link.begin(Get("t", ("b",)), futures[1])
        link.begin(read("c"), futures[2])
        futures[2].cancel()
        await link.ask(read("d"))
        assert futures[0].result(0) == "a"
        assert isinstance(futures[1].exception(0), SessionNotFound)

    run(body)


def test_a_watch_is_asked_again_when_the_store_is_lost() -> None:
    async def body(loop: VirtualLoop) -> None:
        world = World([(1.0, 0.0, True), (1.0, 7.0, False)])
        link = StoreLink(world.connect, BUDGET)
        assert (await link.watch(Watch("s", cursor=3))).cursor == 7
        assert world.watched == [Watch("s", cursor=3)] * 2
        assert world.connected == 2

    run(body)


def test_a_watch_that_is_given_up_ends_at_the_store() -> None:
    async def body(loop: VirtualLoop) -> None:
        world = World([(1000.0, 0.0, False)])
        link = StoreLink(world.connect, BUDGET)
        watching = asyncio.ensure_future(link.watch(Watch("s")))
        await asyncio.sleep(1.0)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert world.ended_watches == 1

    run(body)


def test_a_store_that_answers_no_watch_is_late() -> None:
    async def body(loop: VirtualLoop) -> None:
        world = World([(1000.0, 0.0, False)])
        link = StoreLink(world.connect, BUDGET)
        began = loop.time()
        with pytest.raises(DeadlineExceeded):
            await link.watch(Watch("s", seconds=16.0), 4.0)
        assert loop.time() - began == 20.0

    run(body)


FATES = st.tuples(st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from([0.0, 0.5, 2.0]), st.booleans())


@given(
    fates=st.lists(FATES, max_size=30),
    asked=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0, 1, 300])), max_size=40),
)
def test_at_most_once_and_in_order_whatever_becomes_of_messages(
    fates: list[tuple[float, float, bool]], asked: list[tuple[str, int]]
) -> None:
    async def body(loop: VirtualLoop) -> None:
        world = World(fates)
        link = StoreLink(world.connect, BUDGET)
        tasks = []
        for number, (session, pause) in enumerate(asked):
            tasks.append(asyncio.ensure_future(link.ask(write(number, session))))
            await asyncio.sleep(pause / 1024)
        assert await asyncio.gather(*tasks) == [Wrote(1, ())] * len(asked)
        for session in "ab":
            expected = [f"op-{number}" for number, (to, _) in enumerate(asked) if to == session]
            assert world.applied[session] == expected
        assert world.most_present <= WRITES

    run(body)
