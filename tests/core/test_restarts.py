"""The restart budget against a naive history, loss by loss, and in storms."""

from __future__ import annotations

from itertools import pairwise
from math import comb
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from snakepit_ray.core.worker.restarts import Quarantine, Restart, RestartBudget, RestartPolicy

DEFAULT = RestartPolicy()
RANDOM = st.floats(0, 0.999999)  # below 1, by more than rounding takes away
POLICIES = st.builds(
    RestartPolicy,
    fruitless=st.integers(1, 6),
    burst=st.integers(1, 8),
    window=st.sampled_from([2.0, 5.0]),
    most_delay=st.sampled_from([0.1, 0.5, 10.0]),
    most_quarantine=st.sampled_from([30.0, 100.0, 600.0]),
)


def fail(budget: RestartBudget, now: float = 0.0, random: float = 0.5) -> Restart | Quarantine:
    """A loss after no good work."""
    return budget.lost(now, served=0, lived=0.0, random=random)


class BudgetAgainstHistory(RuleBasedStateMachine):
    """The model: every loss since the last quarantine, and whether good work came before it."""

    @initialize(policy=POLICIES)
    def begin(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.budget = RestartBudget(policy)
        self.history: list[tuple[float, bool]] = []
        self.carried = 0  # what a quarantine leaves of the row of fruitless losses
        self.quarantines = 0
        self.now = 0.0

    @rule(half_seconds=st.integers(0, 6))  # on a grid, so that the edge of the window is met
    def wait(self, half_seconds: int) -> None:
        self.now += half_seconds / 2

    @rule(served=st.integers(0, 2), lived=st.sampled_from([0.0, 9.9, 10.0, 99.0]), random=RANDOM)
    def lose(self, served: int, lived: float, random: float) -> None:
        steady = lived >= self.policy.steady
        self.quarantines = 0 if steady else self.quarantines
        self.history.append((self.now, served > 0 or steady))
        verdict = self.budget.lost(self.now, served=served, lived=lived, random=random)
        if self.row() >= self.policy.fruitless or self.lately() >= self.policy.burst:
            self.is_quarantine(verdict)
        else:
            self.is_restart(verdict)

    def row(self) -> int:
        """Fruitless losses in a row."""
        for back, (_, good) in enumerate(reversed(self.history)):
            if good:
                return back
        return len(self.history) + self.carried

    def lately(self) -> int:
        return sum(at > self.now - self.policy.window for at, _ in self.history)

    def is_restart(self, verdict: Restart | Quarantine) -> None:
        assert isinstance(verdict, Restart)
        if self.row() < 2:
            assert verdict.delay == 0.0, "the first replacement comes at once"
            return
        doubled = min(self.policy.most_delay, self.policy.first_delay * 2 ** (self.row() - 2))
        assert doubled / 2 <= verdict.delay <= doubled

    def is_quarantine(self, verdict: Restart | Quarantine) -> None:
        assert isinstance(verdict, Quarantine)
        doubled = min(self.policy.most_quarantine, self.policy.quarantine * 2**self.quarantines)
        assert doubled * 0.75 <= verdict.seconds <= doubled
        assert (verdict.losses, verdict.window) == (self.lately(), self.policy.window)
        self.quarantines += 1
        self.history.clear()
        self.carried = self.policy.fruitless - 1

    @invariant()
    def agrees(self) -> None:
        assert self.budget.fruitless == self.row()


TestBudgetAgainstHistory = BudgetAgainstHistory.TestCase
TestBudgetAgainstHistory.settings = settings(stateful_step_count=40, deadline=None)


@given(served=st.integers(0, 9), lived=st.floats(0, 1e6), random=RANDOM)
def test_the_first_replacement_comes_at_once(served: int, lived: float, random: float) -> None:
    assert RestartBudget().lost(5.0, served=served, lived=lived, random=random) == Restart(0.0)


@given(st.lists(RANDOM, min_size=12, max_size=12))
def test_each_fruitless_loss_waits_longer_up_to_the_bound(randoms: list[float]) -> None:
    budget = RestartBudget(RestartPolicy(fruitless=13))
    verdicts = [fail(budget, random=random) for random in randoms]
    delays = [verdict.delay for verdict in verdicts if isinstance(verdict, Restart)]
    assert len(delays) == 12
    assert all(later > sooner for sooner, later in pairwise(delays[:8])), "whatever the jitter"
    assert all(5.0 <= delay <= 10.0 for delay in delays[9:]), "0.1 s doubled seven times is beyond the bound"


def test_jitter_keeps_those_apart_that_failed_together() -> None:
    delays = set()
    for random in (0.0, 0.25, 0.5, 0.999):
        budget = RestartBudget()
        fail(budget)
        verdict = fail(budget, random=random)
        assert isinstance(verdict, Restart)
        delays.add(round(verdict.delay, 3))
    assert delays == {0.05, 0.062, 0.075, 0.1}


@pytest.mark.parametrize("good", [{"served": 1, "lived": 0.1}, {"served": 0, "lived": DEFAULT.steady}])
def test_good_work_in_between_forgives_what_was_fruitless(good: dict[str, float]) -> None:
    budget = RestartBudget()
    for _ in range(DEFAULT.fruitless - 1):
        assert isinstance(fail(budget), Restart)
    assert budget.lost(1.0, served=int(good["served"]), lived=good["lived"], random=0.5) == Restart(0.0)
    for _ in range(DEFAULT.fruitless - 1):
        assert isinstance(fail(budget, 2.0), Restart)
    assert isinstance(fail(budget, 2.0), Quarantine)


def test_too_many_losses_within_the_window_are_too_many_whatever_it_did() -> None:
    budget = RestartBudget()
    step = DEFAULT.window / DEFAULT.burst  # the burst's losses lie just within the window
    verdicts = [budget.lost(i * step, served=9, lived=step, random=0.5) for i in range(DEFAULT.burst)]
    assert verdicts[:-1] == [Restart(0.0)] * (DEFAULT.burst - 1)
    assert isinstance(verdicts[-1], Quarantine)
    assert verdicts[-1].losses == DEFAULT.burst


def test_as_many_spread_wider_are_not() -> None:
    budget = RestartBudget()
    step = DEFAULT.window / (DEFAULT.burst - 1) * 1.000001  # of floats, none falls just within
    for i in range(10 * DEFAULT.burst):
        assert budget.lost(i * step, served=9, lived=step, random=0.5) == Restart(0.0)


@given(st.lists(RANDOM, min_size=8, max_size=8))
def test_each_quarantine_in_a_row_is_longer_up_to_the_cap(randoms: list[float]) -> None:
    budget = RestartBudget()
    for _ in range(DEFAULT.fruitless - 1):
        fail(budget)
    verdicts = [fail(budget, 700.0 * i, random) for i, random in enumerate(randoms)]
    seconds = [verdict.seconds for verdict in verdicts if isinstance(verdict, Quarantine)]
    assert len(seconds) == 8, "after a quarantine it has one chance, not a whole new budget"
    assert 22.5 <= seconds[0] <= 30
    assert all(later > sooner for sooner, later in pairwise(seconds[:5]))
    assert all(450 <= last <= 600 for last in seconds[5:])


def test_only_a_steady_life_makes_the_next_quarantine_short_again() -> None:
    def quarantined(served: int, lived: float) -> float:
        budget = RestartBudget()
        while not isinstance(fail(budget), Quarantine):
            pass
        budget.lost(100.0, served=served, lived=lived, random=0.5)
        while not isinstance(verdict := fail(budget, 200.0), Quarantine):
            pass
        return verdict.seconds

    assert quarantined(0, DEFAULT.steady) == 30 * 0.875
    assert quarantined(5, DEFAULT.steady - 0.1) == 60 * 0.875


def test_a_worker_that_fails_for_weeks_goes_on_trying() -> None:
    """Doubling without end is no number any more: 2.0**1024 raised, after a week of quarantines."""
    budget = RestartBudget()
    for i in range(3000):
        verdict = fail(budget, 700.0 * i, 0.999)
    assert isinstance(verdict, Quarantine)
    assert verdict.seconds <= DEFAULT.most_quarantine
    patient = RestartBudget(RestartPolicy(fruitless=3000, burst=3000))
    assert all(isinstance(fail(patient, 60.0 * i), Restart) for i in range(2999))


def test_repr_is_a_status_line() -> None:
    budget = RestartBudget()
    fail(budget)
    budget.lost(1.0, served=1, lived=1.0, random=0.5)
    fail(budget, 2.0)
    assert repr(budget) == "<RestartBudget 3 losses lately, 1 fruitless in a row>"


# ---- whole stories --------------------------------------------------------------------------------------


def until_quarantine(serves: int, lives: float, starts_in: float, random: Random) -> tuple[float, int]:
    """Seconds and losses until a worker whose interpreters all end alike is quarantined."""
    budget, now = RestartBudget(), 0.0
    for losses in range(1, 1000):
        now += starts_in + lives
        verdict = budget.lost(now, served=serves, lived=lives, random=random.random())
        if isinstance(verdict, Quarantine):
            return now, losses
        now += verdict.delay
    raise AssertionError("never quarantined")


@pytest.mark.parametrize("lives", [0.0, 0.05], ids=["dies at its start", "crashes on every request"])
def test_what_can_never_work_is_quarantined_within_seconds(lives: float) -> None:
    seconds, losses = until_quarantine(0, lives, 0.3, Random(1))
    assert losses == DEFAULT.fruitless
    assert seconds < 6.0


def test_what_serves_one_request_and_crashes_on_the_next_is_quarantined_too() -> None:
    seconds, losses = until_quarantine(1, 0.2, 0.3, Random(1))
    assert losses == DEFAULT.burst
    assert seconds < DEFAULT.window / 2


KILLS, SECONDS, WORKERS = 60, 60.0, 8


def storm(seed: int, serves: float, starts_in: float) -> int:
    """Quarantines while a pool is shot at; an interpreter has served with that probability, once it is up."""
    random = Random(seed)
    budgets = [RestartBudget() for _ in range(WORKERS)]
    up_at, quarantines = [0.0] * WORKERS, 0
    for now in sorted(random.uniform(0, SECONDS) for _ in range(KILLS)):
        hit = random.randrange(WORKERS)
        lived = max(0.0, now - up_at[hit])
        served = int(lived > 0 and random.random() < serves)
        verdict = budgets[hit].lost(now, served=served, lived=lived, random=random.random())
        quarantines += isinstance(verdict, Quarantine)
        up_at[hit] = now + starts_in + verdict[0]  # either one's seconds
    return quarantines


def row_of_fruitless(kills: int, fruitless: float) -> float:
    """The probability that so many kills have DEFAULT.fruitless fruitless ones in a row."""
    rows, hit = [1.0] + [0.0] * (DEFAULT.fruitless - 1), 0.0
    for _ in range(kills):
        hit += rows[-1] * fruitless
        rows = [sum(rows) * (1 - fruitless), *(row * fruitless for row in rows[:-1])]
    return hit


def kills_of_one(kills: int) -> float:
    """The probability that one worker is hit so often in a storm."""
    hit = 1 / WORKERS
    return comb(KILLS, kills) * hit**kills * (1 - hit) ** (KILLS - kills)


def test_a_storm_of_kills_spends_no_working_pools_budget() -> None:
    """One kill a second for a minute, 8 workers, each of which served between two kills 9 times in 10:

    by fruitless losses in a row 2.6 storms in 10,000 quarantine a worker, at most (a union bound, which
    leaves out that a long life is good work too); by the burst, none in 10 billion."""
    by_row = WORKERS * sum(kills_of_one(n) * row_of_fruitless(n, 0.1) for n in range(KILLS + 1))
    by_burst = WORKERS * sum(kills_of_one(n) for n in range(DEFAULT.burst, KILLS + 1))
    assert by_row < 3e-4
    assert by_burst < 1e-10


@pytest.mark.parametrize(
    ("serves", "starts_in", "storms_in_1000"),
    [(1.0, 0.0, 0), (0.9, 0.0, 1), (0.99, 0.5, 1), (0.9, 0.5, 4)],
    ids=["busy", "served 9 in 10", "busy, hit while it starts", "served 9 in 10, hit while it starts"],
)
def test_simulated_storms_agree(serves: float, starts_in: float, storms_in_1000: int) -> None:
    """Half a second to start is half a second in which a kill is fruitless by nature."""
    quarantined = sum(storm(seed, serves, starts_in) > 0 for seed in range(3000))
    assert quarantined <= 3 * storms_in_1000
