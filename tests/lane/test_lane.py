"""Callers and a worker over a real socket: answers, ends, cancels, forks, interrupts, and peers that break
the rules. What goes by Ray goes by a fake."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import random
import signal
import socket
import threading
from typing import Any

import pytest

from snakepit_ray.client import answers, links
from snakepit_ray.client.interrupts import Interruptible
from snakepit_ray.client.lanes import Lanes, Waits
from snakepit_ray.core.work import large_commands
from snakepit_ray.errors import PoolClosed, RequestCancelled, WorkerFault
from snakepit_ray.port import ray_port
from snakepit_ray.process import lanes as process_lanes
from snakepit_ray.wire import frames, lane
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.worker import lane as server
from tests.conftest import wait_until
from tests.lane.harness import SECONDS, Client, FakeRay, Interrupted, Worker, mutated, raw, reader_threads
from tests.scale import INTERRUPTS


def call(request_id: str, command: str = "echo", value: Any = None) -> bytes:
    request = pb.Request(id=request_id, command=command, budget_ms=1000)
    request.args.json = json.dumps(value).encode()
    return frames.pack(lane.CALL, request.SerializeToString())


# ---- answers -----------------------------------------------------------------------------------------------


def test_a_thread_gets_its_value_and_its_error(worker: Worker, client: Client) -> None:
    assert answers.get(client.send("echo", {"a": [1, 2]}), SECONDS) == {"a": [1, 2]}
    with pytest.raises(ValueError, match="no good"):
        answers.get(client.send("fail"), SECONDS)
    with pytest.raises(WorkerFault, match="KeyError"):
        answers.get(client.send("bug"), SECONDS)
    with pytest.raises(WorkerFault, match="TypeError"):
        answers.get(client.send("odd"), SECONDS)
    assert (worker.counted, client.ray.sent) == (4, [])


def test_a_task_gets_its_value_and_its_error(worker: Worker, client: Client) -> None:
    async def run() -> None:
        sent = [client.send("echo", number, Waits.LOOP) for number in range(200)]
        assert [await one for one in sent] == list(range(200))
        with pytest.raises(ValueError, match="no good"):
            await client.send("fail", waits=Waits.LOOP)

    asyncio.run(run())
    asyncio.run(run())  # another loop has a connection of its own
    assert not reader_threads()


def test_many_threads_share_one_connection(worker: Worker, client: Client) -> None:
    wrong: list[Any] = []

    def run(mine: int) -> None:
        for number in range(50):
            value = [mine, number]
            if answers.get(client.send("echo", value), SECONDS) != value:
                wrong.append(value)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not wrong
    assert len(worker.server.callers) == len(reader_threads()) == 1


def test_an_answer_that_is_too_large_is_kept_and_fetched_by_ray(worker: Worker, client: Client) -> None:
    assert answers.get(client.send("large"), SECONDS) == "by ray"
    assert client.ray.sent == [("caller-1", True)]
    answer, error = worker.commands.kept["caller-1"]
    assert len(answer.json) > lane.LARGEST and error is None


def test_a_command_whose_answer_was_too_large_goes_by_ray_for_a_while(
    worker: Worker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.lanes.is_too_large("echo")
    assert client.send("echo") is None
    assert answers.get(client.send("large"), SECONDS) == "by ray"  # another command
    monkeypatch.setattr(large_commands, "SECONDS", -1.0)
    client.lanes.is_too_large("echo")
    assert answers.get(client.send("echo", 1), SECONDS) == 1


def test_a_request_that_is_too_large_is_not_taken(client: Client) -> None:
    assert client.send("echo", "x" * lane.LARGEST) is None


def test_the_first_that_is_there_ends_a_wait(worker: Worker, client: Client) -> None:
    slow, fast = client.send("wait", 1), client.send("echo", 2)
    assert answers.wait([slow, fast], SECONDS) == [fast]
    assert answers.wait([slow], 0.0) == []
    worker.call(worker.commands.go.set)
    assert answers.wait([slow], SECONDS) == [slow]
    assert answers.get(slow) == 1


def test_what_does_not_come_in_time_is_a_timeout(client: Client) -> None:
    with pytest.raises(ray_port.GetTimeout):
        answers.get(client.send("wait"), 0.0)


# ---- ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [Waits.THREAD, Waits.LOOP])
def test_what_has_no_answer_goes_by_ray_with_its_id_when_the_worker_dies(
    worker: Worker, client: Client, waits: Waits
) -> None:
    async def run() -> list[Any]:
        sent = [client.send("wait", number, waits) for number in range(10)]
        await asyncio.to_thread(wait_until, lambda: len(worker.commands.begun) == 10)
        await asyncio.to_thread(worker.die)
        if waits is Waits.LOOP:
            return [await one for one in sent]
        return [answers.get(one, SECONDS) for one in sent]

    assert asyncio.run(run()) == ["by ray"] * 10
    assert sorted(client.ray.sent) == sorted((f"caller-{number}", False) for number in range(1, 11))
    assert client.send("echo") is None  # and what comes now goes by Ray at once


def test_what_ray_cannot_send_either_is_the_error(worker: Worker) -> None:
    def closed(request_id: str, is_large: bool) -> Any:
        raise PoolClosed("it was shut down")

    client = Client(worker, FakeRay(closed))
    sent = client.send("wait")
    client.lanes.close()
    with pytest.raises(PoolClosed):
        answers.get(sent, SECONDS)


def test_a_caller_that_dies_takes_its_commands_along(worker: Worker) -> None:
    connection = raw(worker, lane.hello(worker.lane.secret), call("a-1", "wait"), call("a-2", "wait"))
    wait_until(lambda: len(worker.commands.begun) == 2)
    connection.close()
    wait_until(lambda: worker.commands.cancelled == {"a-1", "a-2"})
    wait_until(lambda: not worker.server.callers)


def test_a_closed_handle_leaves_no_thread_and_no_connection(worker: Worker, client: Client) -> None:
    answers.get(client.send("echo"), SECONDS)
    client.lanes.close()
    wait_until(lambda: not reader_threads() and not worker.server.callers)
    assert client.send("echo") is None


def test_a_loop_that_ends_leaves_no_connection(worker: Worker, client: Client) -> None:
    async def run() -> None:
        await client.send("echo", waits=Waits.LOOP)

    asyncio.run(run())
    gc.collect()
    wait_until(lambda: not worker.server.callers)


# ---- cancels and interrupts --------------------------------------------------------------------------------


def test_a_cancel_reaches_the_command(worker: Worker, client: Client) -> None:
    sent = client.send("wait")
    wait_until(lambda: worker.commands.begun)
    answers.cancel(sent)
    answers.cancel(sent)
    with pytest.raises(RequestCancelled, match="pool 'pool'"):
        answers.get(sent, SECONDS)
    assert worker.commands.cancelled == {"caller-1"}


def test_a_cancel_that_comes_with_its_request_has_an_answer(worker: Worker) -> None:
    with raw(worker, lane.hello(worker.lane.secret) + call("a-1", "wait") + lane.cancel("a-1")) as connection:
        ((kind, payload),) = frames.FrameReader(lane.FRAME_LIMIT).feed(connection.recv(65536))
    assert kind == lane.ANSWER and b"RequestCancelled" in payload


def test_what_was_cancelled_does_not_go_again(worker: Worker, client: Client) -> None:
    sent = client.send("wait")
    wait_until(lambda: worker.commands.begun)
    worker.call(lambda: None)
    client.lanes._threads[worker.lane.path]._answers["caller-1"]._is_cancelled = True  # and the frame is lost
    worker.die()
    with pytest.raises(RequestCancelled):
        answers.get(sent, SECONDS)
    assert not client.ray.sent


def test_an_interrupt_between_the_sending_and_the_wait_cancels(worker: Worker, client: Client) -> None:
    def send(error: type[BaseException]) -> None:
        with Interruptible():
            sent = client.send("wait")
            wait_until(lambda: worker.commands.begun[sent.call.request_id])
            raise error

    with pytest.raises(KeyboardInterrupt):
        send(KeyboardInterrupt)
    wait_until(lambda: worker.commands.cancelled == {"caller-1"})
    with pytest.raises(LookupError):
        send(LookupError)
    with pytest.raises(KeyboardInterrupt), Interruptible():
        raise KeyboardInterrupt
    assert answers.get(client.send("echo", 1), SECONDS) == 1
    assert worker.commands.cancelled == {"caller-1"}


@pytest.mark.parametrize(("most", "others"), [(150, 2), pytest.param(INTERRUPTS, 4, marks=pytest.mark.slow)])
def test_interrupts_of_one_caller_hold_up_no_other(
    worker: Worker, client: Client, most: int, others: int
) -> None:
    """The main thread is interrupted again and again, wherever it is, while others call."""
    over, wrong, numbers = threading.Event(), list[Any](), itertools.count()

    def run() -> None:
        while not over.is_set():
            value = next(numbers)
            if answers.get(client.send("echo", value), SECONDS) != value:
                wrong.append(value)

    def interrupt(*_: Any) -> None:
        raise Interrupted

    threads = [threading.Thread(target=run) for _ in range(others)]
    before = signal.signal(signal.SIGALRM, interrupt)
    for thread in threads:
        thread.start()
    interrupts = 0
    try:
        while interrupts < most:
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.003))
                while True:
                    answers.get(client.send("echo", "x" * 2000), SECONDS)
            except Interrupted:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        over.set()
        for thread in threads:
            thread.join(SECONDS)
    assert not wrong and not any(thread.is_alive() for thread in threads)
    assert not client.ray.sent, "the connection broke"


# ---- forks -------------------------------------------------------------------------------------------------


def test_a_fork_with_calls_under_way_ends_none_of_them(worker: Worker, client: Client) -> None:
    sent = client.send("wait", 1)
    wait_until(lambda: worker.commands.begun)
    connection = client.lanes._threads[worker.lane.path]._socket.fileno()
    child = os.fork()
    if not child:
        try:
            os.fstat(connection)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0, "the child holds the connection"
    worker.call(worker.commands.go.set)
    assert answers.get(sent, SECONDS) == 1
    assert not worker.commands.cancelled


# ---- who may come in ---------------------------------------------------------------------------------------


def ended(connection: socket.socket) -> bool:
    """Whether the worker has ended it, without an answer."""
    try:
        with connection:
            return connection.recv(65536) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "said",
    [
        lane.hello(b"x" * lane.SECRET_BYTES),
        lane.hello(b""),
        call("a-1"),
        b"\xff" * 64,
        b"GET / HTTP/1.1\r\n\r\n" * 10,
    ],
)
def test_without_the_secret_nobody_comes_in(worker: Worker, said: bytes) -> None:
    assert ended(raw(worker, said + call("a-2")))
    assert not worker.commands.begun


def test_a_wrong_secret_goes_by_ray(worker: Worker, client: Client) -> None:
    sent = client.send("echo", to=worker.lane._replace(secret=b"x" * lane.SECRET_BYTES))
    assert sent is None or answers.get(sent, SECONDS) == "by ray"
    assert not worker.commands.begun


def test_another_user_does_not_come_in(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.os, "geteuid", lambda: os.getuid() + 1)
    assert ended(raw(worker, lane.hello(worker.lane.secret) + call("a-1")))
    assert not worker.commands.begun


def test_a_socket_of_another_user_is_told_nothing(
    worker: Worker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_lanes.os, "geteuid", lambda: os.getuid() + 1)
    assert client.send("echo") is None
    assert "runs as user" in client.lanes.why_not(worker.lane)


def test_who_says_nothing_does_not_stay(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HELLO_SECONDS", 0.05)
    assert ended(raw(worker))


def test_the_socket_and_its_directory_are_ours_alone(worker: Worker) -> None:
    assert os.stat(worker.lane.path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(worker.lane.path)).st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"node_id": "another"}, "on another node"),
        ({"path": "/nowhere/s"}, "No such file"),
        ({"path": "/" + "x" * 200}, "too long"),
    ],
)
def test_why_a_lane_is_not_used(worker: Worker, client: Client, change: Any, why: str) -> None:
    other = worker.lane._replace(**change)
    assert client.send("echo", to=other) is None
    assert why in client.lanes.why_not(other)
    assert client.lanes.why_not(worker.lane) == ""
    assert "none" in client.lanes.why_not(None)
    off = Lanes(False, lambda: "node-1")
    assert off.send(worker.lane, "w-0", "echo", None, Waits.THREAD) is None  # type: ignore[arg-type]
    assert "off" in off.why_not(worker.lane)


def test_without_descriptors_or_threads_a_call_goes_by_ray(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_: Any, **__: Any) -> Any:
        raise OSError("too many open files")

    class NoThread:
        def __init__(self, **_: Any) -> None:
            """As one that cannot start."""

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    descriptors = len(os.listdir("/proc/self/fd"))
    for place, name, broken in (
        (process_lanes.socket, "socket", no_more),
        (links.socket, "socketpair", no_more),
        (links.threading, "Thread", NoThread),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, broken)
            assert Client(worker).send("echo") is None
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, what="all are closed again")


def test_a_directory_that_was_cleaned_away_takes_new_callers_to_ray(worker: Worker, client: Client) -> None:
    assert answers.get(client.send("echo", 1), SECONDS) == 1
    os.unlink(worker.lane.path)
    assert answers.get(client.send("echo", 2), SECONDS) == 2  # the connection that is there goes on
    assert Client(worker).send("echo") is None


# ---- peers that break the rules ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        frames.header(lane.CALL, lane.FRAME_LIMIT + 1),
        frames.pack(99, b""),
        frames.pack(lane.CALL, b"\xff\xff"),
        frames.pack(lane.BATCH, b""),
        frames.pack(lane.ANSWER, b""),
        call(""),
        call("twice", "wait") + call("twice", "wait"),
        frames.pack(lane.CALL, pb.Request(id="a", options=pb.CallOptions(hops=1)).SerializeToString()),
        frames.pack(lane.CALL, pb.Request(id="a", stream=True).SerializeToString()),
        frames.pack(lane.MOVED, pb.Request(id="a").SerializeToString()),
        frames.pack(lane.STREAM, pb.Request(id="a", stream=True).SerializeToString()),
        frames.pack(lane.STREAM, pb.Request(id="a", pack=True).SerializeToString()),
        frames.pack(lane.STREAM, pb.Request(stream=True, pack=True).SerializeToString()),
        frames.pack(lane.TAKEN, b"\xff\xff"),
        frames.pack(lane.PART, b""),
    ],
)
def test_a_caller_that_breaks_the_rules_is_ended(worker: Worker, client: Client, said: bytes) -> None:
    connection = raw(worker, lane.hello(worker.lane.secret) + said)
    assert ended(connection)
    assert answers.get(client.send("echo", 1), SECONDS) == 1  # and nobody else is


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_frames_harm_nobody(worker: Worker, client: Client, count: int) -> None:
    chance = random.Random(7)
    good = call("a-1", "echo", {"a": 1}) + lane.cancel("a-1") + call("a-2", "echo", [1])
    for _ in range(count // 20):
        hello = lane.hello(worker.lane.secret)
        for _ in range(20):
            said = hello + mutated(chance, good) if chance.random() < 0.9 else mutated(chance, hello + good)
            raw(worker, said).close()
        assert answers.get(client.send("echo", 1), SECONDS) == 1
    wait_until(lambda: len(worker.server.callers) == 1, SECONDS)


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_answers_end_a_connection_and_lose_nothing(count: int) -> None:
    chance = random.Random(11)
    packed = frames.pack(lane.ANSWER, lane.error_answer("caller-1", KeyError("x")))
    for _ in range(count):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        link = links.Link(ours, b"s")
        came: list[Any] = []
        link._answers["caller-1"] = answers_like(came)
        try:
            link._received(mutated(chance, packed))
        except ValueError:
            link._ended()
        link._ended()
        assert len(came) == 1
        theirs.close()


def answers_like(came: list[Any]) -> Any:
    class One:
        def arrived(self, message: Any) -> None:
            came.append(message)

        def part(self, message: Any) -> None:
            raise ValueError("as of an answer")

        def lane_ended(self) -> None:
            came.append("by ray")

    return One()


def test_who_does_not_read_is_not_read_from(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNREAD_BYTES", 64 * 1024)
    connection = raw(worker, lane.hello(worker.lane.secret))
    wait_until(lambda: worker.server.callers)
    connection.setblocking(False)
    number, rest, refused = 0, b"", 0
    while refused < 200:
        try:
            rest = rest[connection.send(rest) :] if rest else call(f"a-{number}", "echo", "x" * 50_000)
            number, refused = number + 1, 0
        except BlockingIOError:
            refused += 1
            worker.call(lambda: None)  # a turn of its loop
    (caller,) = worker.server.callers
    held = worker.call(caller._transport.get_write_buffer_size)
    assert 64 * 1024 < held < 1024 * 1024
    connection.close()
