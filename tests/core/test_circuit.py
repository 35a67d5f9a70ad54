"""The circuit breaker against its rules, step by step."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from snakepit_ray.core.pool.circuit import TRANSITIONS, Admit, Breaker, Circuit

FAILURES, WINDOW, RESET = 3, 10.0, 5.0


class BreakerAgainstRules(RuleBasedStateMachine):
    """The model: when it opened, when its probe went out, and the failures of the time that it is closed."""

    @initialize(
        limit=st.integers(1, 4), window=st.sampled_from([2.0, 6.0]), reset=st.sampled_from([1.0, 5.0])
    )
    def begin(self, limit: int, window: float, reset: float) -> None:
        self.limit, self.window, self.reset = limit, window, reset
        self.breaker = Breaker(limit, window, reset)
        self.now = 0.0
        self.opened_at: float | None = None  # None: closed
        self.probe_at: float | None = None  # None, and it is open: it refuses
        self.failed: list[float] = []
        self.plain, self.probes = 0, 0  # requests under way

    @rule(half_seconds=st.integers(0, 6))  # on a grid, so that the edges are met
    def wait(self, half_seconds: int) -> None:
        self.now += half_seconds / 2

    @rule()
    def ask(self) -> None:
        admit = self.breaker.admit(self.now)
        if self.opened_at is None:
            assert admit == Admit(True)
            self.plain += 1
            return
        again_at = (self.opened_at if self.probe_at is None else self.probe_at) + self.reset
        if self.now < again_at:
            assert admit == Admit(False, again_at - self.now)
        else:
            assert admit == Admit(True, probe=True)
            self.probe_at = self.now
            self.probes += 1

    @precondition(lambda self: self.plain)
    @rule()
    def request_fails(self) -> None:
        self.plain -= 1
        assert self.breaker.failed(self.now) is self.fails()

    def fails(self) -> bool:
        """A failure that decides nothing by itself; whether it was one too many."""
        self.failed.append(self.now)
        if self.opened_at is not None or self.lately() < self.limit:
            return False
        self.opened_at, self.probe_at = self.now, None
        return True

    def lately(self) -> int:
        return sum(at > self.now - self.window for at in self.failed)

    @precondition(lambda self: self.plain)
    @rule()
    def request_succeeds(self) -> None:
        self.plain -= 1
        assert not self.breaker.succeeded()

    @precondition(lambda self: self.probes)
    @rule()
    def probe_fails(self) -> None:
        self.probes -= 1
        if self.probe_at is None:  # it comes back when another one has decided
            assert self.breaker.failed(self.now, probe=True) is self.fails()
        else:
            assert self.breaker.failed(self.now, probe=True)
            self.opened_at, self.probe_at = self.now, None

    @precondition(lambda self: self.probes)
    @rule()
    def probe_succeeds(self) -> None:
        self.probes -= 1
        assert self.breaker.succeeded(probe=True) is (self.probe_at is not None)
        if self.probe_at is not None:
            self.opened_at = self.probe_at = None
            self.failed.clear()

    @precondition(lambda self: self.probes)
    @rule()
    def probe_is_lost(self) -> None:
        self.probes -= 1

    @invariant()
    def agrees(self) -> None:
        trying = Circuit.OPEN if self.probe_at is None else Circuit.HALF_OPEN
        assert self.breaker.state is (Circuit.CLOSED if self.opened_at is None else trying)
        assert self.opened_at in (None, self.breaker.opened_at)
        if self.opened_at is None:
            assert self.breaker.failures < self.limit


TestBreakerAgainstRules = BreakerAgainstRules.TestCase
TestBreakerAgainstRules.settings = settings(stateful_step_count=40, deadline=None)


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(FAILURES, WINDOW, RESET)
    assert [breaker.failed(at) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    return breaker


def half_open(at: float = 0.0) -> Breaker:
    """It opened RESET before, and its probe went out at that time."""
    breaker = opened(at - RESET)
    assert breaker.admit(at).probe
    return breaker


def test_no_state_is_out_of_reach_or_without_a_way_back() -> None:
    assert set(TRANSITIONS.values()) == {at for at, _ in TRANSITIONS} == set(Circuit)
    assert {after for (at, _), after in TRANSITIONS.items() if at is Circuit.OPEN} == {Circuit.HALF_OPEN}


def test_too_many_failures_within_the_window_open_it() -> None:
    breaker = Breaker(FAILURES, WINDOW, RESET)
    assert [breaker.failed(at) for at in (0.0, 9.0, 9.9)] == [False, False, True]
    assert breaker.state is Circuit.OPEN


@given(st.lists(st.floats(WINDOW / (FAILURES - 1) * 1.0001, 1e4), max_size=50))
def test_the_same_spread_wider_do_not(pauses: list[float]) -> None:
    breaker, now = Breaker(FAILURES, WINDOW, RESET), 0.0
    for pause in pauses:
        now += pause
        assert not breaker.failed(now)
        assert breaker.admit(now) == Admit(True)


def test_successes_in_between_do_not_hide_failures() -> None:
    breaker = Breaker(FAILURES, WINDOW, RESET)
    for _ in range(FAILURES - 1):
        breaker.failed(0.0)
        assert not breaker.succeeded()
    assert breaker.failed(0.0)


def test_open_refuses_and_says_for_how_long() -> None:
    breaker = opened(100.0)
    assert breaker.admit(100.0) == Admit(False, RESET)
    assert breaker.admit(104.5) == Admit(False, 0.5)
    assert breaker.admit(105.0) == Admit(True, probe=True)


@given(st.lists(st.floats(0, 0.999 * RESET), min_size=1, max_size=20))
def test_half_open_lets_exactly_one_through(times: list[float]) -> None:
    breaker = half_open(100.0)
    for after in sorted(times):
        admit = breaker.admit(100.0 + after)
        assert not admit.allowed
        assert admit.retry_after == pytest.approx(RESET - after)


def test_its_success_closes_and_forgets() -> None:
    breaker = half_open(100.0)
    assert breaker.succeeded(probe=True)
    assert breaker.state is Circuit.CLOSED
    assert [breaker.failed(100.5) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]


def test_its_failure_opens_anew_from_that_moment() -> None:
    breaker = half_open(100.0)
    assert breaker.failed(103.0, probe=True)
    assert (breaker.state, breaker.opened_at) == (Circuit.OPEN, 103.0)
    assert breaker.admit(107.0) == Admit(False, 1.0)
    assert breaker.admit(108.0).probe


def test_a_probe_that_never_comes_back_is_replaced() -> None:
    breaker = half_open(100.0)
    assert breaker.admit(104.0) == Admit(False, 1.0)
    assert breaker.admit(105.0) == Admit(True, probe=True)
    assert breaker.admit(105.0) == Admit(False, RESET), "by one, again"


def test_what_was_let_in_before_does_not_disturb_the_probe() -> None:
    breaker = half_open(100.0)
    assert not any(breaker.failed(100.1) for _ in range(5 * FAILURES))
    assert not breaker.succeeded()
    assert breaker.state is Circuit.HALF_OPEN
    assert breaker.succeeded(probe=True)
    assert not breaker.failed(100.2), "and counts no more once it is closed"


def test_what_was_let_in_before_does_not_keep_it_open_longer() -> None:
    breaker = opened(100.0)
    assert not any(breaker.failed(104.9) for _ in range(5 * FAILURES))
    assert breaker.admit(105.0).probe


def test_a_probe_of_an_earlier_try_does_not_close_an_open_one() -> None:
    breaker = half_open(100.0)
    assert breaker.admit(105.0).probe, "the first one is lost, it seems"
    assert breaker.failed(106.0, probe=True)
    assert not breaker.succeeded(probe=True)
    assert not breaker.failed(106.5, probe=True)
    assert (breaker.state, breaker.opened_at) == (Circuit.OPEN, 106.0)


def test_memory_stays_in_proportion_to_the_window() -> None:
    breaker = opened()
    for i in range(5000):
        breaker.failed(float(i))
    assert breaker.failures == WINDOW


def test_repr_is_a_status_line() -> None:
    breaker = Breaker(FAILURES, WINDOW, RESET)
    breaker.failed(0.0)
    assert repr(breaker) == "<Breaker closed, 1 of 3 failures>"
    assert repr(half_open()) == "<Breaker half_open, 3 of 3 failures>"
