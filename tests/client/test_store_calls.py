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
from snakepit_ray.core.state.asked import Changes, Get, Question, Watch
from snakepit_ray.core.state.backlog import READS
from snakepit_ray.errors import DeadlineExceeded, PoolClosed, SessionNotFound
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
