"""Who is hung: looks at interpreters that work, think, sleep, stand still."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from snakepit_ray.core.worker.health import Look, Pulse

TIMEOUT = 10.0
TICK = 0.01  # what the system counts processor time in


class Glance(NamedTuple):
    """A look as a test draws it: `ticks` of processor time since the one before; None: it cannot be read."""

    pause: float
    answered: bool
    ticks: int | None
    working: bool


PAUSES = st.integers(1, 12).map(lambda halves: halves / 2)  # on a grid, so that the timeout itself is met
TICKS = st.integers(0, 3)
GLANCES = st.lists(
    st.builds(Glance, PAUSES, st.booleans(), st.none() | TICKS, st.booleans()), min_size=1, max_size=30
)


def looks(glances: list[Glance], born_with: int = 0) -> list[Look]:
    """What those glances see: times and processor times since the beginning."""
    now, ticks, seen = 100.0, born_with, []
    for glance in glances:
        now += glance.pause
        ticks += glance.ticks or 0
        cpu = None if glance.ticks is None else ticks * TICK
        seen.append(Look(now, glance.answered, cpu, glance.working))
    return seen


def verdicts(glances: list[Glance], born_with: int = 0) -> list[bool]:
    """Whether it was hung, at each look."""
    pulse = Pulse(100.0, TIMEOUT)
    return [pulse.look(look) for look in looks(glances, born_with)]


def hung_since(glances: list[Glance]) -> list[bool]:
    """The model, in ticks: silent for the timeout since the last sign of life."""
    now = alive_at = 0.0
    known = ticks = 0
    hung = []
    for glance in glances:
        now += glance.pause
        advanced = False
        if glance.ticks is not None:
            ticks += glance.ticks
            advanced = ticks > known
            known = ticks
        if glance.answered or (glance.working and advanced):
            alive_at = now
        hung.append(now - alive_at >= TIMEOUT)
    return hung


@given(GLANCES)
def test_hung_is_silent_for_the_timeout_since_the_last_sign_of_life(glances: list[Glance]) -> None:
    assert verdicts(glances) == hung_since(glances)


@given(GLANCES)
def test_silence_and_failures_are_counted_from_the_last_answer(glances: list[Glance]) -> None:
    pulse = Pulse(100.0, TIMEOUT)
    failures = 0
    for look in looks(glances):
        hung = pulse.look(look)
        failures = 0 if look.answered else failures + 1
        assert pulse.failures == failures
        assert hung is (pulse.silent_for(look.now) >= TIMEOUT)
        assert not (look.answered and hung)


@given(st.lists(PAUSES, min_size=1), st.integers(1, 300), st.integers(0, 10**6))
def test_a_command_that_holds_the_lock_and_computes_is_never_hung(
    pauses: list[float], ticks: int, born_with: int
) -> None:
    assert not any(verdicts([Glance(pause, False, ticks, True) for pause in pauses], born_with))


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_one_tick_is_an_advance_at_any_age(user: int, system: int) -> None:
    """In floats 0.29 - 0.28 is less than 0.01: a busy machine gives a long command a tick at a time."""
    pulse = Pulse(0.0, TIMEOUT)
    pulse.look(Look(1.0, True, user / 100 + system / 100, True))
    assert not pulse.look(Look(20.0, False, (user + 1) / 100 + system / 100, True))


@given(st.lists(PAUSES, min_size=1), st.booleans(), st.integers(0, 10**6))
def test_one_that_is_stopped_is_hung_after_the_timeout_working_or_not(
    pauses: list[float], working: bool, cpu: int
) -> None:
    pulse = Pulse(100.0, TIMEOUT)
    pulse.look(Look(100.0, True, cpu * TICK, working))
    now = 100.0
    for pause in pauses:
        now += pause
        assert pulse.look(Look(now, False, cpu * TICK, working)) is (now - 100.0 >= TIMEOUT)


@given(st.lists(st.tuples(PAUSES, TICKS), min_size=1))
def test_one_that_is_idle_and_deaf_is_hung_even_if_it_spins(glances: list[tuple[float, int]]) -> None:
    assume(sum(pause for pause, _ in glances) >= TIMEOUT)
    assert verdicts([Glance(pause, False, ticks, False) for pause, ticks in glances])[-1]


@given(st.lists(PAUSES, min_size=1), st.booleans())
def test_processor_time_that_cannot_be_read_stands_still(pauses: list[float], working: bool) -> None:
    assume(sum(pauses) >= TIMEOUT)
    assert verdicts([Glance(pause, False, None, working) for pause in pauses])[-1]


def test_what_was_used_while_nobody_could_read_it_counts_at_the_next_reading() -> None:
    unread = Glance(4.0, False, None, True)
    assert verdicts([Glance(4.0, True, 5, True), unread, unread, Glance(4.0, False, 1, True)])[-1] is False
    assert verdicts([Glance(4.0, True, 5, True), unread, unread, Glance(4.0, False, 0, True)])[-1] is True


@pytest.mark.parametrize(("working", "hung"), [(True, False), (False, True)])
def test_the_first_look_has_only_birth_to_compare_with(working: bool, hung: bool) -> None:
    """A command that computes from its first moment is not hung, however late the first look comes; so one
    that was stopped before it is found out one look later."""
    first = Glance(12.0, False, 0, working)
    assert verdicts([first], born_with=150) == [hung]
    assert verdicts([first, Glance(TIMEOUT, False, 0, working)], born_with=150)[-1]


def test_a_loaded_machine_that_starves_it_for_less_than_the_timeout_is_forgiven() -> None:
    starved, fed = Glance(3.0, False, 0, True), Glance(3.0, False, 1, True)
    assert not any(verdicts([starved, starved, fed] * 10))
    assert verdicts([fed, starved, starved, starved, starved]) == [False, False, False, False, True]
