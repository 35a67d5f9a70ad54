"""Large buffers on their way into an interpreter and back: in shared memory, each range taken and given back
once, whatever ends first."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakepit_ray.errors import DeadlineExceeded, EncodingError, WorkerCrashed
from snakepit_ray.process import usage
from snakepit_ray.supervisor import Done, Stream, Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import encode_args
from snakepit_ray.wire.replies import outcome
from snakepit_ray.wire.requests import _payload
from tests.supervisor import harness

THRESHOLD = 10_240
ARRAYS = str(harness.ROOT / "tests/adapters/arrays.py") + ":Arrays"


def large(command: str, number: int = 1, **args: Any) -> tuple[pb.Request, list[Any]]:
    """A request as a caller builds it, and what travels beside it."""
    beside: list[Any] = []
    encoded = encode_args(args)
    request = harness.request(command, number)
    request.args.CopyFrom(_payload(encoded.json, encoded.buffers, beside, THRESHOLD))
    return request, beside


async def call(worker: Supervisor, command: str, number: int = 1, **args: Any) -> Any:
    request, beside = large(command, number, **args)
    with worker.cargo.of(request.id, beside):
        done = await worker.execute(request, may_move=False)
    assert isinstance(done, Done)
    return outcome(done.answer.reply, done.answer.buffers, request, None).value()


async def started(tmp_path: Path, **changes: Any) -> Supervisor:
    worker = harness.supervisor(tmp_path, adapter=ARRAYS, adapter_args={}, **changes)
    await worker.start()
    return worker


def lent(worker: Supervisor) -> int:
    assert worker.interpreter is not None
    return len(worker.interpreter.arena._space)


async def results_lent(worker: Supervisor, count: int) -> None:
    """Waits until the interpreter knows that so many of its results are still looked at."""
    for number in range(1000, 1200):
        if await call(worker, "lent", number) == count:
            return
    raise AssertionError("it did not happen")


def test_arguments_and_results_lie_in_shared_memory_and_come_back_bit_for_bit(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await started(tmp_path)
        x = np.frombuffer(np.random.default_rng(1).bytes(800_000), "<f8")
        back = await call(worker, "same", x=x)
        assert back.tobytes() == x.tobytes() and not back.flags.writeable
        told = await call(worker, "where", x=x)
        assert told == {"memory": "/memfd:snakepit-arena (deleted)", "writeable": False}
        await worker.stop()

    harness.run(body)


@pytest.mark.parametrize(("size", "segments"), [(10_240, 0), (10_241, 1)])
def test_the_threshold(tmp_path: Path, size: int, segments: int) -> None:
    async def body() -> None:
        worker = await started(tmp_path)
        data = os.urandom(size)
        request, beside = large("same", x=np.frombuffer(data, np.uint8))
        assert len(beside) == segments
        with worker.cargo.of(request.id, beside):
            done = await worker.execute(request, may_move=False)
        assert isinstance(done, Done)
        (place,) = done.answer.reply.value.buffers
        assert place.WhichOneof("place") == ("segment" if segments else "inline")
        value = outcome(done.answer.reply, done.answer.buffers, request, None).value()
        assert value.tobytes() == data
        await worker.stop()

    harness.run(body)


def test_ranges_are_used_again_and_nothing_leaks(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await started(tmp_path)
        x = np.arange(250_000.0)
        for number in range(50):
            assert (await call(worker, "plus_one", number, x=x))[-1] == 250_000.0
        assert worker.interpreter is not None
        arena = worker.interpreter.arena
        await harness.until(lambda: not lent(worker))
        # 50 x 2 MB each way have gone through what a few of them need.
        assert arena.resident <= 4 * 2 * x.nbytes
        await results_lent(worker, 0)
        await worker.stop()

    harness.run(body)


def test_an_argument_that_is_kept_keeps_its_range(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await started(tmp_path)
        x = np.random.default_rng(2).random(100_000)
        await call(worker, "keep", 1, x=x)
        for number in range(2, 6):
            await call(worker, "plus_one", number, x=np.zeros(100_000))
        assert lent(worker) >= 1
        assert (await call(worker, "kept", 7)).tobytes() == x.tobytes()
        await call(worker, "forget", 8)
        await harness.until(lambda: not lent(worker))
        await worker.stop()

    harness.run(body)


def test_a_result_that_is_looked_at_keeps_its_range_also_after_the_interpreter(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await started(tmp_path)
        first = await call(worker, "filled", 1, n=100_000, value=1.0)
        second = await call(worker, "filled", 2, n=100_000, value=2.0)
        await results_lent(worker, 2)
        part = first[10:20]
        del first
        gc.collect()
        await call(worker, "filled", 4, n=100_000, value=4.0)
        assert set(part) == {1.0} and set(second) == {2.0}
        await worker.stop()
        assert set(part) == {1.0} and set(second) == {2.0}

    harness.run(body)


def test_chunks_that_come_after_a_stream_was_closed_give_their_ranges_back(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await started(tmp_path)
        late = 0
        for number in range(50):
            made = tmp_path / f"made-{number}"
            asked = harness.request("chunks", number, n=10_000, count=10_000, path=str(made))
            stream = Stream(worker, asked)
            for _ in range(20):  # so that credit for more is on its way
                assert await stream.one() is not None
            came = stream.chunks
            time.sleep(0.01)  # noqa: ASYNC251 - this loop reads nothing: chunks gather on their way
            stream.close()
            await harness.until(made.exists)
            await harness.until(lambda: worker.running == 0)
            late += stream.chunks > came
            if late == 3:
                break
        assert late, "some came after their stream was closed"
        await results_lent(worker, 0)
        await worker.stop()

    gc.disable()  # nothing may wait for a collection
    try:
        harness.run(body)
    finally:
        gc.enable()


def test_what_finds_no_place_travels_in_the_message_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        worker = await started(tmp_path, shared_memory=64 << 10)
        x = np.random.default_rng(3).random(100_000)
        for number in range(3):
            assert (await call(worker, "same", number, x=x)).tobytes() == x.tobytes()
        assert not lent(worker)
        assert worker.interpreter is not None
        assert worker.interpreter.child.stderr.tail.count("raise shared_memory") == 1
        await worker.stop()

    with caplog.at_level(logging.WARNING):
        harness.run(body)
    assert [r.levelname for r in caplog.records if "raise shared_memory" in r.message] == ["WARNING"]


def test_without_shared_memory_everything_travels_in_the_messages(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await started(tmp_path, shared_memory=0)
        x = np.random.default_rng(4).random(100_000)
        assert (await call(worker, "same", x=x)).tobytes() == x.tobytes()
        assert worker.interpreter is not None and not worker.interpreter.arena.descriptors
        await worker.stop()

    harness.run(body)


def test_an_interpreter_without_room_for_it_says_so_and_goes_without(tmp_path: Path) -> None:
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -v 4000000\nexec {sys.executable} "$@"\n')  # 4 GB
    limited.chmod(0o755)

    async def body() -> None:
        worker = await started(tmp_path, executable=str(limited), shared_memory=8 << 30)
        x = np.random.default_rng(4).random(100_000)
        assert (await call(worker, "same", x=x)).tobytes() == x.tobytes()
        assert worker.interpreter is not None and not worker.interpreter.arena.descriptors
        assert "lower shared_memory" in worker.interpreter.child.stderr.tail
        await worker.stop()

    harness.run(body)


def test_a_crash_gives_everything_back(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await started(tmp_path)
        before = descriptors()
        x = np.zeros(100_000)
        await call(worker, "keep", 1, x=x)
        assert worker.interpreter is not None
        pid = worker.interpreter.child.pid
        running = asyncio.ensure_future(call(worker, "wait", 2, x=x, path=str(tmp_path / "begun")))
        await harness.until((tmp_path / "begun").exists)
        assert lent(worker) == 2
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerCrashed):
            await running
        assert (await call(worker, "plus_one", 3, x=x))[0] == 1.0
        assert worker.interpreter.child.pid != pid
        await harness.until(lambda: not lent(worker))
        await harness.until(lambda: descriptors() <= before)
        await worker.stop()

    harness.run(body)


def test_a_request_that_ends_while_it_is_copied_leaves_nothing_behind(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await started(tmp_path)
        x = np.zeros(4_000_000)
        request, beside = large("plus_one", x=x)
        request.budget_ms = 1
        with worker.cargo.of(request.id, beside), pytest.raises(DeadlineExceeded):
            await worker.execute(request, may_move=False)
        request, beside = large("plus_one", 2, x=x)
        with worker.cargo.of(request.id, beside):
            cancelled = asyncio.ensure_future(worker.execute(request, may_move=False))
            await harness.until(lambda: worker.running == 1)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        await harness.until(lambda: not worker.running and not lent(worker))
        assert worker.interpreter is not None
        pid = worker.interpreter.child.pid
        assert (await call(worker, "plus_one", 3, x=x[:10]))[0] == 1.0
        assert worker.interpreter.child.pid == pid  # nobody had to be ended for it
        await worker.stop()

    harness.run(body)


def test_free_memory_is_given_back_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        worker = await started(tmp_path)
        assert worker.interpreter is not None
        arena = worker.interpreter.arena
        kept = await call(worker, "filled", 1, n=200_000, value=5.0)
        await call(worker, "plus_one", 2, x=np.zeros(1_000_000))
        await harness.until(lambda: not lent(worker))
        await results_lent(worker, 1)
        assert arena.resident > 16_000_000
        monkeypatch.setattr("snakepit_ray.supervisor.arena.REST_SECONDS", 0.0)
        assert await arena.rest(worker.interpreter.client.trim)
        await harness.until(lambda: arena.resident <= 200_000 * 8 + 4096)
        assert set(kept) == {5.0}
        assert (await call(worker, "plus_one", 4, x=np.zeros(1_000_000)))[0] == 1.0
        await worker.stop()

    harness.run(body)


@pytest.mark.parametrize(("offset", "size"), [(2**40, 8), (0, 2**40), (2**63, 2**63), (0, 0)])
def test_a_segment_that_is_not_there_is_an_error(tmp_path: Path, offset: int, size: int) -> None:
    async def body() -> None:
        worker = await started(tmp_path)
        assert worker.interpreter is not None
        payload = pb.Payload(buffers=[pb.Buffer(segment=pb.Segment(id="1", offset=offset, size=size))])
        with pytest.raises(EncodingError, match="the payload is damaged"):
            worker.interpreter.arena.views(payload)
        await worker.stop()

    harness.run(body)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_arguments_on_their_way_are_not_the_interpreters_own_memory(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await started(tmp_path, shared_memory=256 << 20)
        interpreter = worker.interpreter
        assert interpreter is not None
        await call(worker, "total", 1, x=np.ones(10))  # numpy is loaded now
        before = worker._care.memory(interpreter)
        x = np.ones(8_000_000)  # 64 MB
        await call(worker, "keep", 2, x=x)
        await call(worker, "kept", 3)
        after = worker._care.memory(interpreter)
        resident = usage.tree_rss(interpreter.child.pid)
        assert before is not None and after is not None and resident is not None
        assert after - before < 16_000_000 and resident - after > x.nbytes
        await worker.stop()

    harness.run(body)
