"""The trace context of a call: whose it is, and how those of many calls travel in one message."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as otel

from snakepit_ray.client.coalescing import Coalescer
from snakepit_ray.config import DEFAULT_OPTIONS, PoolConfig
from snakepit_ray.runtimes import resolve_runtime
from snakepit_ray.telemetry.trace_context import Trace, current
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.requests import RequestBuilder
from tests.bridge import harness  # noqa: F401 - puts the bridge's modules on the path
from tests.client.fakes import FakeSender, answering, sender
from tests.client.test_coalescing import run, settled
from tests.client.test_map import mapped

from snakepit_bridge.adapter.batches import _traces  # isort: skip

__all__ = ["sender"]


def span(number: int, state: str = "") -> AbstractContextManager[Any]:
    """A span of that number is the current one."""
    context = otel.SpanContext(
        number, number, True, otel.TraceFlags(1), otel.TraceState.from_header([state] if state else [])
    )
    return otel.use_span(otel.NonRecordingSpan(context))


def of(number: int, state: str = "") -> Trace:
    return Trace(f"00-{number:032x}-{number:016x}-01", state)


def builder() -> RequestBuilder:
    return RequestBuilder(PoolConfig(), resolve_runtime("python"), None, lambda: "1")


def items(request: pb.Request) -> list[Trace | None]:
    """What the bridge makes of the contexts of a batch's items."""
    found = _traces(request)
    own = (request.traceparent, request.tracestate)
    return [Trace(*one) if one[0] else None for one in found or [own] * request.batch.count]


def test_the_current_span_is_the_context() -> None:
    assert current() is None
    with span(5, "a=b"):
        assert current() == of(5, "a=b")
        with span(6):
            assert current() == of(6)
    assert current() is None


@pytest.mark.parametrize("loaded", ["None", "type(sys)('opentelemetry.trace')"])
def test_without_opentelemetry_there_is_none(loaded: str) -> None:
    source = f"""
import sys
sys.modules["opentelemetry.trace"] = {loaded}
from snakepit_ray.telemetry.trace_context import current
assert current() is None
assert "opentelemetry" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


def test_a_call_has_the_context_of_its_caller() -> None:
    with span(1, "k=v"):
        request, _ = builder().build("add", {}, DEFAULT_OPTIONS)
    assert (request.traceparent, request.tracestate) == of(1, "k=v")
    request, _ = builder().build("add", {}, DEFAULT_OPTIONS)
    assert not request.HasField("item_traces") and request.traceparent == ""


TRACES = st.none() | st.builds(of, st.integers(1, 4), st.sampled_from(["", "s=t"]))


@given(st.lists(TRACES, min_size=1, max_size=9), st.data())
def test_each_item_of_a_batch_gets_its_callers_context_whatever_part_runs(
    traces: Sequence[Trace | None], data: st.DataObject
) -> None:
    drawn = [builder().draw("add", {}) for _ in traces]
    request = builder().batch("add", drawn, DEFAULT_OPTIONS, 0, [], traces)
    assert items(request) == traces
    assert len(request.item_traces.traces) <= len(set(traces)), "each is written once"
    first = data.draw(st.integers(0, len(traces) - 1))
    request.batch.first, request.batch.count = first, data.draw(st.integers(1, len(traces) - first))
    assert items(request) == traces[first : first + request.batch.count]


def test_one_context_for_all_items_is_the_requests() -> None:
    drawn = [builder().draw("add", {}) for _ in range(3)]
    for traces in ([of(1)] * 3, [of(1)]):
        request = builder().batch("add", drawn, DEFAULT_OPTIONS, 0, [], traces)
        assert request.traceparent == of(1).traceparent and not request.HasField("item_traces")
    for traces in ([None] * 3, []):  # type: ignore[list-item] # no tracing: not a byte
        request = builder().batch("add", drawn, DEFAULT_OPTIONS, 0, [], traces)
        assert request.traceparent == "" and not request.HasField("item_traces")


@pytest.mark.parametrize(
    "given",
    [
        pb.ItemTraces(places=[1, 7, 0], traces=[pb.Trace(traceparent="p")]),
        pb.ItemTraces(places=[1], traces=[pb.Trace(traceparent="p")]),
    ],
)
def test_what_a_table_does_not_say_is_the_requests_context(given: pb.ItemTraces) -> None:
    request = pb.Request(batch=pb.Batch(count=3), item_traces=given, traceparent="own")
    assert items(request) == [Trace("p"), Trace("own"), Trace("own")]


def test_awaited_calls_that_travel_together_keep_their_own_contexts() -> None:
    async def called(coalescer: Coalescer, number: int) -> None:
        if number:
            with span(number):
                await coalescer.call("c", {"n": number}, DEFAULT_OPTIONS)
        else:
            await coalescer.call("c", {"n": 0}, DEFAULT_OPTIONS)

    async def body(sender: Any, coalescer: Coalescer) -> None:
        calls = [asyncio.ensure_future(called(coalescer, number)) for number in (1, 2, 0, 3)]
        await settled()
        sender.answer_all()
        await asyncio.gather(*calls)
        found = [trace for request in sender.requests for trace in traces_of(request)]
        assert found == [of(1), of(2), None, of(3)]

    run(body)


def traces_of(request: pb.Request) -> list[Trace | None]:
    if request.HasField("batch"):
        return items(request)
    return [Trace(request.traceparent, request.tracestate) if request.traceparent else None]


def test_the_items_of_a_map_have_the_context_in_which_it_was_called(sender: FakeSender) -> None:
    with span(9):
        results = mapped(sender, [{"n": number} for number in range(5)], chunk_size=2)
    answering(sender)
    with span(10):
        assert len(list(results)) == 5
    assert {trace for request in sender.requests for trace in traces_of(request)} == {of(9)}
