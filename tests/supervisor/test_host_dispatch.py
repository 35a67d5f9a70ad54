"""The host's end of host calls without an interpreter: bounds, credit, ends, buffers that nobody looks at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.errors import EncodingError
from snakepit_ray.rpc import HostSide
from snakepit_ray.rpc.host_calls import IN_FLIGHT, TURN, HostCalls
from snakepit_ray.supervisor.arena import Arena
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded, encode_value
from snakepit_ray.wire.host_call import HostCall
from tests.supervisor.harness import run, until

KIND = pb.Failure.Kind


class View:
    """A buffer in shared memory."""

    def __init__(self, cargo: FakeCargo) -> None:
        self._cargo = cargo
        cargo.looked_at += 1

    def __del__(self) -> None:
        self._cargo.looked_at -= 1


class FakeCargo:
    def __init__(self) -> None:
        self.looked_at = 0

    def views(self, payload: pb.Payload) -> Sequence[Any]:
        if any(buffer.segment.id == "nowhere" for buffer in payload.buffers):
            raise EncodingError("the payload is damaged")
        return [View(self) for _ in payload.buffers]

    async def place(self, text: bytes, buffers: Sequence[Any]) -> pb.Payload:
        return pb.Payload(json=text)

    def released(self, ids: Iterable[str]) -> None:
        raise AssertionError


class Host:
    """A host whose one handler is the test's; what it has sent."""

    def __init__(self, handler: Any) -> None:
        self.cargo = FakeCargo()
        self.sent: list[pb.HostReply] = []
        self.calls = HostCalls(HostSide("w-0", handler, self.cargo), self.sent.append)

    def begin(self, id: str = "1", segment: str = "s", **fields: Any) -> None:
        place = pb.Buffer(segment=pb.Segment(id=segment, offset=0, size=1))
        call = pb.HostCall(id=id, method="m", args=pb.Payload(json=b"{}", buffers=[place]), **fields)
        self.calls.receive(pb.FromInterpreter(host_calls=[call]))

    async def end(self) -> pb.HostReply:
        """The last reply, when no call is left and nobody looks at any buffer."""
        await until(lambda: self.calls.in_flight == 0 and self.cargo.looked_at == 0)
        return self.sent[-1]


async def for_ever(call: HostCall) -> Encoded:
    await asyncio.Event().wait()
    raise AssertionError


def test_more_calls_than_may_be_in_flight_are_refused() -> None:
    async def body() -> None:
        host = Host(for_ever)
        for number in range(IN_FLIGHT + 1):
            host.begin(str(number))
        (refused,) = host.sent
        assert (refused.id, refused.failure.kind) == (str(IN_FLIGHT), KIND.TOO_MANY_CALLS)
        assert json.loads(refused.failure.details_json) == {"limit": IN_FLIGHT}
        assert host.calls.in_flight == host.cargo.looked_at == IN_FLIGHT
        host.calls.close()
        await host.end()
        assert len(host.sent) == 1, "nothing is said to an interpreter that is gone"

    run(body)


def test_a_call_whose_buffers_are_nowhere_is_refused() -> None:
    async def body() -> None:
        host = Host(for_ever)
        host.begin(segment="nowhere")
        assert (await host.end()).failure.kind == KIND.ENCODING

    run(body)


def test_a_call_that_comes_twice_runs_once() -> None:
    async def body() -> None:
        host = Host(for_ever)
        host.begin()
        host.begin()
        host.calls.receive(pb.FromInterpreter(host_cancels=[pb.Cancel(id="1"), pb.Cancel(id="unknown")]))
        assert (await host.end()).failure.kind == KIND.CANCELLED
        assert len(host.sent) == 1

    run(body)


@pytest.mark.parametrize("begins", [False, True])
def test_a_call_that_is_cancelled_ends_once_and_gives_its_buffers_back(begins: bool) -> None:
    async def body() -> None:
        host = Host(for_ever)
        host.begin(request_id="r")
        if begins:
            await asyncio.sleep(0)
        host.calls.cancel_request("another")
        host.calls.cancel_request("r")
        host.calls.receive(pb.FromInterpreter(host_cancels=[pb.Cancel(id="1")]))
        failure = (await host.end()).failure
        assert (failure.kind, failure.message) == (KIND.CANCELLED, "m: its request was cancelled")
        assert len(host.sent) == 1

    run(body)


def test_a_call_ends_at_its_deadline() -> None:
    async def body() -> None:
        host = Host(for_ever)
        host.begin(budget_ms=1)
        failure = (await host.end()).failure
        assert (failure.kind, failure.type) == (KIND.DEADLINE, "DeadlineExceeded")

    run(body)


def test_a_handler_that_does_not_mind_a_cancellation_still_answers() -> None:
    async def stubborn(call: HostCall) -> Encoded:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return encode_value("done")
        raise AssertionError

    async def body() -> None:
        host = Host(stubborn)
        host.begin()
        await asyncio.sleep(0)
        host.calls.receive(pb.FromInterpreter(host_cancels=[pb.Cancel(id="1")]))
        assert (await host.end()).value.json == b'"done"'

    run(body)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, ValueError])
def test_whatever_a_handler_raises_is_the_failure_of_its_call_alone(kind: type[BaseException]) -> None:
    async def broken(call: HostCall) -> Encoded:
        raise kind("x")

    async def body() -> None:
        host = Host(broken)
        host.begin()
        failure = (await host.end()).failure
        assert failure.kind == KIND.COMMAND and kind.__name__ in failure.type + failure.message

    run(body)


def test_a_handler_that_is_no_coroutine_function_fails_its_call_alone() -> None:
    async def body() -> None:
        host = Host(lambda call: 5)
        host.begin()
        assert (await host.end()).failure.type == "TypeError"

    run(body)


def test_an_answer_that_cannot_be_placed_leaves_nothing_in_the_arena() -> None:
    async def body() -> None:
        arena = Arena(1 << 20, 100, "w-0")
        with pytest.raises(TypeError):
            await arena.place(b"{}", [bytes(5000), bytes(5000), "no bytes"])
        assert arena._space.used == 0
        placed = await arena.place(b"{}", [bytes(5000), bytes(50)])
        assert [buffer.WhichOneof("place") for buffer in placed.buffers] == ["segment", "inline"]
        arena.released([placed.buffers[0].segment.id])
        assert arena._space.used == 0
        arena.close()

    run(body)


# ---- streams -----------------------------------------------------------------------------------------------


def counting(count: int, closed: list[int]) -> Any:
    async def handler(call: HostCall) -> AsyncIterator[Encoded]:
        try:
            for number in range(count):
                yield encode_value(number)
        finally:
            closed.append(1)

    return handler


@given(
    count=st.integers(0, 3 * TURN),
    first=st.integers(0, TURN),
    grants=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 100)), max_size=8),
    limited=st.booleans(),
)
def test_a_stream_never_sends_more_than_it_has_credit_for(
    count: int, first: int, grants: list[tuple[int, int]], limited: bool
) -> None:
    async def body() -> None:
        closed: list[int] = []
        host = Host(counting(count, closed))
        host.begin(stream=True, credit=first, credit_bytes=10 if limited else 0)
        chunks, size = first, 10 if limited else 1 << 40
        for more, more_bytes in [*grants, (count + 1, 1 << 40)]:
            for _ in range(2 * count + 10):
                await asyncio.sleep(0)
            values = [reply for reply in host.sent if reply.HasField("value")]
            assert len(values) <= chunks
            assert sum(len(reply.value.json) for reply in values[:-1]) < size or not values
            host.calls.receive(
                pb.FromInterpreter(host_credits=[pb.Credit(id="1", chunks=more, bytes=more_bytes)])
            )
            chunks, size = chunks + more, size + more_bytes
        assert (await host.end()).end.chunks == count
        assert [json.loads(reply.value.json) for reply in host.sent[:-1]] == list(range(count))
        assert closed == [1]

    run(body)


def test_the_end_of_a_stream_needs_no_credit() -> None:
    async def body() -> None:
        host = Host(counting(3, []))
        host.begin(stream=True, credit=3)
        assert (await host.end()).end.chunks == 3

    run(body)


@pytest.mark.parametrize("credit", [0, 1_000_000])
def test_a_stream_that_is_cancelled_closes_its_generator(credit: int) -> None:
    """While it waits for credit, and while it never waits at all."""

    async def body() -> None:
        closed: list[int] = []
        host = Host(counting(1_000_000_000, closed))
        host.begin(stream=True, credit=credit)
        await asyncio.sleep(0)
        host.calls.receive(pb.FromInterpreter(host_cancels=[pb.Cancel(id="1")]))
        assert (await host.end()).failure.kind == KIND.CANCELLED
        assert closed == [1]

    run(body)
