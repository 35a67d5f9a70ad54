"""The bridge's end of host calls, frame by frame: what goes on the wire, and what is held back."""

from __future__ import annotations

import json

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.harness import KIND, ROOT, BridgeProcess, Stream

ASKING = str(ROOT / "tests/adapters/asking.py") + ":Asking"
IN_FLIGHT = 256


@pytest.fixture(scope="module")
def asking(_wire: None):
    one = BridgeProcess(ASKING, capacity=2, shared=64 << 20).start()
    yield one
    one.stop()


@pytest.fixture
def stream(asking: BridgeProcess):
    one = asking.attach()
    yield one
    one.close()


def value(call: pb.HostCall, said: object = None) -> pb.HostReply:
    return pb.HostReply(id=call.id, value=pb.Payload(json=json.dumps(said).encode()))


def calls(stream: Stream, count: int) -> list[pb.HostCall]:
    """The calls on the wire, once there are so many."""
    return stream.until(lambda: stream.host_calls if len(stream.host_calls) >= count else None)


def settled(stream: Stream) -> None:
    """Whatever the bridge had to send by now has arrived."""
    stream.run("held")


def cancelled(stream: Stream, count: int = 1) -> list[str]:
    return stream.until(lambda: stream.host_cancels if len(stream.host_cancels) >= count else None)


def test_the_call_after_the_last_that_may_be_in_flight_is_held_back_until_one_ends(stream: Stream) -> None:
    request = stream.request("many", {"method": "number", "count": IN_FLIGHT + 2})
    calls(stream, IN_FLIGHT)
    settled(stream)
    assert len(stream.host_calls) == IN_FLIGHT
    for ended in range(1, 3):
        stream.send(host_replies=[value(stream.host_calls[ended], 0)])
        calls(stream, IN_FLIGHT + ended)
        settled(stream)
        assert len(stream.host_calls) == IN_FLIGHT + ended
    stream.send(host_replies=[value(call, 1) for n, call in enumerate(stream.host_calls) if n not in (1, 2)])
    assert stream.result(request) == IN_FLIGHT


def test_calls_that_are_cancelled_count_until_the_host_has_ended_them(stream: Stream) -> None:
    first = stream.request("many", {"method": "number", "count": IN_FLIGHT + 5})
    calls(stream, IN_FLIGHT)
    stream.cancel(first)
    assert stream.reply(first).failure.kind == KIND.CANCELLED
    assert sorted(cancelled(stream, IN_FLIGHT)) == sorted(call.id for call in stream.host_calls)
    second = stream.request("ask", {"method": "echo"})
    settled(stream)
    assert len(stream.host_calls) == IN_FLIGHT, "those that were held back never left"
    ended = pb.Failure(kind=pb.Failure.CANCELLED)
    stream.send(host_replies=[pb.HostReply(id=stream.host_calls[0].id, failure=ended)])
    call = calls(stream, IN_FLIGHT + 1)[-1]
    assert call.method == "echo"
    stream.send(host_replies=[value(call, "done")])
    assert stream.result(second) == "done"


def test_a_call_carries_its_requests_budget_trace_and_chain(stream: Stream) -> None:
    chain = pb.Chain(root="r", began_ms=1, calls=["a.b"])
    stream.request(
        "ask", {"method": "m"}, budget_ms=20_000, traceparent="00-1-2-01", tracestate="k=v", chain=chain
    )
    (call,) = calls(stream, 1)
    assert 0 < call.budget_ms <= 20_000
    assert (call.traceparent, call.tracestate, call.chain) == ("00-1-2-01", "k=v", chain)
    stream.send(host_replies=[value(call)])
    stream.request("ask", {"method": "m"})
    call = calls(stream, 2)[1]
    assert (call.budget_ms, call.traceparent, call.HasField("chain")) == (0, "", False)
    stream.send(host_replies=[value(call)])


def test_a_stream_asks_for_more_when_half_of_its_window_is_taken(stream: Stream) -> None:
    request = stream.request("sums", {"method": "m", "count": 0})
    (call,) = calls(stream, 1)
    assert call.stream and call.credit == 64 and call.credit_bytes == 16 << 20
    half = call.credit // 2
    stream.send(host_replies=[value(call, number) for number in range(half)])
    credit = stream.until(lambda: stream.host_credits)[0]
    assert (credit.id, credit.chunks, credit.bytes) == (call.id, half, sum(len(str(n)) for n in range(half)))
    stream.send(host_replies=[pb.HostReply(id=call.id, end=pb.StreamEnd(chunks=half))])
    assert stream.result(request) == sum(range(half))
    assert len(stream.host_credits) == 1


def test_a_stream_that_is_left_is_cancelled_once(stream: Stream) -> None:
    request = stream.request("takes", {"method": "m", "count": 1, "how": "close"})
    (call,) = calls(stream, 1)
    stream.send(host_replies=[value(call, 0), value(call, 1)])
    assert stream.result(request) == 1
    assert cancelled(stream) == [call.id]
    stream.send(host_replies=[value(call, 2), pb.HostReply(id=call.id, end=pb.StreamEnd())])
    settled(stream)
    assert stream.host_cancels == [call.id]


def test_what_cannot_be_decoded_is_an_error_of_the_call(stream: Stream) -> None:
    request = stream.request("fails", {"method": "m"})
    (call,) = calls(stream, 1)
    stream.send(host_replies=[pb.HostReply(id=call.id, value=pb.Payload(json=b'{"$snakepit": "what"}'))])
    assert stream.result(request)["kind"] == KIND.ENCODING


def test_arguments_that_are_too_large_are_an_error_of_the_call(bridge) -> None:
    stream = bridge(ASKING, max_message_size=1000).start().attach()
    request = stream.request("fails", {"method": "m", "payload": "x" * 600 + "y" * 600})
    said = stream.result(request)
    assert (said["kind"], said["type"], said["details"]["limit"]) == (
        KIND.PAYLOAD_TOO_LARGE,
        "PayloadTooLarge",
        1000,
    )
    assert stream.host_calls == []


def test_the_end_of_the_stream_ends_the_calls(asking: BridgeProcess) -> None:
    first = asking.attach()
    first.request("fails", {"method": "m"})
    calls(first, 1)
    first.close()
    second = asking.attach()
    assert second.run("held") == {"results": 0, "arguments": 0}
    second.close()
