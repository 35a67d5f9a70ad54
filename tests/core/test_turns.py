"""A session's requests pass in the order in which their caller numbered them."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.sessions.turns import Turns, Turnstile

KEY = ("caller", "alice")


def test_numbers_rise_and_what_has_ended_is_known_up_to_the_first_that_has_not() -> None:
    turns = Turns()
    assert [turns.take("a") for _ in range(3)] == [(1, 0), (2, 0), (3, 0)]
    turns.done("a", 2)
    assert turns.take("a") == (4, 0)
    turns.done("a", 1)
    assert turns.take("a") == (5, 2)
    assert turns.take("b") == (1, 0)
    turns.done("nobody", 7)


def test_a_session_that_is_forgotten_begins_anew() -> None:
    turns = Turns(most=2)
    for session in ("a", "b", "c"):
        turns.take(session)
    assert turns.take("a") == (1, 0)


def test_a_request_waits_for_the_one_before_it() -> None:
    stile, gone = Turnstile(), []
    assert stile.may_pass(KEY, 1, 0)
    assert not stile.may_pass(KEY, 2, 0)
    stile.wait(KEY, 2, lambda: gone.append(2))
    stile.wait(KEY, 3, lambda: gone.append(3))
    stile.passed(KEY, 1)
    assert gone == [2]
    stile.passed(KEY, 2)
    assert gone == [2, 3]
    stile.passed(KEY, 3)
    assert stile.waiting == 0
    assert stile.may_pass(KEY, 4, 0)


def test_what_has_ended_for_the_caller_is_not_waited_for() -> None:
    stile = Turnstile()  # of another worker than the session's earlier requests were at
    assert stile.may_pass(KEY, 8, 7)
    assert not stile.may_pass(KEY, 8, 6)
    assert stile.may_pass(("another caller", "alice"), 1, 0)


def test_one_that_was_given_up_is_passed_over() -> None:
    stile, gone = Turnstile(), []
    stile.wait(KEY, 3, lambda: gone.append(3))
    stile.wait(KEY, 4, lambda: gone.append(4))
    stile.leave(KEY, 3)  # it waited for 2 as long as it may
    stile.passed(KEY, 3)
    assert gone == [4]
    assert stile.may_pass(KEY, 2, 0)  # late: it passes at once


def test_sessions_that_were_used_longest_ago_are_forgotten() -> None:
    stile = Turnstile(most=2)
    for name in "abc":
        stile.passed(("caller", name), 5)
    assert len(stile) == 2
    assert not stile.may_pass(("caller", "a"), 6, 0)
    assert stile.may_pass(("caller", "c"), 6, 0)


@given(st.integers(0, 10**6), st.integers(1, 30))
def test_in_whatever_order_they_arrive_they_pass_in_their_own(seed: int, count: int) -> None:
    stile, passed = Turnstile(), []

    def arrive(number: int) -> None:
        def go() -> None:
            passed.append(number)
            stile.passed(KEY, number)

        if stile.may_pass(KEY, number, 0):
            go()
        else:
            stile.wait(KEY, number, go)

    numbers = list(range(1, count + 1))
    random.Random(seed).shuffle(numbers)
    for number in numbers:
        arrive(number)
    assert passed == sorted(numbers)
    assert stile.waiting == 0
