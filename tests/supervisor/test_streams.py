"""Streams at one worker without Ray: the slot is free again however one ends, and credit stops a producer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray import telemetry
from snakepit_ray.core.work.chunking import FIRST_CHUNKS, FLUSH_CHUNKS
from snakepit_ray.errors import (
    DeadlineExceeded,
    QueueTimeout,
    RequestCancelled,
    WorkerCrashed,
)
from snakepit_ray.supervisor import Stream, Supervisor
from snakepit_ray.wire.codec import Part
from tests.supervisor.harness import executed, request, run, supervisor, until, value

Body = Callable[[Supervisor], Awaitable[None]]


def worker_runs(tmp_path: Path, body: Body, **changes: Any) -> None:
    async def around() -> None:
        worker = supervisor(tmp_path, **changes)
        await worker.start()
        try:
            await body(worker)
            assert worker.running == worker.waiting == 0
            assert worker.admission.free == 1
            assert (await value(worker, request("run", "after", tag="after")))["tag"] == "after"
        finally:
            await worker.stop()

    run(around)


def opened(worker: Supervisor, number: Any = 1, *, pack: bool = True, **args: Any) -> Stream:
    asked = request("stream", number, tag=str(number), **args)
    asked.pack = pack
    return Stream(worker, asked)


async def all_of(stream: Stream, into: list[Any] | None = None) -> list[Any]:
    values: list[Any] = [] if into is None else into
    while pieces := await stream.part():
        values.extend(Part(pieces).values())
    return values


async def free(worker: Supervisor) -> None:
    await until(lambda: worker.running == 0 and worker.admission.free == 1)


@pytest.mark.parametrize("pack", [True, False])
def test_all_chunks_come_in_order_and_the_slot_is_free(tmp_path: Path, pack: bool) -> None:
    async def body(worker: Supervisor) -> None:
        stream = opened(worker, count=20_000, pack=pack)
        assert await all_of(stream) == [{"i": i} for i in range(20_000)]
        assert stream.result().answer.reply.end.chunks == 20_000 == stream.chunks
        assert executed(tmp_path) == ["1", "1:ended:20000"]

    worker_runs(tmp_path, body)


def test_telemetry_tells_of_its_beginning_and_its_end(tmp_path: Path) -> None:
    seen: list[tuple[str, Any, Any]] = []

    async def body(worker: Supervisor) -> None:
        with telemetry.attach("stream.*", lambda *event: seen.append(event)):
            await all_of(opened(worker, count=3))
            await all_of(opened(worker, 2, count=2, end="raise"))

    worker_runs(tmp_path, body)
    assert [name for name, *_ in seen] == ["stream.started", "stream.ended"] * 2
    ends = [(measured["chunks"], about["result"]) for _, measured, about in seen[1::2]]
    assert ends == [(3, "ok"), (2, "error")]


def test_one_piece_at_a_time(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        stream = opened(worker, count=300, pack=False)
        pieces = []
        while (piece := await stream.one()) is not None:
            pieces.append(piece.json)
        assert pieces == [b'{"i":%d}' % i for i in range(300)]

    worker_runs(tmp_path, body)


def test_a_stopped_consumer_stops_the_producer(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        stream = opened(worker)
        await stream.part()
        await until(lambda: stream.chunks >= FIRST_CHUNKS)
        before = stream.chunks
        for _ in range(200):
            await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(os.sched_yield))])
        assert stream.chunks <= max(before, 4 * FIRST_CHUNKS)
        stream.close()
        await until(lambda: len(executed(tmp_path)) == 2)
        produced = int(executed(tmp_path)[1].removeprefix("1:cancelled:"))
        assert produced <= 4 * FIRST_CHUNKS + 1
        await free(worker)

    worker_runs(tmp_path, body)


def test_a_slow_consumer_holds_at_most_a_window(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        stream = opened(worker, size=1000)
        for _ in range(50):
            pieces = await stream.part()
            assert sum(piece.chunks for piece in pieces) <= 2 * FLUSH_CHUNKS
            assert stream._held_bytes <= (1 << 20) + 2000
        stream.close()
        await free(worker)

    worker_runs(tmp_path, body)


def test_an_error_comes_after_the_chunks(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        stream = opened(worker, count=100, end="raise")
        assert len(await all_of(stream)) == 100
        assert stream.result().answer.reply.failure.type == "ValueError"

    worker_runs(tmp_path, body)


def test_a_crash_in_mid_stream_comes_after_the_chunks(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        stream = opened(worker, count=50, end="die", idempotent=True, retries=3)
        values: list[Any] = []
        with pytest.raises(WorkerCrashed) as caught:
            await all_of(stream, values)
        assert caught.value.exit_code == 7
        assert values == [{"i": i} for i in range(50)]
        assert executed(tmp_path) == ["1"], "a stream is never begun again"
        await until(lambda: worker.admission.free == 1)

    worker_runs(tmp_path, body)


def test_a_killed_interpreter_frees_the_slot(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        stream = opened(worker)
        await stream.part()
        os.kill(worker.interpreter.child.pid, signal.SIGKILL)
        with pytest.raises(WorkerCrashed, match="SIGKILL"):
            await all_of(stream)
        await until(lambda: worker.admission.free == 1)

    worker_runs(tmp_path, body)


@pytest.mark.parametrize("taking", [True, False])
def test_the_budget_ends_it_whether_or_not_somebody_takes(tmp_path: Path, taking: bool) -> None:
    async def body(worker: Supervisor) -> None:
        stream = opened(worker, budget=0.3, end="wait", count=3 if taking else 10**9)
        if not taking:
            await free(worker)  # nobody has taken a chunk
        with pytest.raises(DeadlineExceeded):
            await all_of(stream)
        await free(worker)
        assert executed(tmp_path)[1].startswith("1:cancelled:")

    worker_runs(tmp_path, body)


def test_a_cancelled_taker_closes_it(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        stream = opened(worker, count=2, end="wait")

        async def take() -> None:
            try:
                await all_of(stream)
            finally:
                stream.close()

        task = asyncio.ensure_future(take())
        await until(lambda: stream.chunks == 2)
        task.cancel()
        await free(worker)
        assert executed(tmp_path) == ["1", "1:cancelled:2"]

    worker_runs(tmp_path, body)


def test_a_dead_caller_drops_its_streams_running_and_waiting(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        running, waiting = opened(worker, "dead-1"), opened(worker, "dead-2")
        other = opened(worker, "alive-1", count=3)
        await running.part()
        assert worker.waiting == 2
        assert worker.drop(lambda request_id: request_id.startswith("dead-")) == 2
        for stream in (running, waiting):
            with pytest.raises(RequestCancelled):
                await all_of(stream)
        assert len(await all_of(other)) == 3
        assert [tag for tag in executed(tmp_path) if ":" not in tag] == ["dead-1", "alive-1"]
        await free(worker)

    worker_runs(tmp_path, body)


def test_a_stream_waits_for_its_slot_as_a_call_does(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        first = opened(worker, "first", count=1, end="wait")
        await first.part()
        late = Stream(worker, request("stream", "late", queue=0.1, tag="late"))
        with pytest.raises(QueueTimeout):
            await all_of(late)
        second = opened(worker, "second", count=1)
        call = asyncio.ensure_future(value(worker, request("run", "call", tag="call")))
        first.close()
        assert await all_of(second) == [{"i": 0}]
        assert (await call)["tag"] == "call"
        assert [tag for tag in executed(tmp_path) if ":" not in tag] == ["first", "second", "call"]
        await free(worker)

    worker_runs(tmp_path, body)


def test_a_command_that_returns_is_a_stream_of_one(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        stream = Stream(worker, request("run", tag="t"))
        (got,) = await all_of(stream)
        assert got["tag"] == "t"

    worker_runs(tmp_path, body)


def test_a_stopped_worker_refuses_its_streams(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        stream = opened(worker)
        await stream.part()
        await worker.stop()
        with pytest.raises(Exception, match="shut down"):
            await all_of(stream)

    run(body)
