"""When an interpreter has had its time, and how many may be replaced at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from snakepit_ray.core.recycling import Limits, Permits, Reason

NEVER = float("inf")
TIMES = st.floats(0, 1e6)
COUNTS = st.integers(0, 10**12)
RANDOM = st.floats(0, 1, exclude_max=True)


# ---- limits --------------------------------------------------------------------------------------


@given(now=TIMES, started_at=TIMES, requests=COUNTS, memory=st.none() | COUNTS, random=RANDOM)
def test_no_limit_never_fires(
    now: float, started_at: float, requests: int, memory: int | None, random: float
) -> None:
    limits = Limits(jitter=0.5)
    expires_at = limits.expires_at(started_at, random)
    assert expires_at == NEVER
    assert limits.exceeded(now, expires_at, requests, memory) is None


@given(started_at=TIMES, ttl=st.floats(0.001, 1e6), jitter=st.floats(0, 1), random=RANDOM)
def test_ages_are_spread_around_the_ttl_and_no_further(
    started_at: float, ttl: float, jitter: float, random: float
) -> None:
    expires_at = Limits(ttl=ttl, jitter=jitter).expires_at(started_at, random)
    rounding = 1e-9 * (started_at + ttl)
    assert started_at + ttl * (1 - jitter) - rounding <= expires_at
    assert expires_at <= started_at + ttl * (1 + jitter) + rounding


def test_a_pool_that_started_together_does_not_recycle_together() -> None:
    limits = Limits(ttl=100.0, jitter=0.2)
    ages = [limits.expires_at(1000.0, random) for random in (0.0, 0.25, 0.5, 0.75, 0.999)]
    assert ages == pytest.approx([1080, 1090, 1100, 1110, 1119.96])
    assert {Limits(ttl=100.0).expires_at(1000.0, random) for random in (0.0, 0.5, 0.999)} == {1100.0}


@pytest.mark.parametrize(
    ("now", "requests", "memory", "reason"),
    [
        (99.9, 9, 999, None),
        (100.0, 9, 999, Reason.TTL),
        (99.9, 10, 999, Reason.MAX_REQUESTS),
        (99.9, 9, 1000, Reason.MAX_MEMORY),
        (100.0, 10, 1000, Reason.MAX_REQUESTS),
        (100.0, 9, 1000, Reason.MAX_MEMORY),
        (100.0, 10, 999, Reason.MAX_REQUESTS),
        (99.9, 9, None, None),
        (100.0, 9, None, Reason.TTL),
        (99.9, 10, None, Reason.MAX_REQUESTS),
    ],
)
def test_the_first_limit_that_is_reached_is_named(
    now: float, requests: int, memory: int | None, reason: Reason | None
) -> None:
    limits = Limits(ttl=100.0, max_requests=10, max_memory=1000)
    assert limits.exceeded(now, limits.expires_at(0.0, 0.5), requests, memory) is reason


@given(now=TIMES, requests=COUNTS)
def test_memory_that_could_not_be_read_fires_nothing(now: float, requests: int) -> None:
    assert Limits(max_memory=1).exceeded(now, NEVER, requests, None) is None


@pytest.mark.parametrize(
    ("limits", "any_set"),
    [
        (Limits(), False),
        (Limits(jitter=0.3), False),
        (Limits(ttl=1.0), True),
        (Limits(max_requests=0), True),
        (Limits(max_memory=0), True),
    ],
)
def test_any_says_whether_it_is_worth_looking(limits: Limits, any_set: bool) -> None:
    assert limits.any is any_set


# ---- permits --------------------------------------------------------------------------------------


class PermitsAgainstTable(RuleBasedStateMachine):
    """The model: key -> when its permit ends; time only moves forward, and the pool has one size."""

    VALID = 4.0

    @initialize(workers=st.integers(1, 13))
    def begin(self, workers: int) -> None:
        self.workers = workers
        self.most = max(1, workers // 4)
        self.permits: Permits[int] = Permits(self.VALID)
        self.ends: dict[int, float] = {}
        self.now = 0.0

    def holders(self) -> set[int]:
        return {key for key, end in self.ends.items() if end > self.now}

    @rule(half_seconds=st.integers(0, 5))  # on a grid, so that the very end of a permit is met
    def wait(self, half_seconds: int) -> None:
        self.now += half_seconds / 2

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        key = data.draw(st.integers(1, self.workers))
        room = key in self.holders() or len(self.holders()) < self.most
        assert self.permits.ask(key, self.workers, self.now) is room
        if room:
            self.ends[key] = self.now + self.VALID

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        key = data.draw(st.integers(1, self.workers))
        self.permits.give_back(key)
        self.ends.pop(key, None)

    @invariant()
    def never_more_than_a_quarter(self) -> None:
        assert len(self.holders()) <= self.most
        assert len(self.holders()) <= len(self.permits) <= self.most


TestPermitsAgainstTable = PermitsAgainstTable.TestCase
TestPermitsAgainstTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(("workers", "at_once"), [(1, 1), (2, 1), (4, 1), (7, 1), (8, 2), (16, 4), (19, 4)])
def test_a_quarter_of_the_pool_may_and_always_one(workers: int, at_once: int) -> None:
    permits: Permits[int] = Permits(10.0)
    assert sum(permits.ask(key, workers, 0.0) for key in range(workers)) == at_once


def test_its_holder_asks_again_and_is_granted_anew() -> None:
    permits: Permits[str] = Permits(10.0)
    assert permits.ask("a", 4, 0.0)
    assert permits.ask("a", 4, 9.0)
    assert not permits.ask("b", 4, 18.9), "granted anew: valid from the second question on"
    assert len(permits) == 1


def test_a_permit_whose_holder_is_never_heard_of_again_is_free() -> None:
    permits: Permits[str] = Permits(10.0)
    assert permits.ask("lost", 4, 0.0)
    assert not permits.ask("b", 4, 9.9)
    assert permits.ask("b", 4, 10.0)
    assert not permits.ask("lost", 4, 10.0), "who comes late asks like everyone"


def test_who_gives_back_twice_or_late_takes_nothing_from_others() -> None:
    permits: Permits[str] = Permits(10.0)
    permits.give_back("nobody")
    assert permits.ask("a", 4, 0.0)
    permits.give_back("a")
    assert permits.ask("b", 4, 0.0)
    permits.give_back("a")
    assert not permits.ask("c", 4, 0.0)


def test_a_pool_that_shrank_waits_until_enough_are_done() -> None:
    permits: Permits[str] = Permits(10.0)
    assert permits.ask("a", 8, 0.0) and permits.ask("b", 8, 0.0)
    assert permits.ask("a", 4, 1.0), "what began goes on"
    permits.give_back("b")
    assert not permits.ask("c", 4, 1.0)
    permits.give_back("a")
    assert permits.ask("c", 4, 1.0)
