"""The questions of one process: threads and event loops share one link, and a forked process has its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from snakepit_ray.client.store_calls import THREAD, StoreCalls
from snakepit_ray.core.state.asked import Changes, Get, Question, Remove, Watch
from snakepit_ray.core.state.backlog import READS
from snakepit_ray.errors import DeadlineExceeded, PoolClosed, SessionNotFound
from snakepit_ray.port.store_link import StoreLost
from tests.conftest import wait_until


class Door:
    """Answers with the name that was asked for, once it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.messages: list[Sequence[Question]] = []
        self.threads: set[str] = set()
        self.watches = 0

    async def ask(self, questions: Sequence[Question]) -> list[Any]:
        self.messages.append(questions)
        self.threads.add(threading.current_thread().name)
        while not self.opened.is_set():  # noqa: ASYNC110 - an event of another thread
            await asyncio.sleep(0.001)
        return [
            question.names[0]
            if isinstance(question, Get) and question.names[0] != "none"
            else SessionNotFound.named("s")
            for question in questions
        ]

    async def watch(self, watch: Watch) -> Changes:
        self.watches += 1
        try:
            await asyncio.sleep(3600)
        finally:
            self.watches -= 1
        raise AssertionError


class OwnWay(Door):
    """A thread can use it by itself, too. `fails`: with what the next one that does is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.opened.set()
        self.alone: list[tuple[str, Sequence[Question]]] = []
        self.fails: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()

    def ask_now(self, questions: Sequence[Question], seconds: float) -> list[Any]:
        self.alone.append((threading.current_thread().name, questions))
        self.gate.wait(20)
        if self.fails:
            raise self.fails.pop()
        return [question.names[0] for question in questions if isinstance(question, Get)]


@pytest.fixture
def own_way() -> OwnWay:
    return OwnWay()


@pytest.fixture
def own_calls(own_way: OwnWay) -> Iterator[StoreCalls]:
    async def connect() -> OwnWay:
        return own_way

    calls = StoreCalls(connect)
    assert calls.ask(get("first")) == "first"  # the link opens the door
    assert own_way.alone == []
    yield calls
    calls.close(PoolClosed("it was shut down"))
    wait_until(lambda: all(thread.name != THREAD for thread in threading.enumerate()))


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def calls(door: Door) -> Iterator[StoreCalls]:
    async def connect() -> Door:
        return door

    calls = StoreCalls(connect)
    yield calls
    door.opened.set()
    calls.close(PoolClosed("it was shut down"))
    wait_until(lambda: all(thread.name != THREAD for thread in threading.enumerate()))


def get(name: object) -> Get:
    return Get("s", (str(name),))


def test_what_many_threads_ask_at_once_leaves_in_few_messages(door: Door, calls: StoreCalls) -> None:
    with ThreadPoolExecutor(100) as threads:
        answers = [threads.submit(calls.ask, get(number)) for number in range(100)]
        wait_until(lambda: len(calls._link._asked) == 100)
        door.opened.set()
        assert [answer.result(20) for answer in answers] == [str(number) for number in range(100)]
    assert len(door.messages) <= READS + 1
    assert door.threads == {THREAD}


def test_tasks_of_any_loop_and_threads_share_the_messages(door: Door, calls: StoreCalls) -> None:
    async def ask() -> list[str]:
        return [*await asyncio.gather(*(calls.aask(get(number)) for number in range(50)))]

    with ThreadPoolExecutor(12) as threads:
        loops = [threads.submit(asyncio.run, ask()) for _ in range(2)]
        ones = [threads.submit(calls.ask, get(number)) for number in range(10)]
        wait_until(lambda: len(calls._link._asked) == 110)
        door.opened.set()
        assert [one.result(20) for one in loops] == [[str(number) for number in range(50)]] * 2
        assert [one.result(20) for one in ones] == [str(number) for number in range(10)]
    assert len(door.messages) <= READS + 1


def test_an_error_is_raised_where_it_was_asked(door: Door, calls: StoreCalls) -> None:
    door.opened.set()
    with pytest.raises(SessionNotFound):
        calls.ask(get("none"))
    with pytest.raises(SessionNotFound):
        asyncio.run(calls.aask(get("none")))
    assert calls.ask(get("some")) == "some"


def test_a_budget_that_is_used_up(calls: StoreCalls) -> None:
    with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
        calls.ask(get("x"), 0.05)


def test_the_end_is_the_answer_to_what_waits(door: Door, calls: StoreCalls) -> None:
    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(calls.ask, get("x"))
        watched = calls.watch(Watch("s"))
        wait_until(lambda: door.messages and door.watches)
        calls.close(PoolClosed("it was shut down"))
        with pytest.raises(PoolClosed):
            asked.result(20)
        wait_until(watched.done)
        assert watched.cancelled()
        with pytest.raises(PoolClosed):
            calls.ask(get("x"))
    assert door.watches == 0


def test_a_watch_that_is_cancelled_ends_at_the_store(door: Door, calls: StoreCalls) -> None:
    watched = calls.watch(Watch("s"))
    wait_until(lambda: door.watches == 1)
    watched.cancel()
    wait_until(lambda: door.watches == 0)


def test_a_thread_that_finds_nothing_under_way_asks_by_itself(own_way: OwnWay, own_calls: StoreCalls) -> None:
    me = threading.current_thread().name
    assert [own_calls.ask(get(number)) for number in range(3)] == ["0", "1", "2"]
    assert own_way.alone == [(me, [get(number)]) for number in range(3)]
    assert len(own_way.messages) == 1


def test_while_a_thread_asks_by_itself_others_ask_by_the_link(own_way: OwnWay, own_calls: StoreCalls) -> None:
    own_way.gate.clear()
    with ThreadPoolExecutor(10) as threads:
        first = threads.submit(own_calls.ask, get("a"))
        wait_until(lambda: own_way.alone)
        assert [*threads.map(own_calls.ask, map(get, "bcd"))] == ["b", "c", "d"]
        own_way.gate.set()
        assert first.result(20) == "a"
    assert len(own_way.alone) == 1


def test_what_is_under_way_is_not_overtaken(own_way: OwnWay, own_calls: StoreCalls) -> None:
    own_way.opened.clear()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(asyncio.run, own_calls.aask(Remove("s", "1")))
        wait_until(lambda: len(own_way.messages) == 2)
        second = threads.submit(own_calls.ask, get("b"))
        wait_until(lambda: len(own_way.messages) == 3)
        own_way.opened.set()
        assert second.result(20) == "b"
        assert isinstance(first.exception(20), SessionNotFound)
    assert own_way.alone == []


def test_a_read_of_a_task_goes_from_its_own_loop_and_writes_by_the_link(
    own_way: OwnWay, own_calls: StoreCalls
) -> None:
    me = threading.current_thread().name

    async def body() -> None:
        assert await own_calls.aask(get("a")) == "a"
        assert own_way.threads == {me, THREAD}
        own_way.threads.clear()
        with pytest.raises(SessionNotFound):
            await own_calls.aask(Remove("s", "1"))
        assert own_way.threads == {THREAD}
        assert await asyncio.gather(*(own_calls.aask(get(number)) for number in range(50))) == [
            str(number) for number in range(50)
        ]

    asyncio.run(body())


def test_a_task_that_is_cancelled_lets_others_ask(own_way: OwnWay, own_calls: StoreCalls) -> None:
    async def body() -> None:
        own_way.opened.clear()
        task = asyncio.ensure_future(own_calls.aask(get("a")))
        await asyncio.to_thread(wait_until, lambda: len(own_way.messages) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        own_way.opened.set()
        assert await own_calls.aask(get("b")) == "b"

    asyncio.run(body())
    assert own_calls.ask(get("c")) == "c"
    assert own_way.alone[-1][1] == [get("c")]


def test_a_store_that_is_lost_to_a_thread_is_asked_again_by_the_link(
    own_way: OwnWay, own_calls: StoreCalls
) -> None:
    own_way.fails = [StoreLost("it died")]
    assert own_calls.ask(get("a")) == "a"
    assert own_way.messages[-1] == own_way.alone[-1][1] == [get("a")]
    own_way.fails = [TimeoutError()]
    with pytest.raises(DeadlineExceeded, match="within 7 s"):
        own_calls.ask(get("a"), 7.0)
    assert own_calls.ask(get("b")) == "b"


def test_a_thread_whose_loop_runs_asks_by_the_link(own_way: OwnWay, own_calls: StoreCalls) -> None:
    async def blocks() -> Any:
        return own_calls.ask(get("a"))

    assert asyncio.run(blocks()) == "a"
    assert own_way.alone == []


FORKS = """
import os, sys
from snakepit_ray.testing import FakePool
pool = FakePool({"a": lambda: 1})
variables = pool.session("s").variables
variables.register("x", "integer", 1)
child = os.fork()
if not child:
    try:
        variables.set("x", 2)
    except Exception as error:
        print(type(error).__name__)  # its store is another one, which has no such session
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
print(variables.get("x"))
"""


def test_a_process_that_was_forked_asks_by_a_thread_of_its_own() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.split() == ["SessionNotFound", "1"], ran.stderr
