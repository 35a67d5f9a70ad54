"""Calls that no thread waits for end by themselves; no Ray."""

from __future__ import annotations

import threading
import time

from snakepit_ray.client.pending import Pending

WAIT = 60


class Origin:
    def __init__(self) -> None:
        self.current = True

    def is_current(self) -> bool:
        return self.current


class Outcome:
    """What a ticket was told, once."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self.known = threading.Event()

    def __call__(self, is_over: bool) -> None:
        self.told.append(is_over)
        self.known.set()


def test_a_deadline_that_passes_is_told_and_a_later_one_is_not_held_up() -> None:
    pending, first, second = Pending(), Outcome(), Outcome()
    pending.arm(Origin(), time.monotonic() + 3600, second)
    pending.arm(Origin(), time.monotonic() + 0.05, first)
    assert first.known.wait(WAIT)
    assert first.told == [False]
    assert second.told == []
    assert len(pending) == 1


def test_what_has_its_outcome_is_told_nothing_and_forgotten() -> None:
    pending, first, second = Pending(), Outcome(), Outcome()
    ticket = pending.arm(Origin(), time.monotonic() + 0.05, first)
    ticket.disarm()
    pending.arm(Origin(), time.monotonic() + 0.1, second)
    assert second.known.wait(WAIT)
    assert first.told == []
    assert len(pending) == 0


def test_all_of_a_ray_session_that_is_over_end_at_once_and_no_others() -> None:
    pending, origin, other = Pending(), Origin(), Origin()
    outcomes, stranger = [Outcome() for _ in range(3)], Outcome()
    for outcome in outcomes:
        pending.arm(origin, time.monotonic() + 3600, outcome)
    pending.arm(other, time.monotonic() + 3600, stranger)
    origin.current = False
    assert all(outcome.known.wait(WAIT) for outcome in outcomes)
    assert [outcome.told for outcome in outcomes] == [[True]] * 3
    assert stranger.told == []


def test_one_that_cannot_be_told_ends_the_watch_of_no_other() -> None:
    pending, second = Pending(), Outcome()

    def broken(is_over: bool) -> None:
        raise RuntimeError("broken")

    pending.arm(Origin(), time.monotonic(), broken)
    pending.arm(Origin(), time.monotonic() + 0.05, second)
    assert second.known.wait(WAIT)
