"""What workers and interpreters read from their copies is linearizable, whatever happens to their messages
and to them; and what is kept, counted and forgotten."""

from __future__ import annotations

import random
from typing import Any

import pytest

from snakepit_ray.core.state import copies as module
from snakepit_ray.core.state.asked import Data, Ended, Found, Versioned
from snakepit_ray.core.state.copies import Copies, Terms
from snakepit_ray.core.state.leases import LEASE_SECONDS, Lease
from tests.core.copies_world import CopiesWorld, Worker
from tests.core.state_world import histories

WEIGHTS = {
    "message": 16, "ask": 6, "read_the_copy": 6, "writes": 1, "set": 1, "store_commits": 3,
    "read_the_store": 1, "time_passes": 1, "stand_still_or_go_on": 0.3, "store_dies": 0.15, "dies": 0.25,
}  # fmt: skip


def test_no_history_is_broken() -> None:
    histories(CopiesWorld, WEIGHTS, 100)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_history_of_many_is_broken() -> None:
    histories(CopiesWorld, WEIGHTS, 30_000)


# ---- each rule is needed -----------------------------------------------------------------------------------


def _the_word_does_not_change(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Copies, "_end", lambda self, word: None)


def _what_was_let_go_of_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Copies, "_is_gone", lambda self, session, lease: False)


def _the_interpreter_looks_at_no_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CopiesWorld, "is_good", lambda self, words, terms: words[terms.word] == terms.stamp)


def _the_interpreter_looks_at_no_word(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CopiesWorld, "is_good", lambda self, words, terms: self.now < terms.ends)


def _a_copy_outlives_its_lease(patch: pytest.MonkeyPatch) -> None:
    real = Copies.asks

    def asks(self: Copies, session: str, now: float) -> Terms:
        return real(self, session, now)._replace(ends=now + 2 * LEASE_SECONDS)

    patch.setattr(Copies, "asks", asks)


def _a_new_process_answers_for_the_one_before(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Worker, "holder", lambda self: self.name)


@pytest.mark.parametrize(
    "without",
    [
        _the_word_does_not_change,
        _what_was_let_go_of_is_kept,
        _the_interpreter_looks_at_no_clock,
        _the_interpreter_looks_at_no_word,
        _a_copy_outlives_its_lease,
        _a_new_process_answers_for_the_one_before,
    ],
)
def test_each_rule_is_needed(without: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    with pytest.raises(AssertionError):
        histories(CopiesWorld, WEIGHTS, 1_000)


# ---- what is kept ------------------------------------------------------------------------------------------


def value(number: int, size: int = 1) -> Versioned:
    return Versioned(number, Data(b"1" * size), 0.0)


def kept(copies: Copies, session: str = "s", now: float = 0.0, **values: Versioned) -> Copies:
    terms = copies.asks(session, now)
    assert copies.keep(session, Found(1, values, lease=Lease(copies.holder, 1, session=session)), terms)
    return copies


def test_each_value_has_its_own_end() -> None:
    copies = kept(kept(Copies([0] * 8, "w"), x=value(1)), now=1.5, y=value(1))
    both = copies.read("s", ("x", "y"), 0, 1.9)
    assert both is not None and both.terms.ends == LEASE_SECONDS
    assert copies.read("s", ("x",), 0, LEASE_SECONDS) is None
    assert copies.read("s", ("y",), 0, LEASE_SECONDS) is not None
    assert (copies.hits, copies.misses) == (2, 1)


def test_that_there_is_no_such_variable_is_kept_too() -> None:
    copies = Copies([0] * 8, "w")
    copies.keep("s", Found(3, {}, ("x",), lease=Lease("w", 1, session="s")), copies.asks("s", 0.0))
    copy = copies.read("s", ("x",), 3, 1.0)
    assert copy is not None and copy.found == Found(3, {}, ("x",))
    assert copies.read("s", ("x",), 2, 1.0) is None, "another life of the session is meant"


def test_a_copy_that_was_asked_for_after_a_request_began_may_be_of_a_later_session() -> None:
    copies = kept(Copies([0] * 8, "w"), now=5.0, x=value(1))
    assert copies.read("s", ("x",), 0, 5.5, began=4.9) is None
    assert copies.read("s", ("x",), 1, 5.5, began=4.9) is not None, "it has met this one already"
    assert copies.read("s", ("x",), 0, 5.5, began=5.1) is not None


def test_who_writes_gives_up_the_newest_lease() -> None:
    copies = kept(Copies([0] * 8, "w"), x=value(1))
    assert copies.gives_up("other") is None
    assert copies.gives_up("s") == Lease("w", 1, session="s")
    assert copies.read("s", ("x",), 0, 0.0) is None
    assert copies.gives_up("s") is None


def test_nothing_is_kept_under_a_lease_that_was_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_GONE", 2)
    copies = Copies([0] * 8, "w")

    def keeps(session: str, number: int, store: int = 0) -> bool:
        lease = Lease("w", number, store, session)
        return copies.keep(session, Found(1, {"x": value(1)}, lease=lease), copies.asks(session, 0.0))

    assert keeps("s", 3)
    copies.let_go([Lease("w", 3, session="s")])
    assert not keeps("s", 3) and keeps("s", 4) and keeps("other", 1)
    for number in (7, 8, 9):
        copies.let_go([Lease("w", number, session=f"s{number}")])
    assert not keeps("s", 7), "who is not remembered has let go of all that may be"
    assert keeps("s", 8) and keeps("s", 1, store=1), "numbers of another store"


def test_leases_of_others_are_not_let_go_of() -> None:
    copies = kept(Copies([0] * 8, "w#2"), x=value(1))
    earlier, own = Lease("w#1", 1, session="s"), Lease("w#2", 1, session="s")
    assert copies.let_go([earlier]) == () and copies.sessions == 1
    assert copies.let_go([own, earlier]) == (own,) and copies.sessions == 0


def test_a_session_that_has_ended_is_kept_no_more() -> None:
    copies = kept(Copies([0] * 8, "w"), x=value(1))
    copies.ended([Ended("s", 1, "deleted")])
    assert copies.read("s", ("x",), 0, 0.0) is None and copies.bytes == 0


@pytest.mark.parametrize("seed", range(5))
def test_bytes_are_bounded_and_counted(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EACH", 0)
    rng, copies = random.Random(seed), Copies([0] * 8, "w", most=100)
    for _ in range(500):
        session, name, size = f"s{rng.randrange(5)}", rng.choice("abc"), rng.randrange(120)
        answer = Found(rng.randrange(1, 3), {name: value(1, size)}, lease=Lease("w", 1, session=session))
        copies.keep(session, answer, copies.asks(session, 0.0))
        if rng.random() < 0.1:
            copies.gives_up(session)
        assert copies.bytes <= 100
        there = [one for each in copies._sessions.values() for one in each.kept.items()]
        sizes = [len(name) + len(one.value.value.json) for name, one in there if one.value is not None]
        assert copies.bytes == sum(sizes)
