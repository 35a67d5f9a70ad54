"""How chunks grow and shrink."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.batch_size import MOST, MOST_BYTES, SLOW, TARGET, BatchSize, BurstSize

seconds = st.floats(0.0, 100.0, allow_nan=False)
chunks = st.lists(st.tuples(st.integers(1, 5_000), seconds, st.integers(0, 10**9)), max_size=40)


@given(chunks, st.integers(-5, 10_000))
def test_whatever_is_seen_it_stays_within_bounds_and_at_most_doubles(seen: list, most: int) -> None:
    assert 1 <= BatchSize(most, start=7).size <= min(7, max(1, most))
    policy = BatchSize(most)
    assert policy.size == 1
    for count, took, nbytes in seen:
        before = policy.size
        policy.observe(count, took, nbytes)
        assert 1 <= policy.size <= max(1, min(most, MOST))
        assert policy.size <= 2 * before
        if count < before:
            assert policy.size <= before
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
    assert size == 1 or size * max(1, slots) < calls + max(1, slots)
    if len(seen) >= 3 and min(seen[-3:]) > TARGET:
        assert size == 1


def test_one_hiccup_does_not_tear_a_burst_apart() -> None:
    policy = BurstSize()
    assert policy.size(1000, 2) == 500
    policy.observe(1, 1e-5)
    policy.observe(1, 0.3)
    assert policy.size(1000, 2) == 500
