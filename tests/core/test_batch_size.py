"""How chunks grow and shrink."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.work.batch_size import (
    CALL_SECONDS,
    DRIFT,
    GROWTH,
    LEAST_WORK,
    MOST,
    MOST_BYTES,
    MOVE_SECONDS,
    QUICKEST,
    SHARE,
    SLOW,
    SPARE,
    TARGET,
    BatchSize,
    BurstSize,
    WholeSize,
)
from snakepit_ray.core.work.divider import Divider

seconds = st.floats(0.0, 100.0, allow_nan=False)
chunks = st.lists(st.tuples(st.integers(1, 5_000), seconds, st.integers(0, 10**9)), max_size=40)


@given(chunks, st.integers(-5, 10_000))
def test_whatever_is_seen_it_stays_within_bounds_and_grows_with_what_was_seen(seen: list, most: int) -> None:
    assert 1 <= BatchSize(most, start=7).size <= min(7, max(1, most))
    policy, least = BatchSize(most), 100.0
    assert policy.size == 1
    for count, took, nbytes in seen:
        before, each = policy.size, max(took / max(1, count), QUICKEST)
        least = each if each >= TARGET else min(each, least * DRIFT)
        policy.observe(count, took, nbytes)
        assert 1 <= policy.size <= max(1, min(most, MOST))
        assert policy.size <= max(before, GROWTH * count)
        items = max(1, count)
        assert policy.size == 1 or policy.size * least <= TARGET * 1.0001
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
    size = policy.next_size(calls, slots, 2 * slots)
    assert 1 <= size <= MOST
    each = min(seen[-3:], default=0.0)
    assert size == 1 or size * max(1, slots) < calls + max(1, slots) or size * each <= LEAST_WORK * 1.0001
    assert size <= max(1, calls)
    if len(seen) >= 3 and min(seen[-3:]) > TARGET:
        assert size == 1


def test_one_hiccup_does_not_tear_a_burst_apart() -> None:
    policy = BurstSize()
    assert policy.next_size(1000, 2, 4) == 500
    policy.observe(1, 1e-5)
    policy.observe(1, 0.3)
    assert policy.next_size(1000, 2, 4) == 500


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


@given(st.lists(st.floats(1e-7, 1.0), min_size=1, max_size=6), st.integers(1, 200))
def test_a_burst_of_cheap_calls_wakes_as_few_workers_as_their_caller_can_feed(
    seen: list[float], slots: int
) -> None:
    policy = BurstSize()
    assert policy.spread(slots) == slots, "nothing is known yet"
    for each in seen:
        policy.observe(10, each * 10)
    least, used = min(seen[-3:]), policy.spread(slots)
    assert 1 <= used <= slots
    assert used == slots or least / CALL_SECONDS < used + 1e-6 <= least / CALL_SECONDS + 1 + SPARE + 1e-5
    assert used == slots or least < TARGET


def divided(slots: int, each: float, total: int = 100_000, piece: int = 390) -> tuple[int, int]:
    """How many chunks a batch is cut into, and how many are under way at most, where they end in turn."""
    sizing = WholeSize(total, slots, piece)
    divider: Divider[int] = Divider(sizing)
    for begin in range(0, total, piece):
        divider.add_apart(range(begin, min(begin + piece, total)), 0.0)
    divider.close()
    under_way, chunks, most = [], 0, 0
    while not divider.is_finished:
        while (chunk := divider.next(sizing.spread(slots), 0.0)) is not None:
            under_way.append(chunk)
            chunks += 1
        most = max(most, len(under_way)) if chunks > slots else most
        first = under_way.pop(0)
        divider.ended(first, 0.0, seconds=len(first.items) * each)
    return chunks, most


@pytest.mark.parametrize("slots", [8, 32, 64, 200])
def test_a_batch_of_cheap_items_is_cut_no_finer_in_a_large_pool(slots: int) -> None:
    few, _ = divided(2, 5e-6)
    many, most = divided(slots, 5e-6)
    assert many <= 1.5 * few + 2 * slots, "the first chunks go to every worker: nothing is known of them"
    assert most <= max(2 * slots, 16)


@pytest.mark.parametrize("each", [MOVE_SECONDS, 0.005, 0.2])
def test_a_batch_of_items_that_take_long_uses_the_whole_pool(each: float) -> None:
    for slots in (2, 64):
        sizing = WholeSize(10_000, slots, 39)
        assert sizing.spread(slots) == slots
        sizing.observe(1, each)
        assert sizing.spread(slots) == slots


class Machine:
    """Two cores, which a caller and the workers share evenly: with more of them awake each takes longer.

    A chunk costs the caller `fixed` and `own` an item, and its worker `fixed` and `item` an item. What takes
    longer than SHARE by the clock is given back. The clock of a chunk shows one of `hiccups` times what it
    took: another process had its core."""

    def __init__(self, slots: int, item: float, own: float, hiccups: tuple[int, ...] = (1,)) -> None:
        self.policy, self.slots = BatchSize(), slots
        self.hiccups, self.random = hiccups, random.Random(1)
        self.item, self.own, self.fixed = item, own, 1e-3
        self.clock = self.caller_since = self.caller_seconds = 0.0
        self.left = 50_000  # items
        self.most_awake = 0
        self.drawing: list[float] = []  # the work that is left of the caller's next chunk, and its items
        self.free = list(range(slots))
        self.queue: list[int] = []  # items of chunks that no worker has begun
        self.running: dict[int, list[float]] = {}  # worker: items, when it began, the work that is left

    def rate(self) -> float:
        """Items a second."""
        items = self.left
        while self.left or self.drawing or self.queue or self.running:
            self._begin()
            self._step()
        return items / self.clock

    def _begin(self) -> None:
        under_way = len(self.queue) + len(self.running)
        used = self.policy.spread(self.slots, self.caller_seconds)
        if self.left and not self.drawing and under_way < self.policy.ahead * used:
            count = min(self.policy.size, self.left)
            self.left -= count
            self.drawing, self.caller_since = [self.fixed + self.own * count, count], self.clock
        while self.queue and self.free:
            count = self.queue.pop(0)
            self.running[self.free.pop()] = [count, self.clock, self.fixed + self.item * count]

    def _step(self) -> None:
        """Goes on to what ends first."""
        awake = len(self.running) + bool(self.drawing)
        self.most_awake = max(self.most_awake, len(self.running))
        pace = min(1.0, 2 / awake)
        left = [run[2] for run in self.running.values()] + self.drawing[:1]
        ends = [self.clock + work / pace for work in left]
        ends += [run[1] + SHARE for run in self.running.values() if run[1] + SHARE > self.clock]
        passed = min(ends) - self.clock
        self.clock += passed
        if self.drawing:
            self.drawing[0] -= passed * pace
        for run in self.running.values():
            run[2] -= passed * pace
        if self.drawing and self.drawing[0] <= 1e-9:
            self.queue.append(int(self.drawing[1]))
            self.caller_seconds += (self.clock - self.caller_since - self.caller_seconds) / 4
            self.drawing = []
        for worker, (count, began, work) in list(self.running.items()):
            if work <= 1e-9 or self.clock - began >= SHARE - 1e-9:
                self._ended(worker, int(count), self.clock - began, max(0.0, work))

    def _ended(self, worker: int, count: int, seconds: float, work: float) -> None:
        del self.running[worker]
        self.free.append(worker)
        done = max(1, count - int(work / self.item))
        self.policy.observe(done, seconds * self.random.choice(self.hiccups))
        if done < count:
            self.queue.insert(0, count - done)


@pytest.mark.parametrize("slots", [8, 32, 128])
@pytest.mark.parametrize("own", [2e-6, 8e-6])
def test_throughput_of_small_work_does_not_fall_with_the_size_of_the_pool(slots: int, own: float) -> None:
    few = Machine(2, item=5e-6, own=own).rate()
    assert Machine(slots, item=5e-6, own=own).rate() > 0.9 * few
    assert Machine(slots, item=5e-6, own=own, hiccups=(1, 1, 1, 30)).rate() > 0.9 * few


def test_work_that_waits_uses_the_whole_pool() -> None:
    policy = BatchSize()
    for _ in range(10):
        policy.observe(policy.size, policy.size * 2e-3)
        assert policy.spread(32, 3e-4 + 1e-5 * policy.size) >= min(32, policy.size * 4)
    assert policy.spread(32, 4e-4) >= 25
