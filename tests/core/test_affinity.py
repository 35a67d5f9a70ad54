"""Bindings against a naive table, step by step."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from snakepit_ray.core.affinity import Bindings

WORKERS = ["a", "b", "c"]
SESSIONS = st.sampled_from([f"s{i}" for i in range(6)])
TTL, ROOM = 10.0, 4


class BindingsAgainstTable(RuleBasedStateMachine):
    """The model: session -> [owner, used_at, strict]."""

    def __init__(self) -> None:
        super().__init__()
        self.bindings: Bindings[str] = Bindings(TTL, ROOM)
        self.model: dict[str, tuple[str, float, bool]] = {}
        self.now = 0.0
        self.highest = 0

    def ends(self, sessions: list[str]) -> None:
        for session in sessions:
            del self.model[session]

    def newer(self, version: int) -> None:
        assert version > self.highest, "versions strictly increase"
        self.highest = version

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        session=SESSIONS,
        claimant=st.sampled_from(WORKERS),
        strict=st.booleans(),
        live=st.sets(st.sampled_from(WORKERS)),
    )
    def claim(self, session: str, claimant: str, strict: bool, live: set[str]) -> None:
        before = dict(self.model)
        claim = self.bindings.claim(session, claimant, self.now, self.bindings.counts(), live, strict=strict)
        for gone in claim.evicted:
            _, used_at, was_strict = before[gone]
            assert used_at + TTL <= self.now or not (was_strict or strict), "strict is never evicted"
        self.ends(claim.evicted)
        known = self.model.get(session)
        if known and (known[0] in live or known[2] or strict):
            assert (claim.owner, claim.created) == (known[0], False), "the present owner wins"
            self.model[session] = (known[0], self.now, known[2] or strict)
        elif claim.refused:
            self.model.pop(session, None)
            assert not live or len(self.model) >= ROOM
        else:
            assert claim.created
            assert claim.owner in live
            self.newer(claim.version)
            self.model[session] = (str(claim.owner), self.now, strict)

    @rule(sessions=st.lists(SESSIONS))
    def touch(self, sessions: list[str]) -> None:
        self.bindings.touch(sessions, self.now)
        for session in sessions:
            if session in self.model and self.model[session][1] + TTL > self.now:
                owner, _, strict = self.model[session]
                self.model[session] = (owner, self.now, strict)

    @rule(session=SESSIONS, key=st.sampled_from(WORKERS))
    def rebind(self, session: str, key: str) -> None:
        strict = session in self.model and self.model[session][2]
        self.newer(self.bindings.rebind(session, key, self.now))
        self.model[session] = (key, self.now, strict)

    @rule(session=SESSIONS)
    def release(self, session: str) -> None:
        assert self.bindings.release(session) is (self.model.pop(session, None) is not None)

    @rule(key=st.sampled_from(WORKERS))
    def release_worker(self, key: str) -> None:
        released = self.bindings.release_worker(key)
        assert sorted(released) == sorted(s for s, (owner, _, _) in self.model.items() if owner == key)
        self.ends(released)

    @rule()
    def expire(self) -> None:
        ended = self.bindings.expire(self.now)
        assert sorted(ended) == sorted(s for s, (_, used, _) in self.model.items() if used + TTL <= self.now)
        self.ends(ended)

    @invariant()
    def agrees(self) -> None:
        assert sorted(self.bindings) == sorted(self.model)
        assert len(self.bindings) == len(self.model)
        for session, (owner, used_at, _) in self.model.items():
            expected = owner if used_at + TTL > self.now else None
            assert self.bindings.owner(session, self.now) == expected
            assert session in self.bindings.sessions(owner)
        assert sum(self.bindings.counts().values()) == len(self.model)
        soonest = min((used + TTL for _, used, _ in self.model.values()), default=None)
        assert self.bindings.next_expiry() == soonest


TestBindingsAgainstTable = BindingsAgainstTable.TestCase
TestBindingsAgainstTable.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)

LIVE = set(WORKERS)


def test_the_first_claim_decides_for_all_concurrent_ones() -> None:
    bindings: Bindings[str] = Bindings(TTL, 100)
    first = bindings.claim("s", "b", 0.0, {}, LIVE)
    second = bindings.claim("s", "c", 0.0, {}, LIVE)
    assert (first.owner, first.created) == ("b", True)
    assert (second.owner, second.created, second.version) == ("b", False, first.version)


def test_a_crowded_claimant_passes_the_session_to_the_least_loaded() -> None:
    bindings: Bindings[str] = Bindings(TTL, 100)
    assert bindings.claim("s", "a", 0.0, {"a": 9, "b": 2, "c": 1}, LIVE).owner == "c"
    assert bindings.claim("t", "a", 0.0, {"a": 4, "b": 2, "c": 1}, LIVE).owner == "a"
    assert bindings.claim("u", "gone", 0.0, {"a": 4, "b": 2, "c": 1}, LIVE).owner == "c"


def test_a_lost_owner_loses_hint_sessions_but_keeps_strict_ones_until_rebind() -> None:
    bindings: Bindings[str] = Bindings(TTL, 100)
    bindings.claim("hint", "a", 0.0, {}, LIVE)
    bindings.claim("strict", "a", 0.0, {}, LIVE, strict=True)
    assert bindings.claim("hint", "b", 1.0, {}, {"b"}).owner == "b"
    assert bindings.claim("strict", "b", 1.0, {}, {"b"}).owner == "a"
    bindings.rebind("strict", "b", 1.0)
    assert bindings.claim("strict", "c", 1.0, {}, LIVE).owner == "b"


def test_a_full_table_evicts_for_a_hint_and_refuses_a_strict_claim() -> None:
    bindings: Bindings[str] = Bindings(TTL, 2)
    bindings.claim("pinned", "a", 0.0, {}, LIVE, strict=True)
    bindings.claim("old", "a", 1.0, {}, LIVE)
    assert bindings.claim("strict", "a", 2.0, {}, LIVE, strict=True).refused
    claim = bindings.claim("new", "a", 2.0, {}, LIVE)
    assert (claim.owner, claim.evicted) == ("a", ["old"])
    assert bindings.claim("late", "a", 10.0, {}, LIVE, strict=True).evicted == ["pinned"]


def test_an_expired_session_that_is_claimed_again_ends_first() -> None:
    bindings: Bindings[str] = Bindings(TTL, 2)
    old = bindings.claim("s", "a", 0.0, {}, LIVE)
    new = bindings.claim("s", "b", TTL, {}, LIVE)
    assert (new.owner, new.evicted, new.created) == ("b", ["s"], True)
    assert new.version > old.version
    assert repr(bindings) == "<Bindings 1/2 sessions on 1 workers>"
