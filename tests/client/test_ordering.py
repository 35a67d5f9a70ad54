"""A worker lets a session's requests begin in their caller's order; no Ray."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.worker.ordering import RELAYED_SECONDS, UNHEARD_SECONDS, Ordering
from tests import virtual_time
from tests.virtual_time import VirtualLoop


def request(turn: int, done: int = 0, *, session: str = "s", caller: str = "c", hops: int = 0) -> pb.Request:
    made = pb.Request(id=f"{caller}-{turn}", session=session, budget_ms=60_000)
    made.options.turn, made.options.turns_done, made.options.hops = turn, done, hops
    return made


class Worker:
    """Serves requests, and keeps which began in what order."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.ordering = Ordering(loop.time)
        self.began: list[int] = []
        self.go = asyncio.Event()

    async def serve(
        self, one: pb.Request, before: Callable[[], Coroutine[Any, Any, Any]] | None = None
    ) -> None:
        async with self.ordering.in_turn(one):
            if before is not None:
                await before()
            self.ordering.begins(one)
            self.began.append(one.options.turn)
            await self.go.wait()

    async def settled(self) -> None:
        for _ in range(500):  # turns of the loop: each that begins lets one more go
            await asyncio.sleep(0)


def run(test: Callable[[Worker], Coroutine[Any, Any, None]]) -> None:
    virtual_time.run(lambda loop: test(Worker(loop)))


@pytest.mark.parametrize("seed", range(5))
def test_in_whatever_order_they_arrive_they_begin_in_the_callers(seed: int) -> None:
    async def test(worker: Worker) -> None:
        numbers = list(range(1, 31))
        random.Random(seed).shuffle(numbers)
        tasks = []
        for number in numbers:
            tasks.append(asyncio.ensure_future(worker.serve(request(number))))
            await asyncio.sleep(0)
        await worker.settled()
        assert worker.began == list(range(1, 31))
        assert worker.ordering.waiting == 0
        worker.go.set()
        await asyncio.gather(*tasks)

    run(test)


def test_one_that_is_on_its_way_inside_the_worker_is_not_overtaken() -> None:
    async def test(worker: Worker) -> None:
        unpacked = asyncio.Event()
        first = asyncio.ensure_future(worker.serve(request(1), unpacked.wait))
        second = asyncio.ensure_future(worker.serve(request(2)))
        await worker.settled()
        assert worker.began == []
        unpacked.set()
        await worker.settled()
        assert worker.began == [1, 2]
        worker.go.set()
        await asyncio.gather(first, second)

    run(test)


def test_other_sessions_callers_and_delegated_requests_wait_for_nobody() -> None:
    async def test(worker: Worker) -> None:
        worker.go.set()
        waits = asyncio.ensure_future(worker.serve(request(2)))
        await worker.serve(request(1, session="other"))
        await worker.serve(request(1, caller="other"))
        await worker.serve(request(7, hops=1))
        await worker.serve(pb.Request(id="c-9", session="s"))
        assert not waits.done()
        await worker.serve(request(1))
        await waits

    run(test)


def test_what_the_caller_knows_to_have_ended_is_not_waited_for() -> None:
    async def test(worker: Worker) -> None:
        worker.go.set()
        await worker.serve(request(8, done=7))
        assert worker.began == [8]

    run(test)


def test_what_never_comes_is_waited_for_a_bounded_time() -> None:
    async def test(worker: Worker) -> None:
        worker.go.set()
        late = request(3, done=1)
        await worker.serve(late)
        assert worker.began == [3]
        assert late.budget_ms == 60_000 - UNHEARD_SECONDS * 1000, "waiting is a part of its budget"
        await worker.serve(request(4, done=1))
        await worker.serve(request(2, done=1))  # too late to be in order, and not held
        assert worker.began == [3, 4, 2]

    run(test)


def test_one_that_is_here_is_waited_for_longer_than_what_never_came() -> None:
    async def test(worker: Worker) -> None:
        unpacked = asyncio.Event()
        first = asyncio.ensure_future(worker.serve(request(1), unpacked.wait))
        second = asyncio.ensure_future(worker.serve(request(2)))
        done, _ = await asyncio.wait({second}, timeout=10 * UNHEARD_SECONDS)
        assert not done and worker.began == []
        unpacked.set()
        worker.go.set()
        await asyncio.gather(first, second)
        assert worker.began == [1, 2]

    run(test)


def test_a_request_that_is_cancelled_while_it_waits_lets_nobody_overtake() -> None:
    async def test(worker: Worker) -> None:
        second = asyncio.ensure_future(worker.serve(request(2)))
        third = asyncio.ensure_future(worker.serve(request(3)))
        await worker.settled()
        second.cancel()
        await worker.settled()
        assert second.cancelled() and worker.began == []
        worker.go.set()
        await worker.serve(request(1))
        await third
        assert worker.began == [1, 3]

    run(test)


def test_one_that_is_sent_on_holds_its_place_until_it_has_arrived_there() -> None:
    async def test(worker: Worker) -> None:
        ended = asyncio.Event()

        async def relayed() -> None:
            with worker.ordering.sent_on(one):
                await ended.wait()

        one = request(1)
        first = asyncio.ensure_future(worker.serve(one, relayed))
        worker.go.set()
        second = asyncio.ensure_future(worker.serve(request(2)))
        began = worker.loop.time()
        await worker.settled()
        assert not second.done()
        await second
        assert worker.loop.time() == began + RELAYED_SECONDS
        assert not first.done()
        ended.set()
        await asyncio.gather(first, second)

    run(test)
