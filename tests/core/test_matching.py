"""The matcher: no slot twice, nobody forgotten, stale facts are cheap."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.routing.matching import LOST, Matcher, Move, Rebalancer


class Pool:
    """A matcher and the counters that its workers would send."""

    def __init__(self, *keys: str) -> None:
        self.matcher: Matcher[str] = Matcher()
        self.arrived: Counter[str] = Counter()
        self.ordered: Counter[str] = Counter()
        for key in keys:
            self.matcher.join(key)

    def report(self, key: str, free: int, movable: int, now: float = 0.0) -> list[Move[str]]:
        return self.matcher.report(
            key, free, movable, now, arrived=self.arrived[key], ordered=self.ordered[key]
        )

    def carry_out(self, moves: list[Move[str]]) -> None:
        for move in moves:
            self.ordered[move.source] += move.count
            self.arrived[move.target] += move.count


def test_whoever_appears_second_is_matched_at_once() -> None:
    pool = Pool("a", "b")
    assert pool.report("a", 0, 2) == []
    assert pool.report("b", 1, 0) == [Move("a", "b", 1)]
    pool = Pool("a", "b")
    assert pool.report("b", 3, 0) == []
    assert pool.report("a", 0, 2) == [Move("a", "b", 2)]
    assert (pool.matcher.free, pool.matcher.starving) == (1, 0)


def test_a_report_that_crossed_a_move_does_not_give_the_slot_away_again() -> None:
    pool = Pool("a", "b", "c")
    pool.report("a", 0, 1)
    moves = pool.report("b", 1, 0)
    pool.report("c", 0, 1)
    assert pool.report("b", 1, 0) == [], "the delegate is under way"
    pool.carry_out(moves)
    assert pool.report("b", 1, 0) == [Move("c", "b", 1)]


def test_a_source_is_not_asked_twice_for_the_same_request() -> None:
    pool = Pool("a", "b", "c")
    pool.report("b", 1, 0)
    pool.report("a", 0, 1)
    assert pool.report("a", 0, 1) == []
    assert pool.report("c", 1, 0) == []


def test_longest_starving_first_and_latest_free_first() -> None:
    pool = Pool("a", "b", "c", "d")
    pool.report("a", 0, 1)
    pool.report("b", 0, 1)
    pool.report("a", 0, 2)
    assert pool.report("c", 3, 0) == [Move("a", "c", 2), Move("b", "c", 1)]
    pool = Pool("a", "b", "c")
    pool.report("a", 1, 0)
    pool.report("b", 1, 0)
    pool.report("a", 1, 0)
    assert pool.report("c", 0, 1) == [Move("c", "a", 1)]


def test_a_refusal_empties_the_target_unless_it_has_spoken_since() -> None:
    pool = Pool("a", "b", "c")
    pool.report("b", 4, 0)
    moves = pool.report("a", 0, 1)
    pool.matcher.refused("a", "b", 0.01)
    assert pool.report("a", 0, 1, 0.01) == []
    pool.carry_out(moves)
    pool.report("b", 2, 0, 0.02)
    pool.matcher.refused("a", "b", 0.03)
    assert pool.matcher.free > 0


def test_an_unused_move_frees_the_target_for_the_next_source() -> None:
    pool = Pool("a", "b", "c")
    pool.report("a", 0, 1)
    pool.report("b", 1, 0)
    pool.report("c", 0, 1)
    assert pool.matcher.unused("a", "b", 1, 0.01) == [Move("c", "b", 1)]


def test_a_draining_worker_gives_and_does_not_take() -> None:
    pool = Pool("a", "b", "c")
    pool.report("a", 1, 0)
    pool.matcher.leave("a")
    assert pool.matcher.free == 0
    assert pool.report("a", 1, 2) == []
    assert pool.report("b", 1, 0) == [Move("a", "b", 1)]
    pool.matcher.gone("a")
    assert pool.report("c", 1, 0) == []
    assert pool.report("a", 1, 0) == [], "unknown workers count for nothing"
    assert repr(pool.matcher) == "<Matcher 2 workers, 0 starving, 1 free>"


def test_a_lost_move_is_written_off_and_made_again() -> None:
    pool = Pool("a", "b")
    pool.report("a", 0, 1)
    pool.report("b", 1, 0)
    assert pool.report("b", 1, 0, LOST / 2) == []
    assert pool.report("b", 1, 0, LOST) == [Move("a", "b", 1)], "nobody will ever see the first"


def test_a_move_that_was_late_only_is_not_counted_twice() -> None:
    pool = Pool("a", "b", "c")
    pool.report("a", 0, 1)
    late = pool.report("b", 1, 0)
    again = pool.report("b", 1, 0, LOST)
    pool.carry_out(late + again)
    assert pool.report("a", 0, 0, LOST) == []
    assert pool.report("b", 1, 0, LOST) == []
    assert pool.matcher.free == 1
    assert pool.report("c", 0, 2, LOST) == [Move("c", "b", 1)]


def test_without_push_moves_travel_in_the_answer_to_their_source_only() -> None:
    matcher: Matcher[str] = Matcher()
    for key in "abc":
        matcher.join(key)
    quiet = {"arrived": 0, "ordered": 0, "push": False}
    assert matcher.report("a", 0, 1, 0.0, **quiet) == []
    assert matcher.report("b", 0, 1, 0.0, **quiet) == []
    assert matcher.report("c", 1, 0, 0.0, **quiet) == []
    assert matcher.report("b", 0, 1, 0.0, **quiet) == [Move("b", "c", 1)]
    assert matcher.unused("b", "c", 1, 0.0, push=False) == []
    assert matcher.report("a", 0, 1, 0.0, **quiet) == [Move("a", "c", 1)]


def test_the_matcher_fills_the_place_of_the_policy() -> None:
    policy: Rebalancer[str] = Matcher()
    policy.join("a")
    assert policy.report("a", 1, 0, 0.0, arrived=0, ordered=0) == []


KEYS = st.sampled_from("abcd")
REPORTS = st.tuples(KEYS, st.integers(0, 3), st.integers(0, 3), st.booleans())


@given(st.lists(REPORTS, max_size=60))
def test_between_two_reports_no_worker_gives_or_takes_more_than_it_had(
    steps: list[tuple[str, int, int, bool]],
) -> None:
    pool = Pool(*"abcd")
    taken: Counter[str] = Counter()
    given_away: Counter[str] = Counter()
    had_free: Counter[str] = Counter()
    had_waiting: Counter[str] = Counter()
    pending: list[Move[str]] = []
    for key, free, waiting, delivered in steps:
        if delivered:
            pool.carry_out(pending)
            for move in pending:
                taken[move.target] -= move.count
                given_away[move.source] -= move.count
            pending = []
        waiting = 0 if free else waiting
        had_free[key], had_waiting[key] = free, waiting
        for other in "abcd":  # what is under way counts against the newest report
            had_free[other] = max(had_free[other], taken[other])
            had_waiting[other] = max(had_waiting[other], given_away[other])
        moves = pool.report(key, free, waiting)
        pending += moves
        for move in moves:
            assert move.source != move.target
            taken[move.target] += move.count
            given_away[move.source] += move.count
        assert all(taken[k] <= had_free[k] and given_away[k] <= had_waiting[k] for k in "abcd")
        assert not (pool.matcher.free and pool.matcher.starving), "whoever can be matched is matched"
        assert pool.matcher.free == sum(pool.matcher._free.values())
        assert pool.matcher.starving == sum(pool.matcher._starving.values())
