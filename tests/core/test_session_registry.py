"""Which sessions there are, against a model that remembers every one of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snakepit_ray.core.state.registry import REMEMBERED, Registry, Session
from snakepit_ray.errors import SessionExpired, SessionNotFound, SessionQuotaExceeded, VersionConflict

IDS = ("a", "b", "c", "d", "e")
POOLS = ("p", "q")
LIMIT = 2


@dataclass
class Known:
    """What the model knows of a session that was made."""

    generation: int
    pool: str
    ttl: float
    used_at: float
    version: int = 1


class Sessions(RuleBasedStateMachine):
    """Everything that happens to sessions; the model has no sweep."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.registry = Registry()
        self.known: dict[str, Known] = {}
        self.generations: list[int] = []
        self.ended: list[int] = []  # generations, each once

    def alive(self) -> dict[str, Known]:
        return {key: one for key, one in self.known.items() if one.used_at + one.ttl >= self.now}

    @rule(seconds=st.sampled_from([0.0, 1.0, 2.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=st.sampled_from(IDS), pool=st.sampled_from(POOLS), ttl=st.sampled_from([0.0, 2.0, 5.0]))
    def join(self, name: str, pool: str, ttl: float) -> None:
        alive = self.alive()
        mine = sum(one.pool == pool for one in alive.values())
        if name not in alive and mine >= LIMIT:
            with pytest.raises(SessionQuotaExceeded) as full:
                self.registry.join(name, pool, ttl, LIMIT, {}, self.now)
            assert (full.value.used, full.value.limit) == (mine, LIMIT)
            return
        session, is_new, ended = self.registry.join(name, pool, ttl, LIMIT, {}, self.now)
        assert is_new == (name not in alive)
        assert [one.id for one in ended] in ([], [name])
        self.ended += [one.generation for one in ended]
        if is_new:
            assert all(session.generation > before for before in self.generations)
            self.generations.append(session.generation)
            self.known[name] = Known(session.generation, pool, ttl, self.now)
        self.known[name].used_at = self.now

    @rule(name=st.sampled_from(IDS))
    def use(self, name: str) -> None:
        if name in self.alive():
            assert self.registry.use(name, self.now).generation == self.known[name].generation
            self.known[name].used_at = self.now
            return
        known = self.known.get(name)
        with pytest.raises(SessionExpired if known is not None else SessionNotFound):
            self.registry.use(name, self.now)

    @rule(name=st.sampled_from(IDS), guess=st.integers(0, 1))
    def update(self, name: str, guess: int) -> None:
        if name not in self.alive():
            return
        known = self.known[name]
        if guess:
            with pytest.raises(VersionConflict):
                self.registry.update(name, known.version - 1, self.now, metadata={"x": 1})
            return
        session = self.registry.update(name, known.version, self.now, metadata={"by": known.version})
        known.version, known.used_at = session.version, self.now
        assert session.metadata == {"by": session.version - 1}

    @rule(name=st.sampled_from(IDS))
    def delete(self, name: str) -> None:
        assert self.registry.delete(name, self.now) == (name in self.alive())
        if name in self.alive():
            del self.known[name]

    @rule(most=st.integers(0, 3))
    def sweep(self, most: int) -> None:
        for session in self.registry.sweep(self.now, most):
            assert session.generation in self.generations
            assert session.generation not in [one.generation for one in self.alive().values()]
            self.ended.append(session.generation)

    @precondition(lambda self: self.known)
    @rule()
    def the_store_is_restarted(self) -> None:
        before = self.registry
        self.registry = Registry(before.generation)
        for session in before.alive(self.now):
            self.registry.restore(session)
        self.known = self.alive()

    @invariant()
    def the_same_are_alive(self) -> None:
        found = {session.id: session for session in self.registry.alive(self.now)}
        assert {key: one.generation for key, one in found.items()} == {
            key: one.generation for key, one in self.alive().items()
        }

    @invariant()
    def each_ends_once(self) -> None:
        assert len(self.ended) == len(set(self.ended))

    @invariant()
    def the_next_sweep_is_not_too_late(self) -> None:
        ends = [one.used_at + one.ttl for one in self.known.values()]
        end = self.registry.next_end()
        if len(self.registry):
            assert end is not None and end <= max(ends)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(TestSessions.settings, stateful_step_count=40)


def test_at_the_last_moment_it_is_alive_still() -> None:
    registry = Registry()
    registry.join("s", "p", 10.0, 5, {}, 100.0)
    assert registry.look("s", 110.0).id == "s"
    with pytest.raises(SessionExpired, match=r"unused for 10\.5 s, its ttl is 10 s"):
        registry.look("s", 110.5)


def test_who_comes_late_is_told_that_it_has_expired_for_a_while() -> None:
    registry = Registry()
    for number in range(REMEMBERED + 1):
        registry.join(f"s-{number}", "p", 1.0, REMEMBERED + 1, {}, 0.0)
    assert len(registry.sweep(5.0, REMEMBERED + 1)) == REMEMBERED + 1
    with pytest.raises(SessionNotFound):
        registry.look("s-0", 5.0)
    with pytest.raises(SessionExpired):
        registry.look(f"s-{REMEMBERED}", 5.0)


def test_a_quota_counts_what_a_pool_has_made_and_what_is_alive() -> None:
    registry = Registry()
    for number in range(10_000):
        registry.join(f"s-{number}", "p", 60.0, 10_000, {}, 0.0)
    with pytest.raises(SessionQuotaExceeded, match="10000 of max_sessions=10000"):
        registry.join("one-more", "p", 60.0, 10_000, {}, 0.0)
    registry.join("of-another", "q", 60.0, 10_000, {}, 0.0)
    assert registry.usage("p", 10_000, 0.0).is_crowded and not registry.usage("q", 10_000, 0.0).is_crowded
    registry.join("one-more", "p", 60.0, 10_000, {}, 61.0)
    assert [session.id for session in registry.alive(61.0)] == ["one-more"]


def test_a_session_that_is_restored_has_what_it_had() -> None:
    registry = Registry()
    session = Session("s", 7, "p", 60.0, 5.0, 3, {"user": "a"}, {"main": b"..."})
    registry.restore(session)
    assert registry.look("s", 6.0) == session
    assert registry.join("t", "p", 60.0, 5, {}, 6.0).session.generation == 8
