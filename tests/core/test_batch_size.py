"""How chunks grow and shrink."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.batch_size import (
    GROWTH,
    LEAST_WORK,
    MOST,
    MOST_BYTES,
    SLOW,
    SPARE,
    TARGET,
    BatchSize,
    BurstSize,
)

seconds = st.floats(0.0, 100.0, allow_nan=False)
chunks = st.lists(st.tuples(st.integers(1, 5_000), seconds, st.integers(0, 10**9)), max_size=40)


@given(chunks, st.integers(-5, 10_000))
def test_whatever_is_seen_it_stays_within_bounds_and_grows_with_what_was_seen(seen: list, most: int) -> None:
    assert 1 <= BatchSize(most, start=7).size <= min(7, max(1, most))
    policy = BatchSize(most)
    assert policy.size == 1
    for count, took, nbytes in seen:
        before = policy.size
        policy.observe(count, took, nbytes)
        assert 1 <= policy.size <= max(1, min(most, MOST))
        assert policy.size <= max(before, GROWTH * count)
        items = max(1, count)
        assert policy.size == 1 or policy.size * took / items <= TARGET * 1.0001
        assert policy.size == 1 or policy.size * nbytes / items <= MOST_BYTES * 1.0001


@given(st.floats(1e-7, 1.0), st.integers(0, 100_000))
def test_like_items_lead_to_the_size_that_fits_and_stay_there(each: float, nbytes: int) -> None:
    policy, wanted = BatchSize(), max(1, int(min(MOST, TARGET / each, MOST_BYTES / max(nbytes, 1))))
    steps = 0
    while policy.size < wanted - max(1, wanted // 50):
        policy.observe(policy.size, policy.size * each, policy.size * nbytes)
        steps += 1
        assert steps <= 12, "2 ** 11 is more than any size"
    for _ in range(3):
        policy.observe(policy.size, policy.size * each, policy.size * nbytes)
        assert abs(policy.size - wanted) <= max(1, wanted // 50)


def test_one_slow_chunk_is_enough_to_go_one_by_one() -> None:
    policy = BatchSize()
    for _ in range(15):
        policy.observe(policy.size, policy.size * 1e-6)
    assert policy.size == MOST
    policy.observe(3, 0.06)
    assert policy.size == 1


@given(st.floats(0.0, 10.0))
def test_nothing_waits_behind_a_slow_item(each: float) -> None:
    policy = BatchSize()
    assert policy.ahead == 1, "nothing is known yet"
    policy.observe(1, each)
    assert policy.ahead == (1 if each >= SLOW else 2)


@given(st.lists(seconds, max_size=6), st.integers(0, 10_000), st.integers(0, 100))
def test_a_burst_is_shared_out_and_slow_calls_are_not_put_together(
    seen: list, calls: int, slots: int
) -> None:
    policy = BurstSize()
    for each in seen:
        policy.observe(10, each * 10)
    size = policy.size(calls, slots)
    assert 1 <= size <= MOST
    each = min(seen[-3:], default=0.0)
    assert size == 1 or size * max(1, slots) < calls + max(1, slots) or size * each <= LEAST_WORK * 1.0001
    assert size <= max(1, calls)
    if len(seen) >= 3 and min(seen[-3:]) > TARGET:
        assert size == 1


def test_one_hiccup_does_not_tear_a_burst_apart() -> None:
    policy = BurstSize()
    assert policy.size(1000, 2) == 500
    policy.observe(1, 1e-5)
    policy.observe(1, 0.3)
    assert policy.size(1000, 2) == 500


@given(st.floats(1e-7, 10.0), st.floats(1e-6, 0.1), st.integers(1, 200))
def test_no_more_workers_are_used_than_the_caller_can_keep_busy(
    each: float, caller: float, slots: int
) -> None:
    policy = BatchSize()
    assert policy.spread(slots, caller) == slots, "nothing is known yet"
    for _ in range(20):
        policy.observe(policy.size, policy.size * each)
    used = policy.spread(slots, caller)
    assert 1 <= used <= slots
    work = each * policy.size
    assert used == slots or work / caller <= used <= work / caller + 1 + SPARE
    assert policy.spread(slots, 0.0) == slots


def throughput(slots: int, item: float, fixed: float, own: float, items: int = 50_000) -> float:
    """Items a second of a caller that needs `own` seconds an item and `fixed` a chunk, of workers that need
    `item` seconds, all on two cores: what one of them takes, another one waits for."""
    policy, processor, done = BatchSize(), 0.0, 0
    while done < items:
        count = min(policy.size, items - done)
        caller = fixed + own * count
        used = policy.spread(slots, caller)
        # With more workers awake than cores each of their items takes the longer.
        policy.observe(count, count * item * max(1.0, used / 2))
        processor += caller + fixed + count * item
        done += count
    return items / processor * 2


@pytest.mark.parametrize("slots", [8, 32, 128])
def test_throughput_of_small_work_does_not_fall_with_the_size_of_the_pool(slots: int) -> None:
    few = throughput(2, item=5e-6, fixed=1e-3, own=8e-6)
    assert throughput(slots, item=5e-6, fixed=1e-3, own=8e-6) > 0.7 * few
