"""How work is divided, whatever becomes of its chunks and in whatever order; time is a number here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from snakepit_ray.core.work.batch_size import (
    FIRST_SIZE,
    MOST,
    MOVE_SECONDS,
    BatchSize,
    BurstSize,
    SourceSize,
    WholeSize,
)
from snakepit_ray.core.work.divider import AGAIN_SECONDS, MOST_FREE, Chunk, Divider, Rules

GATHER, HOLD = 0.005, 0.05
WEIGHT = 10  # what travels together, at most; an item's weight is its number's last digit


class Fixed:
    """Chunks of one size."""

    def __init__(self, size: int, ahead: int = 2) -> None:
        self.given, self.ahead = size, ahead
        self.seen: list[tuple[int, float, int]] = []

    def next_size(self, waiting: int, slots: int, places: int) -> int:
        return self.given

    def observe(self, count: int, seconds: float, nbytes: int = 0) -> None:
        self.seen.append((count, seconds, nbytes))


def light(items: Sequence[int]) -> int:
    """How many of the first weigh at most WEIGHT together, at least one."""
    total = 0
    for index, item in enumerate(items):
        total += item % 10
        if index and total > WEIGHT:
            return index
    return len(items)


def all_of(divider: Divider[int], slots: int, now: float, *, fills: bool = False) -> list[Chunk[int]]:
    """What leaves now."""
    chunks = []
    while (chunk := divider.next(slots, now, fills=fills)) is not None:
        chunks.append(chunk)
        assert len(chunks) < 10_000, "it never ends"
    return chunks


def items_of(chunks: Sequence[Chunk[int]]) -> list[int]:
    return [item for chunk in chunks for item in chunk.items]


class Stream(RuleBasedStateMachine):
    """One divider in a world that does whatever it likes with its chunks. Items are numbered as they come,
    so that an item's number says what it is."""

    @initialize(
        size=st.sampled_from(["fixed", "source", "whole", "burst"]),
        in_order=st.booleans(),
        gathers=st.sampled_from([0.0, GATHER]),
        holds=st.sampled_from([math.inf, HOLD]),
        slots=st.integers(1, 4),
    )
    def begin(self, size: str, in_order: bool, gathers: float, holds: float, slots: int) -> None:
        sizing = {
            "fixed": Fixed(3),
            "source": SourceSize(None, None),
            "whole": WholeSize(40, slots),
            "burst": BurstSize(),
        }[size]
        self.rules, self.slots, self.now = Rules(in_order, gathers, holds), slots, 100.0
        self.divider: Divider[int] = Divider(sizing, self.rules, light)
        self.came = 0
        self.whole: dict[int, int] = {}  # items that cannot be cut, and the last of those that came with them
        self.waits: list[int] = []
        self.apart: set[int] = set()  # of these, those that came back
        self.under_way: list[Chunk[int]] = []
        self.done: list[int] = []
        self.is_closed = self.is_stopped = False
        self.is_refused = False  # and no chunk has ended or left since

    def _most(self) -> int:
        ahead = 1 if self.rules.in_order else self.divider.sizing.ahead
        return self.slots * ahead

    def _numbers(self, count: int) -> range:
        numbers = range(self.came, self.came + count)
        self.came += count
        if not self.is_stopped:
            self.waits += numbers
        return numbers

    @precondition(lambda self: not self.is_closed)
    @rule(count=st.integers(0, 12))
    def items_come(self, count: int) -> None:
        self.divider.add(list(self._numbers(count)), self.now)

    @precondition(lambda self: not self.is_closed)
    @rule(count=st.integers(1, 12), is_whole=st.booleans())
    def items_come_apart(self, count: int, is_whole: bool) -> None:
        numbers = self._numbers(count)
        self.whole.update(dict.fromkeys(numbers, numbers[-1]) if is_whole else {})
        self.divider.add_apart(numbers, self.now, is_whole=is_whole)

    @rule(seconds=st.sampled_from([0.001, GATHER, AGAIN_SECONDS, HOLD, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(slots=st.integers(1, 4))
    def workers_come_and_go(self, slots: int) -> None:
        self.slots = slots

    @rule()
    def no_more_come(self) -> None:
        self.is_closed = True
        self.divider.close()

    @rule(fills=st.booleans())
    def what_may_leave_leaves(self, fills: bool) -> None:
        before, overdue = len(self.under_way), self.divider.wakes_at(self.slots) <= self.now
        chunks = all_of(self.divider, self.slots, self.now, fills=fills)
        self.is_refused = self.is_refused and not chunks
        assert not (chunks and self.is_stopped), "nothing is sent after the stop"
        if not overdue:
            assert before + len(chunks) <= max(before, self._most()), "bounded in flight"
        for chunk in chunks:
            self._left(chunk)
        if self.waits and not self.is_stopped:
            assert self._is_held_up(fills), "work that may be sent was not"

    def _left(self, chunk: Chunk[int]) -> None:
        items = list(chunk.items)
        assert items and items == list(range(items[0], items[0] + len(items))), "neighbours, in their order"
        assert chunk.number == items[0]
        assert chunk.is_whole == (items[0] in self.whole)
        assert items[-1] == self.whole[items[0]] if chunk.is_whole else light(items) == len(items)
        assert items[0] == min(self.waits), "what came first goes first"
        self.waits = [item for item in self.waits if item not in items]
        self.under_way.append(chunk)

    def _is_held_up(self, fills: bool) -> bool:
        """Whether what waits has a reason to, and will not for ever."""
        wakes_at = self.divider.wakes_at(self.slots)
        if self.is_refused:
            return bool(self.under_way) or self.now < wakes_at <= self.now + AGAIN_SECONDS
        if len(self.under_way) < self._most():  # a chunk that is not full gathers
            return fills and bool(self.under_way) and self.now < wakes_at <= self.now + GATHER
        return wakes_at > self.now

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), seconds=st.none() | st.floats(0, 1), nbytes=st.integers(0, 1000))
    def a_chunk_ends(self, data: st.DataObject, seconds: float | None, nbytes: int) -> None:
        chunk = self._one(data)
        count = data.draw(st.integers(0, len(chunk.items)))
        left = chunk.items[count:]
        self.done += chunk.items[:count]
        self._back(left)
        self.is_refused = False
        self.divider.ended(chunk, self.now, left=left, seconds=seconds, nbytes=nbytes)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def a_chunk_is_refused(self, data: st.DataObject) -> None:
        chunk = self._one(data)
        self._back(chunk.items)
        self.is_refused = True
        self.divider.refused(chunk, self.now)
        assert self.divider.next(self.slots, self.now) is None, "it waits for another one to end"

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def a_chunk_cannot_be_sent(self, data: st.DataObject) -> None:
        chunk = self._one(data)
        if len(chunk.items) == 1:
            self.done += chunk.items
            self.is_refused = False
            self.divider.ended(chunk, self.now)
            return
        self._back(chunk.items)
        self.whole = {item: last for item, last in self.whole.items() if item not in chunk.items}
        self.divider.halved(chunk, self.now)

    def _one(self, data: st.DataObject) -> Chunk[int]:
        return self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))

    def _back(self, items: Sequence[int]) -> None:
        if not self.is_stopped:
            self.waits = sorted([*self.waits, *items])

    @precondition(lambda self: not self.is_stopped)
    @rule()
    def it_stops(self) -> None:
        self.is_stopped = True
        self.waits = []
        self.divider.stop()

    @invariant()
    def each_item_is_in_one_place(self) -> None:
        if not hasattr(self, "divider"):
            return
        assert self.divider.waiting == len(self.waits)
        assert self.divider.under_way == len(self.under_way)
        here = [*self.waits, *items_of(self.under_way), *self.done]
        assert len(here) == len(set(here))
        assert self.is_stopped or sorted(here) == list(range(self.came))
        over = self.is_closed or self.is_stopped
        assert self.divider.is_finished == (over and not self.waits and not self.under_way)

    def teardown(self) -> None:
        """Whatever happened: what is offered places, and fails no more, comes to its end."""
        if not hasattr(self, "divider"):
            return
        self.divider.close()
        while not self.divider.is_finished:
            self.what_may_leave_leaves(fills=False)
            for chunk in self.under_way:
                self.done += chunk.items
                self.divider.ended(chunk, self.now, seconds=1e-3)
            self.under_way = []
            self.now += AGAIN_SECONDS
        assert self.is_stopped or sorted(self.done) == list(range(self.came)), "each ends once"


TestStream = Stream.TestCase
TestStream.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


# ---- order -----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 9), st.data())
def test_a_session_of_one_slot_begins_its_items_in_their_order(
    comes: list[int], size: int, data: st.DataObject
) -> None:
    divider: Divider[int] = Divider(Fixed(size), Rules(in_order=True))
    begun: list[int] = []
    came = 0
    for count in comes:
        divider.add(list(range(came, came + count)), 0.0)
        came += count
        for chunk in all_of(divider, 1, 0.0):
            done = data.draw(st.integers(0, len(chunk.items)))
            begun += chunk.items[:done]
            divider.ended(chunk, 0.0, left=chunk.items[done:])
    divider.close()
    while not divider.is_finished:
        (chunk,) = all_of(divider, 1, 0.0)
        begun += chunk.items
        divider.ended(chunk, 0.0)
    assert begun == list(range(came))


def test_what_was_given_back_goes_before_later_items_and_travels_alone() -> None:
    divider: Divider[int] = Divider(Fixed(4))
    divider.add(list(range(10)), 0.0)
    first, second = all_of(divider, 1, 0.0)
    divider.ended(second, 0.0, left=[6, 7])
    divider.ended(first, 0.0, left=[3])
    assert [chunk.items for chunk in all_of(divider, 2, 0.0)] == [[3], [6, 7], [8, 9]]


def test_halves_are_not_put_together_again() -> None:
    divider: Divider[int] = Divider(Fixed(4))
    divider.add(list(range(4)), 0.0)
    tried = []
    while (chunk := divider.next(2, 0.0)) is not None:
        tried.append(list(chunk.items))
        if 2 in chunk.items and len(chunk.items) > 1:
            divider.halved(chunk, 0.0)
    assert tried == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]


# ---- places ----------------------------------------------------------------------------------------------


def test_a_refused_chunk_waits_until_another_one_has_ended() -> None:
    divider: Divider[int] = Divider(Fixed(2))
    divider.add(list(range(10)), 0.0)
    first, second, _ = all_of(divider, 2, 0.0)[:3]
    divider.refused(second, 1.0)
    assert divider.next(5, 1e9) is None and divider.wakes_at(5) == math.inf
    divider.ended(first, 1.0)
    assert items_of(all_of(divider, 2, 1.0)) == [2, 3, 8, 9]


def test_a_chunk_that_is_refused_alone_is_tried_again_after_a_moment() -> None:
    divider: Divider[int] = Divider(Fixed(2))
    divider.add(list(range(4)), 0.0)
    for chunk in all_of(divider, 1, 0.0):
        divider.refused(chunk, 1.0)
    assert divider.next(1, 1.0) is None and divider.wakes_at(1) == 1.0 + AGAIN_SECONDS
    assert items_of(all_of(divider, 1, divider.wakes_at(1))) == [0, 1, 2, 3]


def test_calls_wait_for_a_place_and_no_longer_than_they_may_however_many_come() -> None:
    divider: Divider[int] = Divider(Fixed(1), Rules(hold_seconds=HOLD))
    divider.add([0], 0.0)
    divider.add([1], 0.0)
    assert items_of(all_of(divider, 1, 0.0)) == [0, 1]
    for number in range(2, 7):  # one more comes every hundredth of a second
        divider.add([number], number * 0.01)
        assert divider.next(1, number * 0.01) is None
    assert divider.wakes_at(1) == pytest.approx(0.02 + HOLD)
    assert items_of(all_of(divider, 1, 0.02 + HOLD)) == [2, 3, 4, 5, 6]
    divider.add([7], 0.08)
    assert divider.next(1, 0.08) is None, "a later one waits as they did"


def test_a_chunk_that_is_not_full_gathers_only_beside_others_and_for_a_moment() -> None:
    divider: Divider[int] = Divider(Fixed(4), Rules(gather_seconds=GATHER))
    divider.add([0], 0.0)
    (first,) = all_of(divider, 1, 0.0, fills=True)
    divider.add([1], 1.0)
    assert divider.next(1, 1.0, fills=True) is None and divider.wants(1, 1.0)
    divider.add([2, 3, 4], 1.0)
    assert items_of(all_of(divider, 1, 1.0, fills=True)) == [1, 2, 3, 4]
    divider.ended(first, 2.0)
    divider.add([5], 2.0)
    assert divider.next(1, 2.0, fills=True) is None and divider.wakes_at(1) == 2.0 + GATHER
    assert items_of(all_of(divider, 1, 2.0 + GATHER, fills=True)) == [5]


def test_nothing_is_wanted_where_no_more_comes_or_no_place_is_free() -> None:
    divider: Divider[int] = Divider(Fixed(1))
    assert divider.wants(1, 0.0)
    divider.add([0, 1], 0.0)
    assert not divider.wants(1, 0.0), "it waits already"
    all_of(divider, 1, 0.0)
    assert not divider.wants(1, 0.0) and divider.wants(2, 0.0)
    divider.close()
    assert not divider.wants(2, 0.0)


def test_several_items_go_to_a_worker_that_has_just_answered() -> None:
    divider: Divider[int] = Divider(Fixed(2))
    divider.add(list(range(9)), 0.0)
    (chunk, other) = all_of(divider, 1, 0.0)
    assert chunk.to is None
    divider.ended(chunk, 0.0, by="a")
    divider.ended(other, 0.0, by="b")
    assert [chunk.to for chunk in all_of(divider, 5, 0.0)] == ["b", "a", None]
    assert repr(divider) == "<Divider 0 waiting, 3 chunks under way>"
    for _ in range(10 * MOST_FREE):
        divider.add([1], 0.0)
        for lone in all_of(divider, 5, 0.0):
            assert lone.to is None
            divider.ended(lone, 0.0, by="c")
    divider.add([1, 2] * 10 * MOST_FREE, 0.0)
    assert sum(chunk.to is not None for chunk in all_of(divider, 10 * MOST_FREE, 0.0)) == MOST_FREE


def test_only_what_is_known_is_observed() -> None:
    sizing = Fixed(4)
    divider: Divider[int] = Divider(sizing)
    divider.add(list(range(12)), 0.0)
    first, second = all_of(divider, 1, 0.0)
    divider.ended(first, 0.0, left=[2, 3], seconds=0.5, nbytes=7)
    divider.ended(second, 0.0, left=second.items, seconds=0.5)
    (again, *_) = all_of(divider, 1, 0.0)
    divider.ended(again, 0.0)
    assert sizing.seen == [(2, 0.5, 7)]


def test_a_chunk_ends_once() -> None:
    divider: Divider[int] = Divider(Fixed(4))
    divider.add([1], 0.0)
    (chunk,) = all_of(divider, 1, 0.0)
    divider.ended(chunk, 0.0)
    with pytest.raises(KeyError):
        divider.ended(chunk, 0.0)


# ---- sizes -----------------------------------------------------------------------------------------------


@given(st.integers(1, 5_000), st.integers(1, 64))
def test_a_burst_is_cut_into_equal_parts(calls: int, slots: int) -> None:
    divider: Divider[int] = Divider(BurstSize())
    divider.add(range(calls), 0.0)
    sizes = [len(chunk.items) for chunk in all_of(divider, slots, 0.0)]
    assert len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0] <= MOST
    assert sum(sizes) == min(calls, 2 * slots * MOST)
    assert len(sizes) <= slots or sizes[0] == MOST


@given(st.integers(1, 20_000), st.integers(1, 32), st.floats(1e-6, 1.0))
def test_a_whole_batch_is_shared_out_to_its_end(total: int, slots: int, each: float) -> None:
    divider: Divider[int] = Divider(WholeSize(total, slots))
    divider.add_apart(range(total), 0.0)
    divider.close()
    sizes = []
    while not divider.is_finished:
        share = math.ceil(divider.waiting / slots)
        for chunk in all_of(divider, slots, 0.0):
            size = len(chunk.items)
            is_last_share = size <= share or size * each <= MOVE_SECONDS * 1.0001
            assert is_last_share, "nobody is the last by more than that, or by what a message costs"
            assert sizes or size <= FIRST_SIZE, "nothing is known yet"
            sizes.append(size)
            divider.ended(chunk, 0.0, seconds=each * size)
    assert sum(sizes) == total


@given(st.integers(1, 100_000), st.integers(1, 200), st.integers(1, 64), st.floats(1e-6, 1.0))
def test_the_chunks_of_a_source_have_what_fits_or_what_was_asked_for(
    in_flight: int, chunk_size: int, slots: int, each: float
) -> None:
    free, bounded, fixed = SourceSize(), SourceSize(None, in_flight), SourceSize(chunk_size)
    policy = BatchSize()
    for _ in range(10):
        assert free.next_size(1, slots, 1) == policy.size
        assert fixed.next_size(1, slots, 1) == chunk_size
        size = bounded.next_size(1, slots, 1)
        assert size == 1 or size * slots * bounded.ahead <= in_flight
        for sizing in (free, bounded, fixed, policy):
            sizing.observe(policy.size, policy.size * each)
