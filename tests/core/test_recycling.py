"""When an interpreter has had its time, and how many may be replaced at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from snakepit_ray.core.worker.recycling import (
    ASK_SECONDS,
    EARLIEST,
    HOLD_SECONDS,
    Countdown,
    Limits,
    Permits,
    Reason,
    Stage,
)

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


# ---- so many requests ------------------------------------------------------------------------------


class Worker:
    """A worker with one slot, in steps of a millisecond. One request after the other takes `service`
    seconds; each start takes `start` seconds, and the permit `permit` seconds."""

    STEP = 0.001

    def __init__(self, limit: int, service: float, start: float, permit: float = 0.0) -> None:
        self.limit, self.service, self.start, self.permit = limit, service, start, permit
        self.now = self.longest_hold = 0.0
        self.served: list[int] = [0]  # of each interpreter
        self._begin()

    def _begin(self) -> None:
        self.countdown = Countdown(self.limit, self.start, overlap=True)
        self.ends_at: float | None = None  # of the request that runs
        self.permitted_at = self.ready_at = float("inf")
        self.held_since: float | None = None

    def run(self, requests: int) -> Worker:
        while sum(self.served) < requests:
            self._answer()
            self._replace()
            self._take()
            self.now += self.STEP
        return self

    def _answer(self) -> None:
        if self.ends_at is not None and self.ends_at <= self.now:
            self.ends_at = None
            self.served[-1] += 1
            self.countdown.observe(self.now, self.served[-1])

    def _replace(self) -> None:
        if self.permitted_at == float("inf") and self.countdown.is_due():
            self.permitted_at = self.now + self.permit
        if self.ready_at == float("inf") and self.permitted_at <= self.now:
            self.countdown.advance(Stage.STARTS, self.now)
            self.ready_at = self.now + self.start
        if self.ready_at <= self.now and self.ends_at is None and self.countdown.is_reached(0):
            self.served.append(0)
            self._begin()

    def _take(self) -> None:
        if self.ends_at is not None:
            return
        if self.countdown.is_reached(0) and self.countdown.held_until(self.now) > self.now:
            self.held_since = self.now if self.held_since is None else self.held_since
            self.longest_hold = max(self.longest_hold, self.now - self.held_since)
        else:
            self.held_since = None
            self.ends_at = self.now + self.service


@given(limit=st.integers(1, 60), service=st.sampled_from([0.001, 0.01, 0.1]), start=st.floats(0.01, 0.85))
@settings(max_examples=20)
def test_with_short_starts_every_interpreter_serves_its_limit(
    limit: int, service: float, start: float
) -> None:
    worker = Worker(limit, service, start).run(4 * limit + 1)
    assert worker.served[:-1] == [limit] * 4
    assert worker.longest_hold <= start + Worker.STEP


@given(limit=st.integers(1, 60), service=st.sampled_from([0.001, 0.01]), start=st.floats(1.0, 3.0))
@settings(max_examples=20)
def test_with_long_starts_nobody_waits_longer_than_the_bound(
    limit: int, service: float, start: float
) -> None:
    worker = Worker(limit, service, start).run(limit + 400)
    assert worker.longest_hold <= HOLD_SECONDS + 2 * Worker.STEP
    late = (start + 2 * Worker.STEP) / service  # while the replacement starts
    assert all(limit <= served <= limit + late + 1 for served in worker.served[:-1])


def test_a_long_start_that_is_foreseen_holds_nobody_up() -> None:
    """100 requests a second, and starts of 2 s: a replacement begins 300 requests before the limit."""
    worker = Worker(limit=2000, service=0.01, start=2.0).run(4500)
    assert worker.served[:-1] == [2000, 2000]
    assert worker.longest_hold == 0.0


def test_who_waits_for_the_permit_is_held_up_only_for_a_moment() -> None:
    worker = Worker(limit=50, service=0.001, start=0.3, permit=2.0).run(1500)
    assert worker.longest_hold <= ASK_SECONDS + HOLD_SECONDS
    assert worker.served[0] > 1000, "it served on meanwhile"


@given(
    limit=st.integers(1, 100),
    answers=st.lists(st.tuples(st.floats(0.0001, 100), st.integers(1, 5)), max_size=60),
    start=st.floats(0, 100),
    overlap=st.booleans(),
)
def test_a_replacement_is_due_at_the_limit_and_never_long_before(
    limit: int, answers: list[tuple[float, int]], start: float, overlap: bool
) -> None:
    countdown, now, served = Countdown(limit, start, overlap=overlap), 0.0, 0
    for pause, count in answers:
        now, served = now + pause, served + count
        countdown.observe(now, served)
        assert countdown.served == served
        if served >= limit:
            assert countdown.is_due() and countdown.is_reached(0)
        elif not overlap or served < EARLIEST * limit:
            assert not countdown.is_due()


def test_a_pause_says_nothing_of_the_requests_after_it() -> None:
    countdown = Countdown(1000, 1.0, overlap=True)
    for number in range(1, 801):
        countdown.observe(3600.0 * (number > 400) + number / 1000, number)
    assert countdown.is_due(), "200 requests at 1,000 a second"


@pytest.mark.parametrize(
    ("stages", "seconds"),
    [
        ([], ASK_SECONDS),
        ([Stage.STARTS], HOLD_SECONDS),
        ([Stage.READY], HOLD_SECONDS),
        ([Stage.DENIED], 0.0),
        ([Stage.DENIED, Stage.STARTS], HOLD_SECONDS),
        ([Stage.FAILED], 0.0),
        ([Stage.FAILED, Stage.STARTS], 0.0),
    ],
)
def test_how_long_requests_are_held_up_at_the_limit(stages: list[Stage], seconds: float) -> None:
    countdown = Countdown(10, 0.5, overlap=True)
    for stage in stages:
        countdown.advance(stage, 100.0)
    assert not countdown.is_reached(9) and countdown.is_reached(10)
    assert countdown.held_until(100.0) == 100.0 + seconds
    assert countdown.held_until(100.5) == 100.0 + seconds, "of one stage, once"


def test_without_overlap_requests_wait_however_long_a_start_takes() -> None:
    """The present interpreter stops at once: no request would start in it anyway."""
    countdown = Countdown(10, 60.0, overlap=False)
    countdown.advance(Stage.STARTS, 0.0)
    assert countdown.held_until(0.0) == HOLD_SECONDS


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
TestPermitsAgainstTable.settings = settings(stateful_step_count=40, deadline=None)


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


@given(limit=st.integers(1, 100), served=st.integers(0, 150), occupied=st.integers(0, 20))
def test_what_is_left_never_passes_the_limit(limit: int, served: int, occupied: int) -> None:
    countdown = Countdown(limit, 1.0, overlap=True)
    countdown.observe(0.0, served)
    left = countdown.left(occupied)
    assert left >= 0 and countdown.is_reached(occupied) == (left == 0)
    assert left == 0 or served + occupied + left == limit
