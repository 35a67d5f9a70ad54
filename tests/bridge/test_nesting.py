"""Requests that run inside of a command which waits for its host: where they run, and what is given back."""

from __future__ import annotations

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.harness import KIND, BridgeProcess, Stream
from tests.bridge.test_host_calls import ASKING, calls, value


@pytest.fixture(scope="module", params=[1, 2], ids=["main thread", "threads"])
def asking(_wire: None, request: pytest.FixtureRequest):
    one = BridgeProcess(ASKING, capacity=request.param).start()
    yield one
    one.stop()


@pytest.fixture
def stream(asking: BridgeProcess):
    one = asking.attach()
    yield one
    one.close()


def is_given_back(stream: Stream, request_id: str) -> bool:
    reply = stream.reply(request_id)
    return (reply.failure.kind, reply.ran_us) == (KIND.CANCELLED, 0)


def test_it_runs_in_the_thread_that_waits(stream: Stream) -> None:
    outer = stream.request("asks_here", {"method": "m"})
    (call,) = calls(stream, 1)
    inner = [stream.request("here", inside=outer) for _ in range(3)]
    threads = {stream.result(one) for one in inner}
    stream.send(host_replies=[value(call, "answer")])
    said = stream.result(outer)
    assert threads == set(said["threads"]) and len(threads) == 1
    assert (said["answer"], said["current"]) == ("answer", outer)


def test_the_innermost_command_that_waits_runs_it(stream: Stream) -> None:
    first = stream.request("asks_here", {"method": "m"})
    (of_first,) = calls(stream, 1)
    second = stream.request("asks_here", {"method": "m"}, inside=first)
    of_second = calls(stream, 2)[1]
    third = stream.request("here", inside=first)
    thread = stream.result(third)
    stream.send(host_replies=[value(of_first, 1), value(of_second, 2)])
    inner, outer = stream.result(second), stream.result(first)
    assert (inner["answer"], outer["answer"]) == (2, 1), "the first's answer was there before"
    assert {thread} == {*inner["threads"], *outer["threads"]}
    assert (inner["current"], outer["current"]) == (second, first)


def test_an_async_command_runs_inside_of_one_that_is_not(stream: Stream) -> None:
    outer = stream.request("asks_here", {"method": "m"})
    (of_outer,) = calls(stream, 1)
    inner = stream.request("ahere", {"method": "n"}, inside=outer)
    of_inner = calls(stream, 2)[1]
    stream.send(host_replies=[value(of_inner, "inner")])
    assert stream.result(inner)["answer"] == "inner"
    stream.send(host_replies=[value(of_outer, "outer")])
    assert stream.result(outer)["answer"] == "outer"


def test_beside_an_async_command_only_async_ones_run(stream: Stream) -> None:
    outer = stream.request("ahere", {"method": "m"})
    (call,) = calls(stream, 1)
    beside = stream.request("ahere", inside=outer)
    assert stream.result(beside)["answer"] is None
    assert is_given_back(stream, stream.request("here", inside=outer))
    stream.send(host_replies=[value(call, "outer")])
    assert stream.result(outer)["answer"] == "outer"


def test_what_finds_nobody_waiting_is_given_back(stream: Stream) -> None:
    assert is_given_back(stream, stream.request("here", inside="nobody"))
    outer = stream.request("asks_here", {"method": "m"})
    (call,) = calls(stream, 1)
    stream.send(host_replies=[value(call)])
    stream.result(outer)
    assert is_given_back(stream, stream.request("here", inside=outer))


def test_a_command_that_is_cancelled_meanwhile_ends_after_what_runs_inside_of_it(stream: Stream) -> None:
    outer = stream.request("asks_here", {"method": "m"})
    calls(stream, 1)
    inner = stream.request("asks_here", {"method": "n"}, inside=outer)
    of_inner = calls(stream, 2)[1]
    stream.cancel(outer)
    stream.send(host_replies=[value(of_inner, "inner")])
    assert stream.result(inner)["answer"] == "inner"
    assert stream.reply(outer).failure.kind == pb.Failure.CANCELLED
