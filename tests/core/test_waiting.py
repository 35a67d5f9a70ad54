"""The waiting queue against a naive list, step by step."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit_ray.core.worker.slots import Slots
from snakepit_ray.core.worker.waiting import Waiting, WaitingQueue

FOREVER = float("inf")


class QueueAgainstList(RuleBasedStateMachine):
    """The model is a list in order of `seq`; time only moves forward."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 4
        self.queue = WaitingQueue(self.limit)
        self.model: list[Waiting] = []
        self.limbo: list[Waiting] = []
        self.outcomes: dict[str, str] = {}
        self.admitted: set[str] = set()
        self.returned = 0
        self.now = 0.0

    def settle(self, waiting: Waiting, outcome: str) -> None:
        assert waiting.id not in self.outcomes, "one outcome for each id"
        self.outcomes[waiting.id] = outcome

    def alive(self) -> list[Waiting]:
        return [w for w in self.model if w.expires_at > self.now]

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(lifetime=st.floats(-1, 5) | st.just(FOREVER), movable=st.booleans(), first=st.booleans())
    def offer(self, lifetime: float, movable: bool, first: bool) -> None:
        name = f"r{len(self.outcomes) + len(self.admitted)}"
        room = len(self.alive()) < self.limit
        assert self.queue.offer(name, self.now, self.now + lifetime, movable, first=first) is room
        if room:
            self.admitted.add(name)
            seq = 1 + max((w.seq for w in [*self.model, *self.limbo]), default=-1)
            newest = self.queue.waiting.get(name)
            seq = newest.seq if newest else seq
            others = [w.seq for w in [*self.model, *self.limbo] if (w.seq < 0) == first]
            assert (seq < 0) == first or newest is None, "those that go first have places of their own"
            assert newest is None or all(seq > other for other in others), "and keep their order"
            self.model.append(Waiting(name, seq, self.now, self.now + lifetime, movable))
        else:
            self.outcomes[name] = "rejected"

    @rule()
    def pop(self) -> None:
        popped = self.queue.pop(self.now)
        alive = sorted(self.alive(), key=lambda w: w.seq)
        assert popped == (alive[0] if alive else None)
        if popped is not None:
            assert popped.expires_at > self.now, "nothing expired ever starts"
            self.model.remove(popped)
            self.settle(popped, "started")

    @rule()
    def expire(self) -> None:
        expired = self.queue.expire(self.now)
        assert sorted(expired) == sorted(w for w in self.model if w.expires_at <= self.now)
        for waiting in expired:
            self.model.remove(waiting)
            self.settle(waiting, "expired")

    @precondition(lambda self: self.admitted)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.admitted)))
        removed = self.queue.remove(name)
        if removed is not None:
            self.model.remove(removed)
            self.settle(removed, "cancelled")
        else:
            assert not any(w.id == name and w.expires_at > self.now for w in self.model)

    @rule(n=st.integers(0, 3))
    def take_movable(self, n: int) -> None:
        taken = self.queue.take_movable(n, self.now)
        expected = sorted((w for w in self.alive() if w.movable), key=lambda w: w.seq)[:n]
        assert taken == expected
        for waiting in taken:
            self.model.remove(waiting)
            self.limbo.append(waiting)

    @precondition(lambda self: self.limbo)
    @rule(accepted=st.booleans())
    def delegate_answers(self, accepted: bool) -> None:
        waiting = self.limbo.pop(0)
        if accepted:
            self.settle(waiting, "delegated")
        else:
            self.queue.put_back(waiting)
            self.model.append(waiting)
            self.returned += 1

    @invariant()
    def agrees(self) -> None:
        assert len(self.queue) <= self.limit + self.returned
        live = set(self.queue.waiting.values())
        assert {w for w in self.model if w.expires_at > self.now} <= live <= set(self.model)
        assert self.queue.movable == sum(w.movable for w in live)
        assert len(self.queue) == len(live)
        expiries = [w.expires_at for w in self.model]
        assert self.queue.next_expiry() == (min(expiries) if expiries else None) or self.queue._due
        movable = [w for w in live if w.movable]
        oldest = min(movable, key=lambda w: w.seq).enqueued_at if movable else None
        assert self.queue.oldest_movable_at() == oldest

    def teardown(self) -> None:
        for waiting in self.limbo:
            self.settle(waiting, "delegated")
        while (popped := self.queue.pop(self.now)) is not None:
            self.settle(popped, "started")
        for waiting in self.queue.expire(self.now):
            self.settle(waiting, "expired")
        assert self.admitted <= set(self.outcomes), "nobody is forgotten"


TestQueueAgainstList = QueueAgainstList.TestCase
TestQueueAgainstList.settings = settings(stateful_step_count=40, deadline=None)


def test_a_full_queue_rejects_and_an_expired_waiter_holds_no_place() -> None:
    queue = WaitingQueue(1)
    assert queue.offer("a", 0.0, 1.0, True)
    assert not queue.offer("b", 0.5, 9.0, True)
    assert queue.offer("c", 1.0, 9.0, True)
    assert [w.id for w in queue.expire(1.0)] == ["a"]
    assert queue.expire(1.0) == []


def test_limit_zero_admits_nobody_and_none_is_unbounded() -> None:
    assert not WaitingQueue(0).offer("a", 0.0, 1.0, True)
    unbounded = WaitingQueue(None)
    assert all(unbounded.offer(f"r{i}", 0.0, 1.0, False) for i in range(5000))
    with pytest.raises(ValueError, match="limit"):
        WaitingQueue(-1)


def test_a_refused_delegate_returns_to_its_place_even_when_the_queue_filled_up() -> None:
    queue = WaitingQueue(2)
    queue.offer("a", 0.0, 9.0, True)
    queue.offer("b", 0.0, 9.0, True)
    (taken,) = queue.take_movable(1, 0.1)
    assert taken.id == "a"
    assert queue.remove("a") is None
    queue.offer("c", 0.2, 9.0, True)
    queue.put_back(taken)
    assert [queue.pop(0.3), queue.pop(0.3), queue.pop(0.3)][0] == taken
    with pytest.raises(ValueError, match="waits already"):
        queue.offer("d", 0.4, 9.0, True) and queue.offer("d", 0.4, 9.0, True)


def test_the_next_expiry_is_due_until_it_is_reported() -> None:
    queue = WaitingQueue(None)
    assert queue.next_expiry() is None
    queue.offer("late", 0.0, 5.0, False)
    queue.offer("soon", 0.0, 1.0, False)
    assert queue.next_expiry() == 1.0
    assert queue.pop(2.0).id == "late"
    assert queue.next_expiry() == 1.0
    assert [w.id for w in queue.expire(2.0)] == ["soon"]
    assert queue.next_expiry() is None


def test_memory_stays_in_proportion_to_who_waits() -> None:
    queue = WaitingQueue(None)
    queue.offer("old", 0.0, 1e9, True)
    for i in range(2000):
        queue.offer(f"r{i}", 0.0, 1e9, True)
        (oldest,) = queue.take_movable(1, 0.0)
        queue.put_back(oldest)
        queue.remove(f"r{i}")
    assert len(queue) == 1
    assert all(len(index._heap) < 100 for index in (queue._order, queue._expiry, queue._movable_order))


def test_those_who_wait_elsewhere_count_and_the_expired_do_not() -> None:
    queue = WaitingQueue(2)
    assert queue.offer("a", 0.0, 1.0, True, beside=1)
    assert queue.is_full(1) and not queue.is_full()
    assert not queue.offer("b", 0.5, 9.0, True, beside=1)
    assert queue.offer("b", 1.0, 9.0, True, beside=1), "a has expired: its place is free"


def test_repr_is_a_status_line() -> None:
    queue = WaitingQueue(10)
    queue.offer("a", 0.0, 1.0, True)
    assert repr(queue) == "<WaitingQueue 1 waiting, 1 movable, limit 10>"
    assert "a" in queue


def test_slots_hold_at_most_capacity_and_release_is_safe_to_repeat() -> None:
    slots = Slots(2)
    assert slots.acquire("a")
    assert slots.acquire("b")
    assert not slots.acquire("c")
    assert (slots.free, slots.running) == (0, 2)
    with pytest.raises(ValueError, match="runs already"):
        slots.acquire("a")
    assert slots.release("a")
    assert not slots.release("a")
    assert slots.acquire("c")
    assert repr(slots) == "<Slots 2/2 running>"
    with pytest.raises(ValueError, match="capacity"):
        Slots(0)
