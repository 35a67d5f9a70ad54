"""Streams over a real socket: their order, their credit, their ends, whoever ends them. No Ray."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.client import answers, outbox
from snakepit_ray.client.interrupts import Interruptible
from snakepit_ray.client.lanes import Waits
from snakepit_ray.errors import DeadlineExceeded, SnakepitError, WorkerCrashed
from snakepit_ray.wire import frames, lane, lane_parts
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire._pb import lane_pb2
from snakepit_ray.wire.codec import Part, Piece
from snakepit_ray.wire.lane_parts import AHEAD_PARTS
from snakepit_ray.worker.flow import Flow
from tests.conftest import wait_until
from tests.lane.harness import SECONDS, Client, Interrupted, Worker, mutated, raw, reader_threads


async def take(parts: Any, waits: Waits) -> Any:
    """The next part, whoever takes it."""
    return parts.take() if waits is Waits.THREAD else await parts.take()


async def fill(values: list[Any], parts: Any, waits: Waits) -> None:
    """Adds the values of what is left of a stream."""
    while (part := await take(parts, waits)) is not None:
        values += part.values()


def rest(parts: Any) -> list[Any]:
    """The values of what is left of a stream, for a thread."""
    values: list[Any] = []
    while (part := parts.take()) is not None:
        values += part.values()
    return values


def taken(client: Client, waits: Waits, *stream: Any, seconds: float = SECONDS) -> list[Any]:
    """The values of a stream."""

    async def run() -> list[Any]:
        values: list[Any] = []
        await fill(values, client.stream(*stream, waits=waits, seconds=seconds), waits)
        return values

    return asyncio.run(run())


def under_way(client: Client, worker: Worker) -> dict[str, Any]:
    return client.lanes._threads[worker.lane.path]._answers


BOTH = pytest.mark.parametrize("waits", [Waits.THREAD, Waits.LOOP])


# ---- parts -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("count", [0, 1, AHEAD_PARTS, 1000])
def test_every_part_arrives_in_order(worker: Worker, client: Client, waits: Waits, count: int) -> None:
    assert taken(client, waits, count) == list(range(count))
    assert worker.counted == 1 and not client.ray.sent
    wait_until(lambda: worker.commands.ended == {"caller-1"})
    assert not worker.commands.cancelled
    assert client.sender.ended_ids == ["caller-1"]


@BOTH
def test_an_error_comes_after_the_parts_before_it(worker: Worker, client: Client, waits: Waits) -> None:
    async def run() -> list[Any]:
        parts, got = client.stream(20, "fail", waits), list[Any]()
        with pytest.raises(ValueError, match="no good"):
            await fill(got, parts, waits)
        assert await take(parts, waits) is None
        return got

    assert asyncio.run(run()) == list(range(20))


@BOTH
@pytest.mark.parametrize("command", ["large", "huge"])
def test_what_is_too_large_is_fetched_in_its_place(
    worker: Worker, client: Client, waits: Waits, command: str
) -> None:
    """A part among others, and an error."""
    if command == "large":
        assert taken(client, waits, 10, command) == list(range(10))
    else:
        with pytest.raises(ValueError, match="xxx"):
            taken(client, waits, 10, command)
    assert not worker.commands.kept, "each was fetched"
    assert client.stream(10, command) is None, "the next one goes by Ray"


def test_streams_and_calls_share_one_connection(worker: Worker, client: Client) -> None:
    wrong: list[Any] = []

    def run(count: int) -> None:
        if rest(client.stream(count)) != list(range(count)):
            wrong.append(count)
        if answers.get(client.send("echo", count), SECONDS) != count:
            wrong.append(-count)

    held = client.stream()  # nobody takes it
    threads = [threading.Thread(target=run, args=(100 + number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not wrong
    assert len(worker.server.callers) == len(reader_threads()) == 1
    assert list(held.take().values()) == [0]
    held.close()


# ---- credit ------------------------------------------------------------------------------------------------


def test_who_does_not_take_is_sent_no_more_than_the_credit(worker: Worker, client: Client) -> None:
    parts = client.stream()
    produced = worker.commands.produced
    wait_until(lambda: produced["caller-1"] == AHEAD_PARTS)
    for number in range(100):
        list(parts.take().values())
        assert answers.get(client.send("echo"), SECONDS) is None  # the worker has turned meanwhile
        assert produced["caller-1"] <= number + 1 + AHEAD_PARTS
    wait_until(lambda: produced["caller-1"] == 100 + AHEAD_PARTS)
    parts.close()
    wait_until(lambda: worker.commands.cancelled == {"caller-1"})


def test_nobody_is_granted_more_than_the_credit(worker: Worker) -> None:
    """Nor for a stream that there is not."""
    request = pb.Request(id="a-1", command="count", stream=True, pack=True)
    request.args.json = b"1000000"
    many = lane_parts.taken("a-1", 2**31)
    said = frames.pack(lane.STREAM, request.SerializeToString()) + many + many + lane_parts.taken("b", 1)
    connection = raw(worker, lane.hello(worker.lane.secret) + said)
    wait_until(lambda: worker.commands.produced["a-1"] >= AHEAD_PARTS)
    for _ in range(20):
        worker.call(lambda: None)  # a turn of its loop
    assert worker.commands.produced["a-1"] <= 2 * AHEAD_PARTS
    connection.close()
    wait_until(lambda: worker.commands.cancelled == {"a-1"})


@given(st.lists(st.integers(1, 2 * AHEAD_PARTS), max_size=10))
def test_each_part_that_is_taken_brings_one_more(grants: list[int]) -> None:
    async def run() -> None:
        sent, expected = list[bytes](), AHEAD_PARTS
        flow = Flow("r-1", sent.append, Keeps(), 10)
        task = asyncio.ensure_future(flow.run(endless(b"")))
        await turns()
        for taken in grants:
            assert len(sent) == expected
            flow.taken(taken)
            expected += min(taken, AHEAD_PARTS)
            await turns()
        assert len(sent) == expected
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())


async def turns() -> None:
    """As many turns of the loop as a flow needs to send what it may."""
    for _ in range(3 * AHEAD_PARTS):
        await asyncio.sleep(0)


class Keeps:
    """Where a flow keeps what is too large."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def keep(self, name: str, answered: Any) -> None:
        self.kept[name] = answered

    def forget(self, name: str) -> None:
        del self.kept[name]


async def endless(buffer: bytes) -> AsyncGenerator[Part]:
    while True:
        yield Part([Piece(b"1", [buffer])])


def test_credit_and_cancels_go_although_much_waits(
    worker: Worker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the socket refuses calls, but no credit and no cancel is lost."""
    parts, call = client.stream(50), client.send("wait")
    wait_until(lambda: worker.commands.begun["caller-2"])
    monkeypatch.setattr(outbox, "MOST_BYTES", -1)
    assert client.send("echo") is None
    assert rest(parts) == list(range(50))
    call.cancel()
    wait_until(lambda: worker.commands.cancelled == {"caller-2"})


# ---- whoever stops taking stops the producer ---------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("takes", [0, 1, 10])
def test_a_closed_stream_stops_and_its_late_parts_go(
    worker: Worker, client: Client, waits: Waits, takes: int
) -> None:
    async def run() -> None:
        parts = client.stream(waits=waits)
        for _ in range(takes):
            assert await take(parts, waits) is not None
        parts.close()
        parts.close()
        assert await take(parts, waits) is None
        await asyncio.to_thread(wait_until, lambda: not worker.server.callers or not _open(worker))
        sent = client.send("echo", 1, waits)  # the connection goes on
        assert (answers.get(sent, SECONDS) if waits is Waits.THREAD else await sent) == 1

    asyncio.run(run())
    assert worker.commands.begun["caller-1"] == 0 or worker.commands.cancelled == {"caller-1"}
    assert worker.commands.produced["caller-1"] <= takes + AHEAD_PARTS
    assert client.sender.ended_ids == ["caller-1"]


def _open(worker: Worker) -> int:
    return sum(caller.under_way for caller in list(worker.server.callers))


def test_a_stream_that_is_dropped_stops(worker: Worker, client: Client) -> None:
    parts = client.stream()
    wait_until(lambda: worker.commands.produced["caller-1"])
    del parts
    wait_until(lambda: worker.commands.cancelled == {"caller-1"})
    circle: list[Any] = [client.stream()]
    circle.append(circle)
    wait_until(lambda: worker.commands.produced["caller-2"])
    del circle
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join(SECONDS)
    wait_until(lambda: worker.commands.cancelled == {"caller-1", "caller-2"})
    assert not under_way(client, worker)


def test_the_garbage_collector_may_drop_a_stream_while_its_connection_is_written_to(
    worker: Worker, client: Client
) -> None:
    """It runs in any thread, in the midst of whatever that does."""
    parts = client.stream()
    wait_until(lambda: worker.commands.produced["caller-1"])
    with client.lanes._threads[worker.lane.path]._outbox._lock:
        del parts
    wait_until(lambda: worker.commands.cancelled == {"caller-1"})


def test_parts_that_are_kept_go_with_their_stream() -> None:
    async def run() -> None:
        keeps, full = Keeps(), asyncio.Event()

        def write(frame: bytes) -> None:
            if len(keeps.kept) == AHEAD_PARTS:
                full.set()

        task = asyncio.ensure_future(Flow("r-1", write, keeps, 10).run(endless(b"x" * 11)))
        await full.wait()
        assert len(keeps.kept) == AHEAD_PARTS
        task.cancel()
        await asyncio.wait([task])
        assert not keeps.kept

    asyncio.run(run())


def test_a_task_that_is_cancelled_stops_its_stream(worker: Worker, client: Client) -> None:
    async def run() -> None:
        parts = client.stream(2, "wait", Waits.LOOP)

        async def take() -> None:
            try:
                await fill([], parts, Waits.LOOP)
            finally:
                parts.close()

        task = asyncio.ensure_future(take())
        await asyncio.to_thread(wait_until, lambda: worker.commands.produced["caller-1"] == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    wait_until(lambda: worker.commands.cancelled == {"caller-1"})


def test_a_loop_that_ends_stops_its_streams(worker: Worker, client: Client) -> None:
    async def begin() -> Any:
        parts = client.stream(waits=Waits.LOOP)
        await parts.take()
        return parts

    parts = asyncio.run(begin())
    with pytest.raises(RuntimeError, match="event loop"):
        asyncio.run(parts.take())
    parts.close()
    wait_until(lambda: worker.commands.cancelled == {"caller-1"})


def test_a_caller_that_dies_takes_its_streams_along(worker: Worker) -> None:
    request = pb.Request(id="a-1", command="count", stream=True, pack=True)
    request.args.json = b"1000000"
    connection = raw(
        worker, lane.hello(worker.lane.secret), frames.pack(lane.STREAM, request.SerializeToString())
    )
    wait_until(lambda: worker.commands.produced["a-1"])
    connection.close()
    wait_until(lambda: worker.commands.cancelled == {"a-1"})


def test_interrupts_stop_their_stream_and_no_other(worker: Worker, client: Client) -> None:
    """The main thread is interrupted again and again, wherever it is, while another one takes."""
    over, wrong = threading.Event(), list[Any]()

    def run() -> None:
        while not over.is_set():
            if rest(client.stream(50)) != list(range(50)):
                wrong.append("another")

    def interrupt(*_: Any) -> None:
        raise Interrupted

    thread = threading.Thread(target=run)
    before = signal.signal(signal.SIGALRM, interrupt)
    thread.start()
    interrupts, chance = 0, random.Random(5)
    try:
        while interrupts < 150:
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.003))
                while True:
                    with Interruptible():
                        rest(client.stream(20))
            except Interrupted:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        over.set()
        thread.join(SECONDS)
    assert not wrong and not thread.is_alive()
    wait_until(lambda: not _open(worker), what="every stream has ended")
    assert worker.commands.ended == set(worker.commands.begun)
    assert len(worker.server.callers) == 1, "the connection broke"


# ---- ends --------------------------------------------------------------------------------------------------


@BOTH
def test_a_worker_that_dies_is_an_error_after_its_parts(worker: Worker, client: Client, waits: Waits) -> None:
    """Whatever it had sent: nothing goes by Ray."""

    async def run() -> list[Any]:
        parts, got = client.stream(3, "wait", waits), list[Any]()
        await asyncio.to_thread(wait_until, lambda: worker.commands.produced["caller-1"] == 3)
        await asyncio.to_thread(worker.die)
        with pytest.raises(WorkerCrashed):
            await fill(got, parts, waits)
        return got

    assert asyncio.run(run()) == [0, 1, 2]
    assert not client.ray.sent
    assert client.stream(1) is None


@BOTH
def test_a_deadline_ends_it(worker: Worker, client: Client, waits: Waits) -> None:
    async def run() -> None:
        parts = client.stream(1, "wait", waits, 0.05)
        with pytest.raises(DeadlineExceeded):
            await fill([], parts, waits)
        parts.close()

    asyncio.run(run())
    wait_until(lambda: worker.commands.cancelled == set(worker.commands.begun))  # if it began at all


def test_a_worker_that_leaves_waits_until_its_parts_are_sent(worker: Worker) -> None:
    """The last of them may still wait for the socket when the stream has ended."""
    request = pb.Request(id="a-1", command="echo")
    request.args.json = b'"' + b"x" * 200_000 + b'"'
    said = [frames.pack(lane.CALL, _with_id(request, f"a-{number}")) for number in range(4)]
    with raw(worker, lane.hello(worker.lane.secret), *said) as connection:
        wait_until(lambda: len(worker.commands.begun) == 4 and not _open(worker))
        assert not worker.run(worker.server.until_sent(0.0))
        reader, answers_read = frames.FrameReader(lane.FRAME_LIMIT), 0
        while answers_read < 4:
            answers_read += len(reader.feed(connection.recv(65536)))
        assert worker.run(worker.server.until_sent(SECONDS))


def _with_id(request: pb.Request, name: str) -> bytes:
    request.id = name
    return request.SerializeToString()


@BOTH
def test_a_budget_may_be_of_any_length(client: Client, waits: Waits) -> None:
    assert taken(client, waits, 3, "count", seconds=1e12) == [0, 1, 2]


def test_a_request_whose_connection_has_just_ended_goes_by_ray(worker: Worker, client: Client) -> None:
    rest(client.stream(1))
    client.lanes._threads[worker.lane.path]._outbox.close()  # and its reader has not said so yet
    assert client.stream(1) is None
    assert not under_way(client, worker)


def test_what_cannot_be_fetched_is_the_error(worker: Worker, client: Client) -> None:
    def gone(name: str) -> Any:
        raise SnakepitError("the pool is gone")

    parts = client.stream(10, "large")
    parts._inbox.call = parts._inbox.call._replace(fetch=gone)
    with pytest.raises(SnakepitError, match="gone"):
        rest(parts)


def test_a_fork_with_a_stream_under_way_does_not_end_it(worker: Worker, client: Client) -> None:
    parts = client.stream(1000)
    parts.take()
    child = os.fork()
    if not child:
        parts.close()  # of the child's own, which has no connection
        del parts
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert rest(parts) == list(range(1, 1000))
    assert not worker.commands.cancelled


def test_a_part_of_what_is_no_stream_ends_the_connection(worker: Worker, client: Client) -> None:
    sent = client.send("wait")
    wait_until(lambda: worker.commands.begun)
    (caller,) = worker.server.callers
    part = lane_pb2.LaneChunks(id="caller-1").SerializeToString()
    worker.call(lambda: caller._write(frames.pack(lane.PART, part)))
    assert answers.get(sent, SECONDS) == "by ray"


@pytest.mark.parametrize("count", [1_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_frames_of_streams_harm_nobody(worker: Worker, client: Client, count: int) -> None:
    chance = random.Random(13)
    request = pb.Request(id="a-1", command="large", stream=True, pack=True)
    request.args.json = b"5"
    good = frames.pack(lane.STREAM, request.SerializeToString()) + lane_parts.taken("a-1", 2)
    for _ in range(count // 20):
        for _ in range(20):
            raw(worker, lane.hello(worker.lane.secret) + mutated(chance, good + lane.cancel("a-1"))).close()
        assert rest(client.stream(3)) == [0, 1, 2]
    wait_until(lambda: len(worker.server.callers) == 1, SECONDS)
