"""When a worker speaks, and when it holds its tongue."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.routing.reporting import (
    ALONE,
    BUDGET,
    CHAIN_PATIENCE,
    DRY_PATIENCE,
    LOAD_PATIENCE,
    LONG_PATIENCE,
    PATIENCE,
    Decision,
    Pace,
    Pacer,
    Report,
    Reporter,
)

QUICK = Pace(starving=0.0, dry=0.0, fresh=1.0, load=1.0, sated=0.0)


def told(reporter: Reporter, decision: Decision, now: float, pace: Pace = QUICK) -> Report:
    """The report that was due, answered at once."""
    assert decision.report is not None
    reporter.answered(pace, now)
    return decision.report


def busy(reporter: Reporter, now: float) -> None:
    """One slot, taken, and the router knows that nothing is free."""
    assert reporter.observe(0, 0, None, 1, now).report is None


def test_a_short_wait_is_not_worth_a_message() -> None:
    reporter = Reporter(pace=QUICK)
    assert reporter.observe(0, 1, 1.0, 2, 1.0) == (None, 1.0 + PATIENCE)
    assert reporter.observe(0, 0, None, 1, 1.001).report is None


def test_who_was_alone_is_not_held_back_when_another_joins() -> None:
    """The first worker of a pool that reports must not keep its silence once the others are there."""
    alone = Pacer(1).pace(0.0, 0, 0, 1)
    reporter = Reporter(pace=alone)
    reporter.observe(1, 0, None, 0, 1.0)
    told(reporter, reporter.tick(1.0 + DRY_PATIENCE), 1.01, alone)
    decision = reporter.observe(0, 3, 1.02, 4, 1.02)
    assert decision.wake_at is not None and decision.wake_at <= 1.01 + ALONE


def test_a_queue_that_moves_gets_more_patience() -> None:
    reporter = Reporter(pace=QUICK)
    reporter.observe(0, 4, 1.0, 5, 1.0)
    for i in range(1, 15):
        reporter.progressed(1.0 + i / 1000)
        assert reporter.observe(0, 4, 1.0, 5, 1.0 + i / 1000).report is None
    assert told(reporter, reporter.tick(1.0 + LONG_PATIENCE), 1.02).movable == 4


def test_starvation_is_told_at_once_and_then_only_when_it_grows() -> None:
    reporter = Reporter(pace=QUICK)
    reporter.observe(0, 1, 1.0, 2, 1.0)
    report = told(reporter, reporter.tick(1.0 + PATIENCE), 1.01)
    assert (report.free, report.movable) == (0, 1)
    assert reporter.observe(0, 1, 1.0, 2, 1.02).report is None
    assert told(reporter, reporter.observe(0, 2, 1.0, 3, 1.03), 1.03).movable == 2
    assert reporter.observe(0, 3, 1.0, 4, 1.04).report is None
    assert told(reporter, reporter.observe(0, 4, 1.0, 5, 1.05), 1.05).movable == 4


def test_a_dry_worker_tells_its_free_slots_once() -> None:
    reporter = Reporter(pace=QUICK)
    assert reporter.observe(1, 0, None, 0, 1.0) == (None, 1.0 + DRY_PATIENCE)
    assert told(reporter, reporter.tick(1.0 + DRY_PATIENCE), 1.01).free == 1
    for i in range(50):  # its own requests come and go: what the router believes is right often enough
        now = 1.02 + i / 100
        reporter.observe(0, 0, None, 1, now)
        assert reporter.observe(1, 0, None, 0, now + 0.001).report is None


def test_a_free_slot_that_a_delegate_used_is_told_again() -> None:
    reporter = Reporter(pace=QUICK)
    reporter.observe(1, 0, None, 0, 1.0)
    told(reporter, reporter.tick(1.1), 1.1)
    reporter.delegate_arrived(True)
    busy(reporter, 1.2)
    assert reporter.observe(1, 0, None, 0, 1.3).wake_at == 1.3 + DRY_PATIENCE
    report = told(reporter, reporter.tick(1.3 + DRY_PATIENCE), 1.31)
    assert (report.free, report.arrived) == (1, 1)


def test_a_refusal_tells_the_router_that_nothing_is_free() -> None:
    reporter = Reporter(pace=QUICK)
    reporter.observe(3, 0, None, 0, 1.0)
    told(reporter, reporter.tick(1.1), 1.1)
    busy(reporter, 1.2)
    reporter.delegate_arrived(False)
    reporter.observe(1, 0, None, 2, 1.3)
    assert told(reporter, reporter.tick(1.4), 1.4).arrived == 1


def test_a_chained_delegate_is_between_the_workers_alone() -> None:
    reporter = Reporter(pace=QUICK._replace(urgent=True))
    reporter.delegate_arrived(True, chained=True)
    busy(reporter, 1.0)
    reporter.delegate_ended(True, 1.1)
    assert reporter.observe(1, 0, None, 0, 1.1).wake_at == 1.1 + CHAIN_PATIENCE
    assert told(reporter, reporter.tick(1.2), 1.2).arrived == 0


def test_an_urgent_pool_does_not_wait_for_a_dry_worker() -> None:
    reporter = Reporter(pace=QUICK._replace(urgent=True))
    busy(reporter, 1.0)
    assert reporter.observe(1, 0, None, 0, 2.0).report == Report(1, 0, 0, 0, 0)


def test_moves_are_counted_and_a_vain_one_clears_the_belief() -> None:
    reporter = Reporter(pace=QUICK)
    reporter.observe(0, 4, 1.0, 5, 1.0)
    told(reporter, reporter.tick(1.1), 1.1)
    reporter.moved(2, 2)
    assert reporter.observe(0, 2, 1.0, 3, 1.2).report is None
    reporter.moved(2, 1)
    assert told(reporter, reporter.observe(0, 1, 1.0, 2, 1.3), 1.3).ordered == 4


def test_where_moves_come_in_answers_only_who_starves_says_so_again() -> None:
    reporter = Reporter(pace=QUICK)
    reporter.observe(0, 1, 1.0, 2, 1.0)
    told(reporter, reporter.tick(1.1), 1.1, QUICK._replace(repeat=True, starving=0.5))
    assert reporter.tick(1.2) == (None, 1.6)
    assert told(reporter, reporter.tick(1.6), 1.6).movable == 1


def test_a_sated_worker_says_so_where_messages_are_plenty() -> None:
    reporter = Reporter(pace=QUICK)
    reporter.observe(0, 1, 1.0, 2, 1.0)
    told(reporter, reporter.tick(1.1), 1.1)
    assert told(reporter, reporter.observe(0, 0, None, 1, 1.2), 1.2).movable == 0


def test_one_report_in_flight_at_a_time_and_a_failed_one_is_repeated() -> None:
    reporter = Reporter(pace=QUICK)
    reporter.observe(0, 1, 1.0, 2, 1.0)
    assert reporter.tick(1.1).report is not None
    assert reporter.observe(0, 9, 1.0, 10, 1.2) == (None, None)
    assert reporter.answered(None, 1.3).report is not None


def test_the_load_is_told_seldom_and_only_when_it_changed_much() -> None:
    reporter = Reporter(pace=QUICK)
    assert reporter.observe(0, 0, None, 1, 1.0) == (None, None)
    assert reporter.observe(0, 0, None, 2, 1.0) == (None, 1.0 + LOAD_PATIENCE)
    assert reporter.observe(0, 0, None, 1, 1.1) == (None, None), "a spike is not a change"
    reporter.observe(0, 0, None, 2, 1.2)
    assert told(reporter, reporter.tick(1.5), 1.5).load == 2
    assert reporter.observe(0, 0, None, 3, 1.6) == (None, None)
    assert reporter.observe(0, 0, None, 9, 1.7).wake_at == 1.5 + QUICK.load


def test_the_spacing_of_the_last_answer_is_kept() -> None:
    reporter = Reporter(pace=QUICK)
    reporter.observe(0, 1, 1.0, 2, 1.0)
    told(reporter, reporter.tick(1.1), 1.1, QUICK._replace(starving=0.5))
    assert reporter.observe(0, 8, 1.0, 9, 1.2).wake_at == 1.6


FACTS = st.tuples(st.integers(0, 2), st.integers(0, 5), st.floats(0, 0.05), st.booleans())


@given(st.lists(FACTS, max_size=80))
def test_no_worker_exceeds_the_spacing_whatever_happens(steps: list[tuple[int, int, float, bool]]) -> None:
    spacing = 0.02
    pace = Pace(starving=spacing, dry=spacing, fresh=spacing, load=spacing, sated=spacing)
    reporter, now, sent = Reporter(pace=pace), 0.0, []
    for free, movable, seconds, delegate in steps:
        now += seconds
        if delegate:
            reporter.delegate_arrived(bool(free))
        decision = reporter.observe(free, 0 if free else movable, now - 0.01, 2 - free + movable, now)
        if decision.report is not None:
            sent.append(now)
            reporter.answered(pace, now)
        elif decision.wake_at is not None:
            assert decision.wake_at > now
    assert all(b - a >= spacing - 1e-9 for a, b in pairwise(sent))


def rate_of(workers: int, seconds: float = 20.0) -> float:
    """Messages a second when every worker always has something to tell; the last quarter."""
    pacer = Pacer(workers)
    step, due, n = 0.005, [i / workers for i in range(workers)], 0
    for tick in range(int(seconds / step)):
        now = tick * step
        for i in range(workers):
            if due[i] <= now:
                pacer.count(now)
                n += now > 0.75 * seconds
                due[i] = now + pacer.pace(now, 10, 0, workers).starving
    return n / (0.25 * seconds)


def test_the_pacer_keeps_any_pool_within_its_budget() -> None:
    assert rate_of(4) < BUDGET
    for workers in (16, 256):
        assert 0.7 * BUDGET < rate_of(workers) < 1000


def test_the_pacer_asks_for_the_side_that_is_scarce() -> None:
    pacer = Pacer(1000)
    assert pacer.pace(0.0, 5, 0, 1000).urgent
    assert pacer.pace(0.0, 5, 0, 1000).dry < pacer.pace(0.0, 0, 900, 1000).dry
    assert not pacer.pace(0.0, 0, 900, 1000).urgent
    assert Pacer(4).may_push(0.0)
    assert not pacer.may_push(0.0)
    pacer.count(0.0, 500)
    assert pacer.rate(0.0) > pacer.rate(1.0)
