"""Both ends of the shared memory against a model: whatever is sent, kept, dropped or trimmed, in any order,
what somebody looks at keeps its bytes, and what nobody looks at is free again.

The Python bridge's end runs in this process, so that no step waits for anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from snakepit_ray.errors import EncodingError
from snakepit_ray.process.shared_memory import SharedMemory
from snakepit_ray.supervisor.arena import Arena
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Envelope
from tests.bridge import harness  # noqa: F401 - puts the bridge's modules on the path

from snakepit_bridge.server import arena as bridge  # isort: skip
from snakepit_bridge.server.payloads import Buffers, fill_payload  # isort: skip

THRESHOLD = 100
PAGES = 16
sizes = st.integers(1, 6 * 4096)


class BothEnds(RuleBasedStateMachine):
    arguments = Bundle("arguments")
    results = Bundle("results")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.begin())
        self.looked_at: dict[int, tuple[Any, bytes]] = {}  # what somebody holds, and what it must be
        self.inside: set[int] = set()  # of it, what lies in the interpreter's hands
        self.count = 0

    async def begin(self) -> None:
        self.host = Arena(PAGES * 4096, THRESHOLD, "w-0")
        self.child = bridge.Arena(self.host.offer, THRESHOLD)
        self.host.connected(lambda id: self.child.free([id]))

    def data(self, size: int) -> bytes:
        self.count += 1
        return bytes([self.count % 251]) * size

    def hold(self, view: Any, data: bytes) -> int:
        self.looked_at[self.count] = view, data
        return self.count

    def settle(self) -> None:
        """What was said to the loop from elsewhere has arrived."""
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule(target=arguments, size=sizes)
    def send(self, size: int) -> int:
        data = self.data(size)
        request = pb.Request(id="r", args=pb.Payload(buffers=[pb.Buffer(beside=0)]))
        carried = self.loop.run_until_complete(self.host.carry(request, [memoryview(data)]))
        buffers = Buffers(carried.args.buffers, self.child, lambda id: self.host.released([id]))
        key = self.hold(buffers[0], data)
        self.inside.add(key)
        return key

    @rule(size=sizes)
    def send_what_is_never_looked_at(self, size: int) -> None:
        request = pb.Request(id="r", args=pb.Payload(buffers=[pb.Buffer(beside=0)]))
        carried = self.loop.run_until_complete(self.host.carry(request, [self.data(size)]))
        ids = [place.segment.id for place in carried.args.buffers if place.HasField("segment")]
        self.child.forget(ids, lambda id: self.host.released([id]))

    @rule(size=sizes)
    def send_and_withdraw(self, size: int) -> None:
        request = pb.Request(id="r", args=pb.Payload(buffers=[pb.Buffer(beside=0)]))
        self.host.withdraw(self.loop.run_until_complete(self.host.carry(request, [self.data(size)])))

    @rule(key=consumes(arguments))
    def drop_argument(self, key: int) -> None:
        del self.looked_at[key]
        self.inside.discard(key)

    @rule(target=results, size=sizes)
    def answer(self, size: int) -> int:
        data = self.data(size)
        payload = pb.Payload()
        fill_payload(payload, (b"null", self.child.place([memoryview(data)])))
        (view,) = self.host.views(payload)
        return self.hold(view, data)

    @rule(key=consumes(results))
    def drop_result(self, key: int) -> None:
        del self.looked_at[key]
        self.settle()

    @rule()
    def trim(self) -> None:
        self.host._used_at = 1e-9  # long ago
        self.loop.run_until_complete(self.host.rest(self.child.trim))

    @invariant()
    def what_is_looked_at_is_unchanged(self) -> None:
        for view, data in self.looked_at.values():
            assert bytes(view) == data

    @invariant()
    def what_nobody_looks_at_is_free(self) -> None:
        out_of_band = {key: len(data) > THRESHOLD for key, (_, data) in self.looked_at.items()}
        assert len(self.host._space) <= sum(out_of_band[key] for key in self.inside)
        assert len(self.child._lent) <= sum(out_of_band[key] for key in out_of_band.keys() - self.inside)

    def teardown(self) -> None:
        self.looked_at.clear()
        self.settle()
        assert not len(self.host._space) and not self.child._lent
        assert self.host._space.used == 0 and self.child._gaps.used == 0
        self.host.close()
        self.loop.close()


TestBothEnds = BothEnds.TestCase
TestBothEnds.settings = settings(stateful_step_count=30, deadline=None)


@given(
    offset=st.integers(0, 2**64 - 1) | st.integers(0, 2 * PAGES * 4096),
    size=st.integers(0, 2**64 - 1) | st.integers(0, 2 * PAGES * 4096),
    text=st.binary(max_size=60) | st.sampled_from([b'{"$snakepit":"bytes","buffer":0}']),
)
def test_no_segment_reads_outside_of_the_memory(offset: int, size: int, text: bytes) -> None:
    async def body() -> None:
        arena = Arena(PAGES * 4096, THRESHOLD, "w-0")
        arena.connected(lambda id: None)
        segment = pb.Segment(id="1", offset=offset, size=size)
        payload = pb.Payload(json=text, buffers=[pb.Buffer(segment=segment)])
        inside = size > 0 and offset + size <= PAGES * 4096
        try:
            views = arena.views(payload)
            assert inside and [view.nbytes for view in views] == [size]
            Envelope(payload.json, views).value()
        except EncodingError:
            pass
        else:
            assert inside
        child = bridge.Arena(arena.offer, THRESHOLD)
        try:
            view = child.view(segment, lambda id: None)
            assert inside and len(view) == size
        except bridge.Refused:
            assert not inside
        arena.close()

    asyncio.run(body())


def test_a_memory_that_cannot_be_made_is_said_and_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        arena = Arena(1 << 20, THRESHOLD, "w-0")
        assert arena.offer is None and arena.descriptors == () and arena.resident == 0
        request = pb.Request(args=pb.Payload(buffers=[pb.Buffer(beside=0)]))
        carried = await arena.carry(request, [b"x" * 1000])
        assert carried.args.buffers[0].inline == b"x" * 1000

    monkeypatch.delattr("os.memfd_create")
    asyncio.run(body())
    assert "set shared_memory=0" in caplog.text


def test_a_second_memory_that_cannot_be_made_takes_the_first_along(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SharedMemory] = []

    def make(size: int) -> SharedMemory:
        if made:
            raise OSError("no more")
        made.append(SharedMemory(size))
        return made[0]

    async def body() -> None:
        assert Arena(1 << 20, THRESHOLD, "w-0").offer is None

    monkeypatch.setattr("snakepit_ray.supervisor.arena.SharedMemory", make)
    asyncio.run(body())
    assert made[0].descriptor == -1
