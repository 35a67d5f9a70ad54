"""What `worker_max_requests` promises: each interpreter serves about so many requests, and nothing fails."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.core.worker.recycling import Limits
from snakepit_ray.supervisor import CarePolicy, Done, PoolSide, Supervisor
from snakepit_ray.supervisor import keeper as keeping
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope
from snakepit_ray.wire.replies import outcome
from tests.conftest import interpreters
from tests.supervisor.harness import POLICY, executed, request, run, spec, supervisor, until, value

LIMIT = 20


@asynccontextmanager
async def working(tmp_path: Path, around: Any = None, **policy: Any) -> AsyncIterator[Supervisor]:
    care = CarePolicy(limits=Limits(max_requests=LIMIT))
    settings = replace(POLICY, **{"care": care, **policy})
    worker = supervisor(tmp_path, policy=settings, around=around, capacity=settings.capacity)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()
        assert not interpreters()


async def call(worker: Supervisor, number: int) -> int:
    return int((await value(worker, request("run", number, tag=f"t{number}")))["pid"])


async def one_after_the_other(worker: Supervisor, first: int, count: int) -> list[int]:
    return [await call(worker, number) for number in range(first, first + count)]


async def many_at_once(worker: Supervisor, first: int, count: int) -> list[int]:
    """`count` requests of which eight are under way at any time."""
    numbers = iter(range(first, first + count))

    async def caller() -> list[int]:
        return [await call(worker, number) for number in numbers]

    return [pid for pids in await asyncio.gather(*(caller() for _ in range(8))) for pid in pids]


@pytest.mark.parametrize("calls", [one_after_the_other, many_at_once])
@pytest.mark.parametrize("capacity", [1, 4])
def test_no_interpreter_serves_more_than_its_limit(
    tmp_path: Path, calls: Any, capacity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit_ray.core.worker.recycling.HOLD_SECONDS", 20.0)

    async def body() -> None:
        async with working(tmp_path, capacity=capacity) as worker:
            served = Counter(await calls(worker, 0, 4 * LIMIT))
            assert max(served.values()) <= LIMIT and 4 <= len(served) <= 6, served
            assert sorted(executed(tmp_path)) == sorted(f"t{n}" for n in range(4 * LIMIT))
            assert worker.counters.errors == 0 and worker.counters.restarts == 0

    run(body)


def test_without_overlap_the_limit_is_exact(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path, overlap=False, capacity=4) as worker:
            served = Counter(await many_at_once(worker, 0, 3 * LIMIT + 1))
            assert list(served.values()) == [LIMIT, LIMIT, LIMIT, 1]

    run(body)


async def batches_at_once(worker: Supervisor, count: int, size: int) -> Counter[int]:
    """`count` items in batches of `size`, four of them under way at any time: which interpreter ran how many.
    What a batch gives back goes again."""
    numbers, pids = iter(range(10**6)), Counter[int]()
    items = [{"tag": f"t{number}"} for number in range(count)]

    async def caller() -> None:
        while mine := [items.pop() for _ in range(min(size, len(items)))]:
            batch = request("run", next(numbers))
            batch.args.json = json.dumps(mine).encode()
            batch.batch.count, batch.batch.share_ms = len(mine), 10_000
            (part,) = (await done(worker, batch)).parts
            pids.update(one["pid"] for one in json.loads(part.json))
            items.extend(mine[part.size :])

    await asyncio.gather(*(caller() for _ in range(4)))
    return pids


async def done(worker: Supervisor, batch: pb.Request) -> BatchEnvelope:
    came = await worker.execute(batch, may_move=False)
    assert isinstance(came, Done)
    answer = outcome(came.answer.reply, came.answer.buffers, batch, None)
    assert isinstance(answer, BatchEnvelope)
    return answer


@pytest.mark.parametrize("capacity", [1, 4])
@pytest.mark.parametrize("size", [3, 7, 50])
def test_batches_do_not_pass_the_limit_by_their_items(
    tmp_path: Path, capacity: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakepit_ray.core.worker.recycling.HOLD_SECONDS", 20.0)
    monkeypatch.setattr("snakepit_ray.core.worker.recycling.ASK_SECONDS", 20.0)

    async def body() -> None:
        async with working(tmp_path, capacity=capacity) as worker:
            served = await batches_at_once(worker, 3 * LIMIT, size)
            assert max(served.values()) <= LIMIT and served.total() == 3 * LIMIT, served
            assert Counter(executed(tmp_path)) == Counter(f"t{n}" for n in range(3 * LIMIT))
            assert worker.counters.errors == 0 and worker.counters.restarts == 0

    run(body)


def held_up_starts(worker: Supervisor) -> asyncio.Event:
    """The replacements of this worker start when the event is set."""
    launch, gate = worker.keeper._launch, asyncio.Event()

    async def held_up(epoch: Any) -> Any:
        await gate.wait()
        return await launch(epoch)

    worker.keeper._launch = held_up  # type: ignore[method-assign]
    return gate


def expects(worker: Supervisor, seconds: float) -> None:
    """Takes a start to last so long, however busy this machine is."""
    countdown = worker._care._countdown
    assert countdown is not None
    countdown._start_seconds = seconds


def test_a_start_that_does_not_come_holds_requests_up_for_a_bounded_time(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            expects(worker, 0.5)
            gate, old = held_up_starts(worker), worker.interpreter
            assert old is not None
            await one_after_the_other(worker, 0, LIMIT)
            late = asyncio.ensure_future(call(worker, LIMIT))
            await until(lambda: worker.waiting == 1)
            assert worker.admission.free == 0, "other workers take what comes"
            assert await late == old.child.pid, "it serves on"
            assert set(await one_after_the_other(worker, LIMIT + 1, 5)) == {old.child.pid}
            gate.set()
            await until(lambda: worker.interpreter is not old)
            assert await call(worker, 100) != old.child.pid
            await until(lambda: worker.counters.recycled == 1)
            assert old.served == LIMIT + 6, "it counts honestly"

    run(body)


def waits(worker: Supervisor) -> list[int]:
    """How many waited, whenever that changed."""
    seen: list[int] = []
    pool = worker.ports.pool
    changed = pool.queue_changed

    def looking() -> None:
        seen.append(worker.waiting)
        changed()

    pool.queue_changed = looking  # type: ignore[method-assign]
    return seen


async def serves_on(worker: Supervisor, calls: int) -> None:
    """The same interpreter answers, and nobody waits."""
    assert worker.interpreter is not None
    seen = waits(worker)
    pids = await one_after_the_other(worker, 1000, calls)
    assert set(pids) == {worker.interpreter.child.pid} and not any(seen)


def test_a_start_that_takes_long_holds_nobody_up(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            expects(worker, 60.0)
            gate = held_up_starts(worker)
            await serves_on(worker, 3 * LIMIT)
            gate.set()
            await until(lambda: worker.counters.recycled == 1)

    run(body)


class Stingy(PoolSide):
    """Others recycle."""

    asked, allowed = 0, False

    async def may_recycle(self) -> bool:
        self.asked += 1
        return self.allowed


def test_who_has_no_permit_serves_on(tmp_path: Path) -> None:
    async def body() -> None:
        around = Stingy()
        async with working(tmp_path, around) as worker:
            await one_after_the_other(worker, 0, LIMIT)
            await until(lambda: around.asked > 0)
            await serves_on(worker, LIMIT)
            around.allowed = True
            await until(lambda: worker.counters.recycled == 1)

    run(body)


def test_a_replacement_that_cannot_start_holds_nobody_up_a_second_time(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            worker.keeper._make_spec = lambda: spec(tmp_path, executable="/nowhere/python")
            await one_after_the_other(worker, 0, LIMIT)
            await until(lambda: any("start failed" in line for line in worker.story.last(50)))
            await serves_on(worker, LIMIT)

    run(body)


def test_a_full_queue_is_no_reason_to_refuse_at_the_limit(tmp_path: Path) -> None:
    """Nobody may wait in this pool."""

    async def body() -> None:
        async with working(tmp_path, queue_limit=0) as worker:
            pids = await one_after_the_other(worker, 0, LIMIT)
            while worker.counters.recycled < 2:
                pids.append(await call(worker, len(pids)))
            assert len(set(pids)) >= 2 and worker.counters.errors == 0

    run(body)


# ---- early -------------------------------------------------------------------------------------------------


async def ready_early(worker: Supervisor) -> int:
    """The replacement is ready after three quarters of the limit; how many interpreters there were before."""
    expects(worker, 60.0)  # so that it begins as early as it may
    old = worker.interpreter
    await one_after_the_other(worker, 0, LIMIT * 3 // 4)
    await until(lambda: len(interpreters()) == 2)
    await until(lambda: worker.keeper._fresh is not None)
    assert worker.interpreter is old
    return worker.epoch.number


def test_a_replacement_that_is_ready_early_serves_from_the_limit_on(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            await ready_early(worker)
            old = worker.interpreter
            assert old is not None
            pids = await one_after_the_other(worker, 100, LIMIT // 4 + 1)
            assert set(pids[:-1]) == {old.child.pid} != {pids[-1]}
            await until(lambda: worker.counters.recycled == 1)
            assert old.served == LIMIT

    run(body)


@pytest.mark.parametrize("how", ["rare requests", "a wish", "the old one dies", "the new one dies"])
def test_a_replacement_that_is_ready_early_waits_for_nothing_else(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "STANDBY_SECONDS", 0.5 if how == "rare requests" else 60.0)

    async def body() -> None:
        async with working(tmp_path) as worker:
            await ready_early(worker)
            old, fresh = worker.interpreter, worker.keeper._fresh
            assert old is not None and fresh is not None
            if how == "a wish":
                worker.recycle()
            elif how == "the old one dies":
                old.child.kill_now()
            elif how == "the new one dies":
                fresh.child.kill_now()
            await until(lambda: worker.interpreter is not old)
            if how == "the new one dies":
                await until(lambda: worker.counters.restarts == 1)
            pid = await call(worker, 100)
            assert worker.interpreter is not None and pid == worker.interpreter.child.pid
            assert (pid == fresh.child.pid) == (how != "the new one dies")
            assert worker.counters.errors == 0

    run(body)


def test_a_worker_that_stops_ends_the_replacement_that_is_ready(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            await ready_early(worker)
        assert not interpreters()

    run(body)
