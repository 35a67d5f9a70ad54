"""Whatever happens between taking a request and its outcome is that request's outcome and nobody else's."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.harness import BridgeProcess, Stream
from tests.bridge.test_batches import run

from snakepit_bridge.adapter.commands import LONGEST_TIMEOUT, command, find_commands  # isort: skip

SERVING = b"\x08\x01"


@pytest.fixture(scope="module")
def served(_wire: None) -> Iterator[BridgeProcess]:
    one = BridgeProcess("troubles:Troubles", shared=64 * 1024 * 1024).start()
    yield one
    one.stop()


@pytest.fixture
def stream(served: BridgeProcess) -> Iterator[Stream]:
    one = served.attach()
    yield one
    one.close()


@pytest.fixture(scope="module")
def threads(_wire: None) -> Iterator[BridgeProcess]:
    one = BridgeProcess("troubles:Shared", thread_profile=True, capacity=4).start()
    yield one
    one.stop()


# ---- a result is what it was when the command returned ---------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 2])
def test_items_of_a_batch_give_what_was_when_each_returned(bridge, capacity: int) -> None:
    def results(kind: str, count: int = 20) -> list:
        stream = bridge("troubles:Troubles", capacity=capacity).start().attach()
        if kind == "later":
            return run(stream, "grow_later", [{}] * count)
        return run(stream, "grow", [{"kind": kind}] * count)

    expected = list(range(1, 21))
    assert [value["n"] for value in results("dict")] == expected
    assert [value["n"] for value in results("fresh")] == expected
    assert [value["n"] for value in results("later")] == expected
    assert [value["inner"]["n"] for value in results("nested")] == expected
    assert [len(value) for value in results("list")] == expected
    assert [len(value["values"]) for value in results("object")] == expected
    mixed = results("mixed")
    assert mixed[:4] == [5, {"inner": {"n": 2}}, "x", {"n": 4}] and mixed[-1] == {"n": 20}


# ---- declarations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), float("nan"), 50 * 86_400, LONGEST_TIMEOUT + 1])
def test_a_timeout_that_cannot_be_kept_is_refused_where_it_is_declared(timeout: float) -> None:
    with pytest.raises(ValueError, match=f"seconds above 0 and at most 4,000,000, .* got {timeout!r}"):
        command(timeout=timeout)


def test_marks_on_what_is_no_method_are_refused() -> None:
    for wrong in (property(lambda self: 1), functools.partialmethod(print), 5):
        with pytest.raises(TypeError, match="@command marks methods, not a"):
            command(wrong)

    class Hidden:
        @property
        @command
        def value(self) -> int:
            raise AssertionError("it was evaluated")

    with pytest.raises(TypeError, match=r"Hidden\.value is a property"):
        find_commands(Hidden())


def test_static_and_class_methods_are_commands_whichever_mark_is_above(stream: Stream) -> None:
    assert [stream.run(f"{order}_static", {"a": 1}) for order in ("above", "below")] == [1, 1]
    assert [stream.run(f"{order}_class", {"a": 1}) for order in ("above", "below")] == [["Troubles", 1]] * 2


def test_a_choice_with_none_for_its_default_takes_none(stream: Stream) -> None:
    nothing = {"plain": None, "written": None, "optional": None}
    assert stream.run("choose", nothing) == stream.run("choose") == [None, None, None, "a"]
    for name in ("plain", "written"):
        assert f"{name} must be one of 'a'" in stream.failure("choose", {name: "c"}).message
    assert "strict must be" in stream.failure("choose", {"strict": None}).message


# ---- failures --------------------------------------------------------------------------------------------


def test_a_failure_is_made_also_where_the_working_directory_is_gone(bridge, tmp_path) -> None:
    stream = bridge("troubles:Troubles").start().attach()
    failed = stream.failure("lose_the_directory", {"path": str(tmp_path / "gone")})
    assert (failed.type, failed.message) == ("ValueError", "from nowhere")
    assert stream.run("echo", {"value": 1}) == 1


def test_what_cannot_be_written_fails_alone_and_the_interpreter_serves_on(stream: Stream) -> None:
    failed = stream.failure("fails_unspeakably")
    assert (failed.type, failed.details) == ("Unspeakable", {"module": ""})
    assert stream.failure("asks_with", {"kind": "number"}).type == "TypeError"
    assert stream.failure("asks_with", {"kind": "surrogate"}).type == "HostError"
    assert stream.run("echo", {"value": 1}) == 1


def test_an_item_that_cannot_be_written_is_a_failure_in_its_place() -> None:
    from snakepit_bridge.server.answers import Answer
    from snakepit_bridge.server.outgoing import fill

    frame = pb.FromInterpreter()
    for id, outcome in (("a", (b"1", [])), ("b", (5, [])), ("c", (b"3", []))):
        fill(frame, Answer(id, outcome, 7), None)
    first, second, third = frame.replies
    assert (first.value.json, third.value.json) == (b"1", b"3")
    assert (second.id, second.ran_us, second.failure.kind) == ("b", 7, pb.Failure.INTERNAL)


# ---- threads, loops, descriptors -------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 2])
def test_without_descriptors_only_the_async_command_fails(bridge, capacity: int) -> None:
    one = bridge("troubles:Troubles", capacity=capacity).start()
    stream = one.attach()
    stream.run("limit_descriptors", {"count": 0})
    assert stream.failure("aecho", {"value": 1}).type == "OSError"
    assert stream.run("echo", {"value": 2}) == 2
    stream.run("limit_descriptors", {"count": -1})
    assert stream.run("aecho", {"value": 3}) == 3
    assert one.unary("/grpc.health.v1.Health/Check") == SERVING


@pytest.mark.parametrize("capacity", [1, 2])
def test_an_exception_that_comes_late_ends_no_thread_and_no_other_command(bridge, capacity: int) -> None:
    one = bridge("troubles:Troubles", capacity=capacity).start()
    stream = one.attach()
    for _ in range(20):
        late = [stream.request("raise_late", {"seconds": 0.001, "ahead": 3}) for _ in range(4)]
        ids = [stream.request("echo", {"value": i}) for i in range(20)]
        for request in late:
            stream.reply(request)
        for i, request in enumerate(ids):  # the one that it hits may fail, but each has its own outcome
            reply = stream.reply(request)
            assert reply.value.json == str(i).encode() or reply.failure.type == "TimeoutError"
    replies = [stream.reply(stream.request("echo", {"value": 1})) for _ in range(20)]
    assert all(reply.value.json == b"1" or reply.failure.type == "TimeoutError" for reply in replies)
    assert one.unary("/grpc.health.v1.Health/Check") == SERVING


def test_health_looks_at_the_threads_that_serve() -> None:
    from snakepit_bridge.adapter.threads import Threads

    threads = Threads(2)
    threads.start()
    assert threads.is_alive()
    ended = threading.Thread(target=print)
    threads._threads.append(ended)
    assert not threads.is_alive()


# ---- streams ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["large_chunks", "large_chunks_sync"])
def test_streams_that_are_left_while_they_wait_for_credit_give_their_memory_back(
    stream: Stream, name: str
) -> None:
    ids: list[str] = []
    for _ in range(80):  # 80 MB, more than there is
        request = stream.stream(name, credit=1)
        stream.until(lambda request=request: stream.chunks.get(request))
        stream.cancel(request)
        assert stream.reply(request).failure.kind == pb.Failure.CANCELLED
        places = [buffer.segment for buffer in stream.chunks[request][0].value.buffers]
        assert [place.size for place in places] == [1_000_000], "it found room"
        ids += [place.id for place in places]
        stream.send(released=[place.id for place in places])
    assert len(set(ids)) == 80


def test_a_generator_that_an_async_command_returns_runs_in_its_slot(bridge) -> None:
    stream = bridge("troubles:Troubles", capacity=2).start().attach()
    paused = [stream.stream("returns_blocking", credit=1) for _ in range(2)]
    for request in paused:
        stream.until(lambda request=request: stream.chunks.get(request))
    waiting = stream.request("aecho", {"value": 1})
    stream.cancel(paused[0])
    assert stream.reply(paused[0]).failure.kind == pb.Failure.CANCELLED
    assert stream.result(waiting) == 1
    stream.send(credits=[pb.Credit(id=paused[1], chunks=1000)])
    assert stream.reply(paused[1]).end.chunks == 100
    assert all(value["same"] for value in stream.values(paused[1]))
    assert list(stream.replies) == [paused[0], waiting, paused[1]], "there was no slot for it before"


def test_a_report_after_the_end_of_a_stream_is_no_second_reply(stream: Stream) -> None:
    request = stream.stream("keeps_reporting")
    assert stream.reply(request).end.chunks == 1
    for _ in range(3):
        stream.run("report_late")
    assert len(stream.replies[request]) == 1 and not stream.late


# ---- hooks of the thread profile -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mine", "mine_later"])
def test_each_command_sees_its_own_context(threads: BridgeProcess, name: str) -> None:
    stream = threads.attach()
    args = {"seconds": 0.001} if name == "mine" else {}
    ids = {stream.request(name, args, session=f"s{i % 8}"): f"s{i % 8}" for i in range(200)}
    for request, session in ids.items():
        assert stream.result(request) == [session, session, request]
    stream.close()


@pytest.mark.parametrize("name", ["mine", "mine_later"])
def test_a_slow_session_start_holds_up_its_own_session_alone(bridge, name: str) -> None:
    stream = bridge("troubles:Shared", thread_profile=True, capacity=4).start().attach()
    slow = stream.request(name, session="slow")
    for i in range(5):
        assert stream.run("mine_later", session=f"quick{i}")[0] == f"quick{i}"
        assert stream.run("mine", session=f"other{i}")[0] == f"other{i}"
    assert slow not in stream.replies
    stream.run("open_gate")
    assert stream.result(slow)[0] == "slow"


def test_a_thread_that_is_told_to_end_serves_on(threads: BridgeProcess) -> None:
    stream = threads.attach()
    for _ in range(10):
        ids = [stream.request("kills_its_thread") for _ in range(4)]
        outcomes: list[Any] = [stream.reply(request) for request in ids]
        assert all(reply.failure.type in ("", "SystemExit") for reply in outcomes)
    for _ in range(8):
        reply = stream.reply(stream.request("mine", session="s"))
        assert reply.failure.type == "SystemExit" or json.loads(reply.value.json)[0] == "s"
    assert threads.unary("/grpc.health.v1.Health/Check") == SERVING
    stream.close()
