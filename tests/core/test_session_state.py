"""Whatever happens to store, holders and messages: what the parties see of a session's variables is
linearizable, and each write takes effect at most once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit_ray.core.state.leases import Leases
from snakepit_ray.core.state.session import SessionState, Told
from snakepit_ray.core.state.writes import Write
from tests.core.state_world import HOLDERS, NAMES, Holder, World, histories

WEIGHTS = {
    "message": 14, "ask": 5, "read_the_copy": 4, "set": 2, "store_commits": 3, "read_the_store": 1,
    "time_passes": 1, "send_again": 0.5, "stand_still_or_go_on": 0.3, "store_dies": 0.25,
}  # fmt: skip


def test_no_history_is_broken() -> None:
    histories(World, WEIGHTS, 300)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_history_of_many_is_broken() -> None:
    histories(World, WEIGHTS, 50_000)


# ---- each rule is needed: without it histories are broken --------------------------------------------------


def _nobody_waits_for_copies(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "free_from", lambda self, now: now)


def _reads_before_old_leases_have_ended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(World, "is_readable", lambda self: True)


def _any_word_ends_the_newest_lease(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "release", lambda self, lease: self._ends.pop(lease.holder, None))


def _an_answer_that_was_overtaken_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(World, "may_keep", lambda self, holder, invalidated: isinstance(holder, Holder))


def _what_is_durable_is_answered_at_once(patch: pytest.MonkeyPatch) -> None:
    real = SessionState.write

    def write(self: SessionState, write: Write, now: float, at: float) -> Told:
        return (
            Told({}, outcome=self._done[write.op]) if write.op in self._done else real(self, write, now, at)
        )

    patch.setattr(SessionState, "write", write)


def _a_refusal_tells_what_is_not_visible(patch: pytest.MonkeyPatch) -> None:
    real = SessionState.write

    def write(self: SessionState, write: Write, now: float, at: float) -> Told:
        told = real(self, write, now, at)
        return told._replace(outcome=told.accepted) if told.accepted and not told.rows else told

    patch.setattr(SessionState, "write", write)


def _visible_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    real = SessionState.write

    def write(self: SessionState, *args: Any) -> Any:
        told = real(self, *args)
        for op in self._pending:
            self.durable(op)
        return told

    patch.setattr(SessionState, "write", write)


def _outcomes_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(World, "store_dies", _dies_without_outcomes(World.store_dies))


def _dies_without_outcomes(real: Callable[[World, bool], None]) -> Callable[[World, bool], None]:
    def dies(self: World, after_a_commit: bool) -> None:
        self.done.clear()
        real(self, after_a_commit)
        self.store._done.clear()

    return dies


@pytest.mark.parametrize(
    "without",
    [
        _what_is_durable_is_answered_at_once,
        _a_refusal_tells_what_is_not_visible,
        _nobody_waits_for_copies,
        _reads_before_old_leases_have_ended,
        _any_word_ends_the_newest_lease,
        _an_answer_that_was_overtaken_is_kept,
        _visible_before_it_is_durable,
        _outcomes_are_forgotten,
    ],
)
def test_each_rule_is_needed(
    without: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch)
    with pytest.raises(AssertionError):
        histories(World, WEIGHTS, 1_000)


# ---- the same world, by properties -------------------------------------------------------------------------


class Histories(RuleBasedStateMachine):
    """What happens is chosen, and made as short as can be where it breaks something."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1), guess=st.sampled_from([None, 0, 1]))
    def set(self, names: set[str], guess: int | None) -> None:
        self.world.set(names, guess)

    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        self.world.send_again(data.draw(st.sampled_from(list(self.world.asked))))

    @rule(count=st.integers(1, 3))
    def store_commits(self, count: int) -> None:
        self.world.store_commits(count)

    @rule(after_a_commit=st.booleans())
    def store_dies(self, after_a_commit: bool) -> None:
        self.world.store_dies(after_a_commit)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.5]))
    def time_passes(self, seconds: float) -> None:
        self.world.time_passes(seconds)

    @rule(
        name=st.sampled_from(HOLDERS), what=st.sampled_from(["ask", "read_the_copy", "stand_still_or_go_on"])
    )
    def a_holder(self, name: str, what: str) -> None:
        getattr(self.world, what)(name)

    @rule()
    def read_the_store(self) -> None:
        self.world.read_the_store()

    @precondition(lambda self: self.world.messages)
    @rule(data=st.data(), fate=st.sampled_from(["arrives", "lost", "twice"]))
    def message(self, data: st.DataObject, fate: str) -> None:
        self.world.message(data.draw(st.integers(0, len(self.world.messages) - 1)), fate)

    @invariant()
    def holds(self) -> None:
        self.world.check()


TestHistories = Histories.TestCase
TestHistories.settings = settings(TestHistories.settings, stateful_step_count=50)
