"""When a storm strikes and sends: the same seed, the same plan."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from snakepit_ray.errors import ConfigError
from snakepit_ray.testing.plan import MIXTURES, Strike, Target, moments, plan_strikes


@pytest.mark.parametrize("kill", MIXTURES)
def test_the_same_seed_gives_the_same_plan(kill: str) -> None:
    one, same, other = (plan_strikes(kill, 40, 20.0, random.Random(seed)) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(("kills", "seconds"), [(1, 5.0), (60, 60.0), (7, 0.5)])
def test_one_strike_in_each_share_of_the_time(kills: int, seconds: float) -> None:
    strikes = plan_strikes("everything", kills, seconds, random.Random(3))
    share = seconds / kills
    assert [int(strike.at / share) for strike in strikes] == list(range(kills))


def test_everything_has_a_part_of_each() -> None:
    targets = Counter(strike.target for strike in plan_strikes("everything", 61, 60.0, random.Random(0)))
    assert targets == {Target.INTERPRETER: 37, Target.ACTOR: 18, Target.ROUTER: 6}
    only = plan_strikes("actors", 5, 1.0, random.Random(0))
    assert {strike.target for strike in only} == {Target.ACTOR}


def test_no_strikes_and_unknown_ones() -> None:
    assert plan_strikes("router", 0, 10.0, random.Random(0)) == []
    with pytest.raises(ConfigError, match="interpreters, actors, router, everything"):
        plan_strikes("nobody", 1, 1.0, random.Random(0))


def test_a_strike_chooses_among_those_alive() -> None:
    assert [Strike(0.0, Target.ACTOR, choice).victim("abcd") for choice in (0.0, 0.5, 0.999)] == list("acd")


def test_callers_together_send_evenly() -> None:
    sent = [list(moments(10.0, 2.0, caller, 3)) for caller in range(3)]
    assert sorted(at for moments_ in sent for at in moments_) == pytest.approx([n / 10 for n in range(20)])
    assert max(map(len, sent)) - min(map(len, sent)) <= 1
    assert list(moments(0.1, 5.0, 1, 2)) == []
