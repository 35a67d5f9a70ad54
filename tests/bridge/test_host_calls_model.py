"""The calls of an attachment against a model: in whatever order they are made, answered, left, cancelled and
lost, each is told one outcome, no more are at the host than may be, and every segment goes back."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge import harness  # noqa: F401 - puts the bridge's modules on the path

from snakepit_bridge.adapter.context import SessionContext  # isort: skip
from snakepit_bridge.server import host_calls  # isort: skip
from snakepit_bridge.server.nesting import Nesting

from snakepit_bridge.server.host_frames import Call, Dropped  # isort: skip
from snakepit_bridge.server.host_streams import HostStream, Inflow  # isort: skip
from snakepit_bridge.server.host_waiting import Waiter  # isort: skip
from snakepit_bridge.server.payloads import Placed  # isort: skip

BOUND = 3
REQUESTS = ("a", "b")


NESTING = Nesting(lambda run: None)


class FakeArena:
    """Results are ours until they are sent, arguments the host's until they are released."""

    def __init__(self) -> None:
        self.lent: set[str] = set()
        self.count = 0

    def outgoing(self, what: str, payload: tuple, limit: int) -> tuple:
        self.count += 1
        place = Placed(str(self.count), 0, 1)
        self.lent.add(place.id)
        return payload[0], [place]

    def free(self, ids: list[str]) -> None:
        self.lent.difference_update(ids)

    def forget(self, ids: list[str], release: Any) -> None:
        for id in ids:
            release(id)


class Calls(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bound, host_calls.IN_FLIGHT = host_calls.IN_FLIGHT, BOUND
        self.arena = FakeArena()
        self.sent: list[Any] = []
        self.owed: set[str] = set()  # segments of answers
        self.calls = host_calls.HostCalls(
            self.sent.append, self.arena, lambda places: (), self.owed.discard, 1000, NESTING
        )
        self.contexts = {name: self.context(name) for name in REQUESTS}
        self.waiting: dict[str, tuple[Any, list[Any]]] = {}  # by id: who waits, and what it was told
        self.at_host: dict[str, Call] = {}
        self.answers = 0
        self.is_lost = False

    def teardown(self) -> None:
        host_calls.IN_FLIGHT = self.bound

    def context(self, name: str) -> SessionContext:
        return SessionContext(request_id=name, link=self.calls)

    @rule(name=st.sampled_from(REQUESTS))
    def call(self, name: str) -> None:
        told: list[Any] = []
        waiter = Waiter(self.calls, lambda: told.append(waiter.outcome))
        call = self.calls._start(self.calls._made(self.contexts[name], "m", {}), waiter)
        self.waiting[call.id] = waiter, told
        self.settle()

    @rule(name=st.sampled_from(REQUESTS))
    def stream(self, name: str) -> None:
        inflow = Inflow(self.calls, self.calls._made(self.contexts[name], "m", {}))
        stream = HostStream(self.calls._begun(inflow))
        self.waiting[inflow.call.id] = stream, []
        self.settle()

    def settle(self) -> None:
        """What was sent arrives at the host; its buffers are the host's from then on."""
        for item in self.sent:
            if type(item) is Call:
                self.arena.free([place.id for place in item.payload[1]])
                assert item.id not in self.at_host
                self.at_host[item.id] = item
            elif type(item) is Dropped:
                assert item.id not in self.waiting
        self.sent.clear()

    def reply(self, id: str, **outcome: Any) -> None:
        if "value" in outcome:
            self.answers += 1
            segment = f"answer-{self.answers}"
            self.owed.add(segment)
            outcome["value"].buffers.add().segment.id = segment
        self.calls.answer(pb.HostReply(id=id, **outcome))

    def pick(self, data: Any, among: Any) -> str:
        return data.draw(st.sampled_from(sorted(among)))

    @precondition(lambda self: self.at_host)
    @rule(data=st.data(), how=st.sampled_from(["value", "failure", "end"]))
    def answer(self, data: Any, how: str) -> None:
        id = self.pick(data, self.at_host)
        is_stream = self.at_host[id].stream
        if how != "value" or not is_stream:
            del self.at_host[id]
        if how == "value":
            self.reply(id, value=pb.Payload(json=b"1"))
        elif how == "end" and is_stream:
            self.reply(id, end=pb.StreamEnd())
        else:
            self.reply(id, failure=pb.Failure(kind=pb.Failure.CANCELLED, message="stopped"))
        if id in self.waiting and not is_stream:
            self.take(id)
        self.settle()

    @rule()
    def answer_what_nobody_has_asked(self) -> None:
        self.reply("unknown", value=pb.Payload(json=b"1"))

    def take(self, id: str) -> None:
        """A waiter that was told takes its outcome, once."""
        waiter, told = self.waiting.pop(id)
        assert len(told) == 1
        try:
            waiter.result()
        except (host_calls.HostError, host_calls.Cancelled):
            assert not self.is_answer(told[0]) or told[0].HasField("failure")

    def is_answer(self, outcome: Any) -> bool:
        return isinstance(outcome, pb.HostReply)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        id = self.pick(data, self.waiting)
        who, _ = self.waiting.pop(id)
        if isinstance(who, HostStream):
            who.close()
            assert next(who, None) is None
        else:
            self.calls._leave(self.calls._calls[id], who)
        self.settle()

    @precondition(lambda self: any(isinstance(who, HostStream) for who, _ in self.waiting.values()))
    @rule(data=st.data())
    def take_values(self, data: Any) -> None:
        streams = [id for id, (who, _) in self.waiting.items() if isinstance(who, HostStream)]
        id = self.pick(data, streams)
        who, _ = self.waiting[id]
        try:
            while not who._inflow.is_empty:
                assert next(who) == 1
        except (StopIteration, host_calls.HostError, host_calls.Cancelled):
            del self.waiting[id]
        self.settle()

    @rule(name=st.sampled_from(REQUESTS))
    def cancel(self, name: str) -> None:
        concerned = {id for id in self.waiting if self.request_of(id) == name}
        self.contexts[name]._cancel()
        self.contexts[name] = self.context(name)
        for id in concerned:
            who, _ = self.waiting[id]
            if isinstance(who, HostStream):
                self.waiting.pop(id)
                who.close()
            else:
                self.take(id)
        self.settle()

    def request_of(self, id: str) -> str | None:
        call = self.calls._calls.get(id)
        return call.request_id if call is not None else None

    @precondition(lambda self: self.waiting and not self.is_lost)
    @rule()
    def lose(self) -> None:
        """The host goes, and another one attaches: the calls of the first all end."""
        self.settle()
        self.calls.lose("gone")
        for id in list(self.waiting):
            who, _ = self.waiting[id]
            if isinstance(who, HostStream):
                self.waiting.pop(id)
                who.close()
            else:
                self.take(id)
        self.settle()
        self.at_host.clear()
        self.calls = host_calls.HostCalls(
            self.sent.append, self.arena, lambda places: (), self.owed.discard, 1000, NESTING
        )
        self.contexts = {name: self.context(name) for name in REQUESTS}

    @invariant()
    def no_more_are_at_the_host_than_may_be(self) -> None:
        assert len(self.at_host) == self.calls._in_flight <= BOUND

    @invariant()
    def none_is_held_back_while_there_is_room(self) -> None:
        held = [call for call in self.calls._calls.values() if not call.is_sent]
        assert not held or len(self.at_host) == BOUND

    @invariant()
    def every_segment_has_an_owner(self) -> None:
        held = [call for call in self.calls._calls.values() if not call.is_sent]
        assert self.arena.lent == {place.id for call in held for place in call.payload[1]}
        unread = [
            reply.value.buffers[0].segment.id
            for who, _ in self.waiting.values()
            if isinstance(who, HostStream)
            for reply in who._inflow._come
            if isinstance(reply, pb.HostReply) and reply.value.buffers
        ]
        assert self.owed == set(unread)


TestCalls = Calls.TestCase


def test_an_answer_that_comes_while_its_audience_leaves_is_released() -> None:
    """The reader has looked up who waits, and hands the answer over when nobody does any more."""
    arena, owed = FakeArena(), {"s"}
    calls = host_calls.HostCalls([].append, arena, lambda places: (), owed.discard, 1000, NESTING)
    context = SessionContext(request_id="a", link=calls)
    reply = pb.HostReply(value=pb.Payload(json=b"1", buffers=[pb.Buffer(segment=pb.Segment(id="s"))]))
    waiter = Waiter(calls, lambda: None)
    waiter.leave()
    waiter.take(reply)
    assert not owed
    owed.add("s")
    inflow = Inflow(calls, calls._made(context, "m", {}))
    calls._begun(inflow)
    HostStream(inflow).close()
    inflow.take(reply)
    assert not owed and inflow.is_empty
