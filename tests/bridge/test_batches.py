"""A batch in the bridge: one request, one reply, an outcome for each item."""

from __future__ import annotations

import json

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.harness import KIND, Stream
from tests.bridge.test_conformance import CASES, buffers_in_order, same, wire
from tests.conftest import wait_until

INVALID = KIND.Name(KIND.INVALID_ARGUMENTS)


def ask(stream: Stream, command: str, items: list, *, first: int = 0, share_ms: int = 0, **fields) -> str:
    batch = pb.Batch(first=first, count=fields.pop("count", len(items) - first), share_ms=share_ms)
    return stream.request(command, json.dumps(items).encode(), batch=batch, **fields)


def outcomes(reply: pb.Reply) -> list:
    """Each item's value, or the kind of its failure."""
    assert reply.WhichOneof("outcome") == "value", reply.failure.message
    values = json.loads(reply.value.json)
    assert reply.items == len(values)
    for item in reply.failures:
        assert values[item.index] is None
        values[item.index] = KIND.Name(item.failure.kind)
    return values


def run(stream: Stream, command: str, items: list, **fields) -> list:
    return outcomes(stream.reply(ask(stream, command, items, **fields)))


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257, 2000])
def test_results_come_in_the_order_of_the_items(stream, count: int) -> None:
    assert run(stream, "echo", [{"value": i} for i in range(count)]) == list(range(count))
    assert run(stream, "echo", [{"value": {"i": i}} for i in range(count)]) == [
        {"i": i} for i in range(count)
    ]


def test_async_and_hidden_coroutines_run_one_after_the_other(stream) -> None:
    assert run(stream, "async_add", [{"a": i, "b": 1} for i in range(50)]) == list(range(1, 51))
    assert run(stream, "hidden_coroutine", [{}] * 3) == ["later"] * 3


def test_one_bad_item_fails_alone(stream) -> None:
    items = [{"value": 1}, {"valu": 2}, 3, {"value": {"$snakepit": "nope"}}, {"value": 4}]
    invalid = "INVALID_ARGUMENTS"
    assert run(stream, "echo", items) == [1, invalid, invalid, invalid, 4]
    reply = stream.reply(ask(stream, "echo", items))
    assert [item.index for item in reply.failures] == [1, 2, 3]
    assert "did you mean 'value'" in reply.failures[0].failure.message
    adds = [{"a": 1, "b": 2}, {"a": "x", "b": 2}, {"a": 2.0, "b": 1}, {"a": 2.5, "b": 1}]
    assert run(stream, "async_add", adds) == [3, invalid, 3, invalid]


@pytest.mark.parametrize("at", [0, 5, 300, 599])
@pytest.mark.parametrize(
    ("bad", "outcome"),
    [({"a": "x", "b": 1}, INVALID), ({"a": True, "b": 1}, INVALID), ({"b": 1}, INVALID), (7, INVALID),
     ({"b": 2, "a": 1.0}, 3)],
)  # fmt: skip
def test_an_item_unlike_many_good_ones_is_checked(stream, at: int, bad: object, outcome: object) -> None:
    """Items of the names and types of others that passed are called without a check, block by block."""
    items = [{"a": i, "b": 1} for i in range(600)]
    expected: list = list(range(1, 601))
    items[at], expected[at] = bad, outcome
    for _ in range(2):
        assert run(stream, "async_add", items) == expected


def test_a_result_that_cannot_be_carried_fails_alone(stream) -> None:
    values = ["a", "\ud800", {"x": "é"}, float("inf"), 2**70]
    items = [{"tag": "batch-mixed"}] * 2
    assert len(run(stream, "note", items)) == 2
    back = run(
        stream, "result_of", [{"code": code} for code in ("1", "object()", "{1: 2}", "iter([])", "b'x'")]
    )
    assert back[0] == 1
    assert back[1:4] == ["ENCODING", "ENCODING", "INVALID_ARGUMENTS"]
    assert back[4] == {"$snakepit": "bytes", "buffer": 0}
    codes = [{"code": ascii(value) if value != float("inf") else "float('inf')"} for value in values]
    assert run(stream, "result_of", codes) == [
        "a",
        "ENCODING",
        {"x": "é"},
        {"$snakepit": "float", "value": "inf"},
        {"$snakepit": "int", "value": str(2**70)},
    ]


def test_a_command_that_exits_ends_only_its_item(stream) -> None:
    assert run(
        stream, "result_of", [{"code": "1"}, {"code": "(_ for _ in ()).throw(SystemExit)"}, {"code": "2"}]
    ) == [
        1,
        "COMMAND",
        2,
    ]


def test_what_is_wrong_with_the_whole_batch_is_one_failure(stream) -> None:
    one = pb.Batch(count=1)
    assert stream.failure("echo2", b"[{}]", batch=one).kind == "UNKNOWN_COMMAND"
    assert stream.failure("echo", b"{}", batch=one).kind == "INVALID_ARGUMENTS"
    assert stream.failure("echo", b"[{}", batch=one).kind == "INVALID_ARGUMENTS"
    assert stream.failure("echo", b"[]", batch=pb.Batch()).kind == "INVALID_ARGUMENTS"
    assert stream.failure("echo", b"[{}]", batch=pb.Batch(first=1, count=1)).kind == "INVALID_ARGUMENTS"
    assert stream.run("echo", {"value": 1}) == 1


def test_a_part_of_the_items_runs(stream) -> None:
    items = [{"value": i} for i in range(10)]
    assert run(stream, "echo", items, first=7) == [7, 8, 9]
    assert run(stream, "echo", items, first=2, count=3) == [2, 3, 4]


def test_the_share_of_time_gives_the_rest_back(stream) -> None:
    items = [{"seconds": 0.03, "tag": f"share-{i}"} for i in range(20)]
    done = run(stream, "sleep_noted", items, share_ms=50)
    assert 1 <= len(done) <= 3
    ran = [tag for tag in stream.run("noted")["log"] if tag.startswith("share-")]
    assert ran == [f"share-{i}" for i in range(len(done))]
    # However little the share, one item runs: nothing is sent back and forth for ever.
    assert run(stream, "sleep_noted", [{"seconds": 0.01, "tag": "x"}] * 3, share_ms=1) == ["x"]


def test_much_data_gives_the_rest_back(stream) -> None:
    done = run(stream, "result_of", [{"code": "'x' * 1_000_000"}] * 50)
    assert {len(text) for text in done} == {1_000_000}
    assert 4 <= len(done) < 12


@pytest.mark.parametrize("command", ["wait_until_cancelled", "sleep_until_cancelled"])
def test_a_cancelled_batch_stops_between_and_within_items(stream, command: str) -> None:
    tag = f"batch-{command}"
    request_id = ask(stream, command, [{"tag": tag}] * 3)
    wait_until(lambda: tag in stream.run("noted")["log"], 10, "the first item runs")
    stream.cancel(request_id)
    assert outcomes(stream.reply(request_id)) == ["CANCELLED"] * 3
    assert stream.run("noted")["log"].count(tag) == 1


def test_what_ran_before_the_deadline_keeps_its_value(stream) -> None:
    items = [{"seconds": 0.0, "tag": "d0"}, *({"seconds": 0.3, "tag": f"d{i}"} for i in range(1, 20))]
    done = run(stream, "sleep_noted", items, budget_ms=400)
    assert done[0] == "d0" and done[-1] == "DEADLINE" and len(done) == 20
    begun = [tag for tag in stream.run("noted")["log"] if tag.startswith("d") and tag[1:].isdigit()]
    kept = [value for value in done if value != "DEADLINE"]
    assert kept == begun[: len(kept)]
    assert len(begun) <= len(kept) + 1, "one was stopped in its middle, the others never began"


def test_a_batch_takes_one_slot_and_its_session_starts_once(stream) -> None:
    rendezvous = [
        ask(stream, "rendezvous", [{"tag": "a"}]),
        ask(stream, "rendezvous", [{"tag": "b"}]),
    ]
    assert [outcomes(stream.reply(one)) for one in rendezvous] == [[True], [True]]
    run(stream, "echo", [{}] * 5, session="batch-session")
    assert stream.run("noted")["sessions"].count("batch-session") == 1


@pytest.mark.parametrize(("file", "case"), CASES, ids=[f"{file}-{case['name']}" for file, case in CASES])
def test_golden_case_between_two_others(stream, file: str, case: dict) -> None:
    """The same outcome as a call of its own, and none for its peers."""
    data, buffers = wire(case)
    single = stream.reply(stream.request("echo", data, buffers))
    items = b'[{"value":"before"},' + data + b',{"value":"after"}]'
    reply = stream.reply(stream.request("echo", items, buffers, batch=pb.Batch(count=3)))
    if reply.WhichOneof("outcome") == "failure":  # no JSON: it cannot be told where one item ends
        assert case.get("refused")
        assert reply.failure.kind == single.failure.kind
        return
    before, middle, after = json.loads(reply.value.json)
    assert (before, after) == ("before", "after")
    if single.WhichOneof("outcome") == "failure":
        (item,) = reply.failures
        assert (item.index, item.failure) == (1, single.failure)
        return
    assert not reply.failures
    alone = buffers_in_order(json.loads(single.value.json), [b.inline for b in single.value.buffers])
    assert same(buffers_in_order(middle, [b.inline for b in reply.value.buffers]), alone)


@pytest.mark.parametrize("command", ["traced", "async_traced", "traced_without_a_parameter"])
def test_each_item_sees_the_trace_context_of_its_own_caller(stream, command: str) -> None:
    traces = [pb.Trace(traceparent=f"00-{n}", tracestate=f"k={n}") for n in range(3)]
    table = pb.ItemTraces(traces=traces, places=[(n % 4) for n in range(600)])
    own = {"traceparent": "own", "tracestate": "o=1", "item_traces": table}
    said = [["own", "o=1"], ["00-0", "k=0"], ["00-1", "k=1"], ["00-2", "k=2"]]
    assert run(stream, command, [{}] * 600, **own) == [said[n % 4] for n in range(600)]
    assert run(stream, command, [{}] * 600, first=299, **own) == [said[n % 4] for n in range(299, 600)]
    assert run(stream, command, [{}] * 2, traceparent="own", tracestate="o=1") == said[:1] * 2


def test_a_call_to_the_host_has_the_trace_context_of_its_item(commands) -> None:
    stream = commands.attach(on_host_call=lambda call: pb.HostReply(id=call.id, value=pb.Payload(json=b"1")))
    table = pb.ItemTraces(traces=[pb.Trace(traceparent=f"00-{n}") for n in range(3)], places=[1, 2, 3])
    assert run(stream, "ask", [{"method": "m"}] * 3, item_traces=table) == [1] * 3
    assert [call.traceparent for call in stream.host_calls] == ["00-0", "00-1", "00-2"]
    stream.close()
