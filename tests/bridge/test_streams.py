"""Commands that yield: order, credit, ends of every kind, progress."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.wire._pb import interpreter_pb2 as pb

KINDS = ["count", "count_async"]
GENTLE = 1.0  # seconds within which a generator's `finally` has run


@pytest.fixture
def made(bridge):
    return bridge("streaming:Streaming", capacity=2).start()  # one to look at what the other does


@pytest.fixture
def stream(made):
    one = made.attach()
    yield one
    assert not one.late, "chunks after the reply"
    one.close()


def log(stream) -> list[str]:
    return stream.run("told_at_once")["log"]


def until_logged(stream, entry: str, seconds: float = GENTLE) -> None:
    deadline = time.monotonic() + seconds
    while entry not in log(stream):
        assert time.monotonic() < deadline, f"{entry} not within {seconds} s: {log(stream)}"


@pytest.mark.parametrize("command", KINDS)
@pytest.mark.parametrize("pack", [False, True])
def test_chunks_come_in_order_and_then_the_end(stream, command: str, pack: bool) -> None:
    request = stream.stream(command, {"count": 5000}, pack=pack)
    reply = stream.reply(request)
    assert reply.end.chunks == 5000
    assert stream.values(request) == [{"i": i} for i in range(5000)]
    packed = [chunk.packed for chunk in stream.chunks[request]]
    assert max(packed) <= 1000 and (any(packed) if pack else not any(packed))
    assert log(stream) == ["finally:False"]


def test_an_empty_stream_has_an_end(stream) -> None:
    reply = stream.reply(stream.stream("count", {"count": 0}))
    assert reply.WhichOneof("outcome") == "end" and reply.end.chunks == 0


@pytest.mark.parametrize("command", ["returns", "returns_async"])
def test_a_command_that_returns_gives_one_chunk(stream, command: str) -> None:
    request = stream.stream(command, {"value": {"x": 1}})
    assert stream.reply(request).end.chunks == 1
    assert stream.values(request) == [{"x": 1}]


def test_a_coroutine_may_return_a_generator(stream) -> None:
    request = stream.stream("returns_a_generator")
    assert stream.reply(request).end.chunks == 3 and stream.values(request) == [0, 1, 2]


@pytest.mark.parametrize("command", KINDS)
def test_a_producer_without_credit_stops(stream, command: str) -> None:
    request = stream.stream(command, {"count": 1000}, credit=5)
    stream.until(lambda: len(stream.values(request)) == 5)
    looks = [stream.run("told_at_once")["produced"] for _ in range(50)]
    assert looks[-1] <= 6, "five sent and one in its hand"
    stream.send(credits=[pb.Credit(id=request, chunks=10)])
    stream.until(lambda: len(stream.values(request)) == 15)
    assert max(stream.run("told_at_once")["produced"] for _ in range(50)) <= 16
    stream.send(credits=[pb.Credit(id=request, chunks=10_000)])
    assert stream.reply(request).end.chunks == 1000
    assert stream.values(request) == [{"i": i} for i in range(1000)]


def test_bytes_are_credit_too(stream) -> None:
    request = stream.stream("count", {"count": 100, "size": 1000}, credit_bytes=3500)
    stream.until(lambda: len(stream.values(request)) == 4)
    assert max(stream.run("told_at_once")["produced"] for _ in range(50)) == 5
    size = sum(len(chunk.value.json) for chunk in stream.chunks[request])
    stream.send(credits=[pb.Credit(id=request, chunks=4, bytes=size)])
    stream.until(lambda: len(stream.values(request)) == 8)
    stream.send(credits=[pb.Credit(id=request, bytes=1 << 30)])
    assert stream.reply(request).end.chunks == 100


@pytest.mark.parametrize("command", KINDS)
def test_an_error_comes_after_the_chunks_before_it(stream, command: str) -> None:
    request = stream.stream(command, {"count": 10, "fail_at": 7}, pack=True)
    failure = stream.reply(request).failure
    assert (failure.type, failure.message) == ("ValueError", "at 7")
    assert "streaming.py" in failure.traceback
    assert stream.values(request) == [{"i": i} for i in range(7)]


def test_a_chunk_that_cannot_be_carried_ends_the_stream_and_closes_the_generator(stream) -> None:
    request = stream.stream("unencodable_at", {"at": 2})
    failure = stream.reply(request).failure
    assert failure.kind == pb.Failure.ENCODING and "chunk: cannot encode" in failure.message
    assert stream.values(request) == [0, 1] and log(stream) == ["finally"]


@pytest.mark.parametrize("command", KINDS)
@pytest.mark.parametrize(
    ("reason", "kind"), [(pb.Cancel.CALLER, "CANCELLED"), (pb.Cancel.DEADLINE, "DEADLINE")]
)
def test_a_cancelled_producer_that_waits_for_credit_is_closed(stream, command, reason, kind) -> None:
    request = stream.stream(command, {"count": 1000}, credit=3)
    stream.until(lambda: len(stream.values(request)) == 3)
    began = time.monotonic()
    stream.cancel(request, reason)
    failure = stream.reply(request).failure
    assert pb.Failure.Kind.Name(failure.kind) == kind and time.monotonic() - began < GENTLE
    assert "finally:True" in log(stream)
    assert len(stream.values(request)) == 3, "nothing is sent after a cancel"


@pytest.mark.parametrize("command", ["waits", "sleeps"])
def test_a_cancelled_producer_that_waits_for_something_else_is_closed(stream, command: str) -> None:
    request = stream.stream(command)
    stream.until(lambda: stream.values(request) == [0])
    stream.cancel(request)
    assert stream.reply(request, GENTLE).failure.kind == pb.Failure.CANCELLED
    assert "finally:True" in log(stream)


@pytest.mark.parametrize("command", ["count", "waits", "sleeps"])
def test_the_budget_ends_a_stream(stream, command: str) -> None:
    args = {"count": 1000} if command == "count" else {}
    request = stream.stream(command, args, credit=2, budget_ms=200)
    assert stream.reply(request).failure.kind == pb.Failure.DEADLINE
    assert "finally:True" in log(stream)


@pytest.mark.parametrize("command", KINDS)
def test_the_end_of_the_attachment_closes_the_generator(made, command: str) -> None:
    first = made.attach()
    request = first.stream(command, {"count": 1000}, credit=3)
    first.until(lambda: len(first.values(request)) == 3)
    first.close()
    second = made.attach()
    until_logged(second, "finally:True")
    second.close()


def test_a_stream_does_not_keep_others_from_their_answers(bridge) -> None:
    stream = bridge("streaming:Streaming", capacity=2).start().attach()
    request = stream.stream("count", {"count": 10**9}, credit=10**9, pack=True)
    for _ in range(20):
        assert stream.run("told")["produced"] > 0
    stream.cancel(request)
    assert stream.reply(request, 10).failure.kind == pb.Failure.CANCELLED
    stream.close()


def test_chunks_with_buffers_are_not_packed(stream) -> None:
    request = stream.stream("arrays", pack=True)
    assert stream.reply(request).end.chunks == 4
    chunks = stream.chunks[request]
    with_buffers = [chunk for chunk in chunks if chunk.value.buffers]
    assert [(chunk.index, chunk.packed) for chunk in with_buffers] == [(1, 0)]
    assert with_buffers[0].value.buffers[0].inline == b"bytes"
    assert [index for chunk in chunks for index in range(chunk.index, chunk.index + (chunk.packed or 1))] == [
        0, 1, 2, 3,
    ]  # fmt: skip


def test_progress_is_a_tagged_chunk(stream) -> None:
    request = stream.stream("mixed", {"count": 2})
    assert stream.reply(request).end.chunks == 4
    report = {"$snakepit": "progress", "done": 1, "total": 2, "message": ""}
    assert stream.values(request) == [report, 0, {**report, "done": 2}, 1]


def test_progress_never_waits_and_the_newest_is_kept(stream) -> None:
    request = stream.stream("reports", {"count": 100}, credit=1)
    stream.until(lambda: stream.values(request))
    while stream.run("told_at_once")["produced"] < 100:  # it was not kept waiting
        pass
    stream.send(credits=[pb.Credit(id=request, chunks=2)])
    assert stream.reply(request).end.chunks == 3
    first, last, value = stream.values(request)
    assert (first["done"], last["done"], value) == (1, 100, "done")


def test_progress_outside_of_a_stream_does_nothing(stream) -> None:
    assert stream.run("reports", {"count": 3}) == "done" and not stream.chunks


def test_a_progress_comes_back_as_one(stream) -> None:
    from snakepit_bridge.values.decoding import decode
    from snakepit_bridge.values.encoding import encode
    from snakepit_bridge.values.tags import Progress

    report = Progress(1.0, None, "é")
    assert decode(encode(report)[0]) == report
    assert json.loads(encode(report)[0])["$snakepit"] == "progress"
    with pytest.raises(Exception, match="progress"):
        encode(Progress("1"))  # type: ignore[arg-type]


def test_the_quick_way_gives_what_the_whole_way_gives() -> None:
    from snakepit_bridge.values.encoding import encode
    from snakepit_bridge.values.quick import quick
    from snakepit_bridge.values.tags import MAX_INT

    plain = [
        {},
        {"a": 1, "b": 0.5, "c": None, "d": True, 'é\n"\\': "é\u2028😀\0"},
        {"x": -0.0, "y": MAX_INT, "z": 1e300},
    ]
    for value in plain:
        assert quick(value) == encode(value)[0]
    for value in (
        [1],
        1,
        "x",
        {"a": [1]},
        {"$snakepit": 1},
        {1: 2},
        {"a": MAX_INT + 1},
        {"a": "\ud800"},
        {"\ud800": 1},
    ):
        assert quick(value) is None
    for value in (float("nan"), float("inf"), -float("inf")):
        assert quick({"a": value}) is None
    assert quick({str(i): i for i in range(33)}) is None

    class Text(str):
        pass

    assert quick({"a": Text("x")}) is None and quick({Text("b"): 1}) is None


@pytest.mark.parametrize("remembered", [True, False])
@given(
    value=st.dictionaries(
        st.text(max_size=4) | st.sampled_from(["{", "}", "{x}", "'", '"', "\\", "\n", "%s", "v0"]),
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5),
        max_size=5,
    )
)
def test_the_quick_way_is_the_whole_way_or_none(remembered: bool, value: dict[str, Any]) -> None:
    from snakepit_bridge.values import quick
    from snakepit_bridge.values.encoding import encode
    from snakepit_bridge.values.tags import TAG

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick, "_writers", {})
        patch.setattr(quick, "_latest", {})
        patch.setattr(quick, "_MOST_SHAPES", 1 if remembered else 0)
        for _ in range(2):
            text = quick.quick(value)
            plain = all(
                -(2**53) < item < 2**53 if type(item) is int else item == item and abs(item) != float("inf")
                for item in value.values()
                if type(item) in (int, float)
            )
            assert (text is not None) == (plain and TAG not in value)
            assert text is None or text == encode(value)[0]


of_some_type = st.none() | st.booleans() | st.integers(-1, 2**54) | st.floats() | st.text(max_size=2)
ab_or_ba = st.permutations("ab").flatmap(
    lambda names: st.fixed_dictionaries(dict.fromkeys(names, of_some_type))
)


@given(st.lists(ab_or_ba))
def test_dicts_of_the_same_names_may_have_other_types_and_another_order(values: list[dict[str, Any]]) -> None:
    from snakepit_bridge.values.encoding import encode
    from snakepit_bridge.values.quick import quick

    for value in values:
        text = quick(value)
        assert text is None or text == encode(value)[0]
