"""How one batch is divided, sent again and put together; the pool is a function here."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray import telemetry
from snakepit_ray.errors import DeadlineExceeded, PoolSaturated, WorkerCrashed
from snakepit_ray.supervisor import Counters
from snakepit_ray.supervisor.accounts import Accounts
from snakepit_ray.supervisor.outcomes import Tally
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope, BatchPart
from snakepit_ray.wire.codec.batches import RETURN
from snakepit_ray.worker.batches import BatchRun


def sources(*counts: int, **options: Any) -> list[pb.Request]:
    made, number = [], 0
    for count in counts:
        args = pb.Payload(json=json.dumps(list(range(number, number + count))).encode())
        number += count
        request = pb.Request(id="r", command="c", args=args, budget_ms=60_000, batch=pb.Batch(count=count))
        request.session = options.get("session", "")
        request.options.errors = RETURN
        request.options.default_budget = True
        made.append(request)
    return made


def answer(request: pb.Request, most: int | None = None, seconds: float = 1e-5) -> BatchEnvelope:
    begin, count = request.batch.first, request.batch.count
    chosen = json.loads(request.args.json)[begin : begin + count][:most]
    info = ("w", (1, 1), 1, "n", request.id, 0.0, seconds * len(chosen), 1, False)
    return BatchEnvelope([BatchPart(json.dumps(chosen).encode(), len(chosen), (), (), info)])


@pytest.fixture(autouse=True, scope="module")
def _listener() -> Iterator[None]:
    """Events are gathered only where somebody listens."""
    handle = telemetry.attach("request.*", lambda *event: None)
    yield
    handle.detach()


class Books:
    """The accounts of the worker that divides."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.events: list[tuple[int, int]] = []  # of each: the items, and those that failed
        self.accounts = Accounts(self.counters, self)  # type: ignore[arg-type]

    def executed(self, request: pb.Request, began: float, tally: Tally, error: str = "") -> None:
        self.events.append(tally)

    def cancelled(self, request: pb.Request, began: float, items: int) -> None:
        self.events.append((items, 0))

    @property
    def counted(self) -> tuple[int, int, int]:
        """Requests, errors, cancelled ones; the events say the same."""
        counters = self.counters
        assert sum(items for items, _ in self.events) == counters.requests
        assert sum(failed for _, failed in self.events) == counters.errors
        return counters.requests, counters.errors, counters.cancelled


async def divided(
    made: list[pb.Request], slots: int, run: Any, books: Books, clock: Any = time.monotonic
) -> BatchEnvelope:
    with books.accounts.divided(made[0], sum(one.batch.count for one in made)) as account:
        return await BatchRun(made, slots, run, account, clock).run()


def outcome(
    made: list[pb.Request], slots: int, run: Any, books: Books | None = None, clock: Any = time.monotonic
) -> list[Any]:
    return asyncio.run(asyncio.wait_for(divided(made, slots, run, books or Books(), clock), 20)).value()


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=4),
    st.integers(1, 5),
    st.lists(st.sampled_from([None, 1, 3, "full", "crash"]), max_size=30),
)
def test_whatever_happens_each_item_has_one_outcome(counts: list, slots: int, fate: list) -> None:
    lost: set[int] = set()
    most = under_way = done = 0
    fates = iter(fate)

    async def run(request: pb.Request) -> BatchEnvelope:
        nonlocal under_way, most, done
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        what = next(fates, None)
        if what == "full" and done:
            raise PoolSaturated("full")
        done += 1
        if what == "crash":
            begin = request.batch.first
            lost.update(json.loads(request.args.json)[begin : begin + request.batch.count])
            raise WorkerCrashed("crash")
        return answer(request, None if what == "full" else what)

    books = Books()
    back = outcome(sources(*counts), slots, run, books)
    assert books.counted == (sum(counts), len(lost), 0), "each item once, however often it was refused"
    assert len(back) == sum(counts) and most <= 2 * slots
    assert {i for i, value in enumerate(back) if isinstance(value, WorkerCrashed)} == lost
    assert all(value == i for i, value in enumerate(back) if i not in lost)


def test_a_pool_that_is_full_refuses_the_whole_batch_at_once() -> None:
    async def run(request: pb.Request) -> BatchEnvelope:
        raise PoolSaturated("full")

    books = Books()
    with pytest.raises(PoolSaturated):
        outcome(sources(100), 2, run, books)
    assert books.counted == (100, 100, 0)


def test_the_batches_of_a_session_go_one_after_the_other() -> None:
    order: list[int] = []
    under_way = 0

    async def run(request: pb.Request) -> BatchEnvelope:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0)
        under_way -= 1
        order.append(request.batch.first)
        return answer(request, 7)

    assert outcome(sources(20, session="s"), 4, run) == list(range(20))
    assert order == sorted(order)


def test_a_budget_of_the_callers_ends_the_batch_and_a_default_one_does_not() -> None:
    async def run(request: pb.Request) -> BatchEnvelope:
        assert request.budget_ms <= 60_000
        return answer(request)

    late, books = sources(4), Books()
    late[0].budget_ms, late[0].options.default_budget = 0, False
    assert [type(value) for value in outcome(late, 1, run, books)] == [DeadlineExceeded] * 4
    assert books.counted == (4, 4, 0)
    assert outcome(sources(4), 1, run) == [0, 1, 2, 3]


def test_later_parts_have_what_is_left_of_the_callers_budget_and_wait_no_longer() -> None:
    now = 100.0
    budgets: list[tuple[int, int]] = []

    async def run(request: pb.Request) -> BatchEnvelope:
        nonlocal now
        budgets.append((request.budget_ms, request.options.queue_ms))
        now += 25.0
        return answer(request, 1)

    mine = sources(4, session="s")
    mine[0].options.default_budget = False
    mine[0].options.queue_ms = 5_000
    values = outcome(mine, 1, run, clock=lambda: now)
    assert budgets == [(60_000, 5_000), (35_000, 35_000), (10_000, 10_000)]
    assert values[:3] == [0, 1, 2] and type(values[3]) is DeadlineExceeded


def test_buffers_go_along_whole_whatever_part_of_the_items_goes() -> None:
    asked: list[tuple[str, int, int]] = []

    async def run(request: pb.Request) -> BatchEnvelope:
        asked.append((request.id, request.batch.first, request.batch.count))
        return answer(request, 2)

    made = sources(5, 3)
    made[0].args.buffers.add().beside = 0
    assert outcome(made, 1, run) == list(range(8))
    of_the_first = [one for one in asked if one[0].startswith("r/0.")]
    assert of_the_first == [("r/0.0+5", 0, 5), ("r/0.2+3", 2, 3), ("r/0.4+1", 4, 1)]


def test_cancelling_it_cancels_what_is_under_way() -> None:
    begun: list[asyncio.Task[Any]] = []
    first = asyncio.Event()

    async def run(request: pb.Request) -> BatchEnvelope:
        task = asyncio.current_task()
        assert task is not None
        begun.append(task)
        first.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async def body() -> None:
        books = Books()
        task = asyncio.ensure_future(divided(sources(100), 3, run, books))
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert begun and all(one.cancelled() for one in begun)
        assert books.counted == (100, 0, 100)

    asyncio.run(asyncio.wait_for(body(), 20))
