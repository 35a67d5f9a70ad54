"""When requests are sent ahead of a slot, and who gets the slots that become free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit_ray.core.worker.slots import MOST_AHEAD, SHORT_SECONDS, Prefetch, Slots


def test_nothing_is_sent_ahead_before_anything_is_known() -> None:
    assert Prefetch().ahead == 0


@given(st.lists(st.floats(0, SHORT_SECONDS, exclude_max=True), min_size=1))
def test_short_commands_let_others_go_ahead(seconds: list[float]) -> None:
    prefetch = Prefetch()
    for one in seconds:
        prefetch.observe(one)
        assert prefetch.ahead == MOST_AHEAD


@given(before=st.integers(0, 100), long=st.floats(SHORT_SECONDS, 100))
def test_one_long_command_ends_it_for_a_while_and_not_for_ever(before: int, long: float) -> None:
    prefetch = Prefetch()
    for _ in range(before):
        prefetch.observe(SHORT_SECONDS / 10)
    prefetch.observe(long)
    assert prefetch.ahead == 0
    short = 0
    while not prefetch.ahead:
        prefetch.observe(SHORT_SECONDS / 10)
        short += 1
    assert short <= 130, "for 100 s; after 10 ms it is 22"


@pytest.mark.parametrize(("seconds", "stay"), [(0.0, 40), (SHORT_SECONDS / 2, 20), (0.9 * SHORT_SECONDS, 14)])
@given(waiting=st.integers(0, 200), capacity=st.integers(1, 8))
def test_of_short_commands_only_those_move_that_would_wait_for_long(
    seconds: float, stay: int, waiting: int, capacity: int
) -> None:
    prefetch = Prefetch()
    assert prefetch.movable(waiting, capacity) == waiting
    prefetch.observe(seconds)
    assert prefetch.movable(waiting, capacity) == max(0, waiting - stay * capacity)
    prefetch.observe(SHORT_SECONDS)
    assert prefetch.movable(waiting, capacity) == waiting


class Slotted(RuleBasedStateMachine):
    """Slots against a list: the first `capacity` of those that came run, the others are ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(2)
        self.came: list[str] = []
        self.count = 0

    @rule()
    def go_ahead(self) -> None:
        self.count += 1
        self.slots.go_ahead(f"r{self.count}")
        self.came.append(f"r{self.count}")

    @rule()
    def acquire(self) -> None:
        self.count += 1
        if self.slots.acquire(f"r{self.count}"):
            self.came.append(f"r{self.count}")

    @precondition(lambda self: self.came)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.came))
        assert self.slots.release(gone)
        assert not self.slots.release(gone)
        self.came.remove(gone)

    @invariant()
    def agrees(self) -> None:
        running, ahead = self.came[:2], self.came[2:]
        assert list(self.slots.ahead) == ahead
        assert self.slots.running == len(running) and self.slots.free == 2 - len(running)
        assert all(one in self.slots for one in self.came)


TestSlots = Slotted.TestCase
