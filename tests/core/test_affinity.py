"""Bindings against a naive table, step by step."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from snakepit_ray.core.sessions.affinity import Bindings

WORKERS = ["a", "b", "c"]
SESSIONS = st.sampled_from([f"s{i}" for i in range(6)])
TTL, ROOM = 10.0, 4
EARLIER = 20  # the highest version of the table before this one


class BindingsAgainstTable(RuleBasedStateMachine):
    """The model: session -> [owner, used_at, strict], and its version."""

    def __init__(self) -> None:
        super().__init__()
        self.bindings: Bindings[str] = Bindings(TTL, ROOM, EARLIER)
        self.model: dict[str, tuple[str, float, bool]] = {}
        self.versions: dict[str, int] = {}
        self.now = 0.0
        self.highest = EARLIER

    def ends(self, sessions: list[str]) -> None:
        for session in sessions:
            del self.model[session]

    def newer(self, session: str, version: int) -> None:
        assert version > self.highest, "versions strictly increase"
        self.highest = self.versions[session] = version

    def strict(self) -> int:
        return sum(strict for _, _, strict in self.model.values())

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
            assert not live or strict or self.strict() >= ROOM, "a hint finds room where hints are"
        else:
            assert claim.created
            assert claim.owner in live
            self.newer(session, claim.version)
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
        self.newer(session, self.bindings.rebind(session, key, self.now))
        self.model[session] = (key, self.now, strict)

    @rule(
        session=SESSIONS,
        key=st.sampled_from(WORKERS),
        version=st.integers(1, 3 * EARLIER),
        strict=st.booleans(),
    )
    def restore(self, session: str, key: str, version: int, strict: bool) -> None:
        newest = session not in self.model or version > self.versions[session]
        assert self.bindings.restore(session, key, version, self.now, strict) is newest
        if newest:
            self.model[session] = (key, self.now, strict)
            self.versions[session] = version
            self.highest = max(self.highest, version)

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
            binding = self.bindings.binding(session, self.now)
            assert binding is None or binding.version == self.versions[session]
        assert self.bindings.counts() == Counter(owner for owner, _, _ in self.model.values())
        assert self.bindings.version == self.highest
        soonest = min((used + TTL for _, used, _ in self.model.values()), default=None)
        assert self.bindings.next_expiry() == soonest


TestBindingsAgainstTable = BindingsAgainstTable.TestCase
TestBindingsAgainstTable.settings = settings(stateful_step_count=40, deadline=None)

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


def test_a_table_fuller_than_its_room_makes_as_much_as_a_claim_needs() -> None:
    """A session that is moved or told of is never refused for room; hint claims afterwards must not pay."""
    bindings: Bindings[str] = Bindings(TTL, 2)
    for version, session in enumerate(["one", "two", "three", "four"]):
        bindings.restore(session, "a", 1 + version, float(version), strict=False)
    claim = bindings.claim("new", "b", 4.0, {}, LIVE)
    assert (claim.owner, claim.evicted) == ("b", ["one", "two", "three"])
    assert sorted(bindings) == ["four", "new"]


def test_a_known_session_that_lost_its_worker_finds_room_in_such_a_table_too() -> None:
    bindings: Bindings[str] = Bindings(TTL, 2)
    for version, session in enumerate(["one", "two", "three"]):
        bindings.restore(session, "a", 1 + version, float(version), strict=False)
    claim = bindings.claim("three", "b", 4.0, {}, {"b"})
    assert (claim.owner, claim.evicted) == ("b", ["one"])


def test_where_strict_sessions_fill_all_no_hint_is_evicted_in_vain() -> None:
    bindings: Bindings[str] = Bindings(TTL, 2)
    bindings.restore("hint", "a", 1, 0.0, strict=False)
    bindings.restore("strict", "a", 2, 0.0, strict=True)
    bindings.restore("stricter", "b", 3, 0.0, strict=True)
    claim = bindings.claim("new", "b", 1.0, {}, LIVE)
    assert (claim.refused, claim.evicted) == (True, [])


@given(st.permutations([("a", 7, False), ("b", 9, True), ("c", 3, False), ("a", 8, True)]))
def test_whoever_speaks_first_the_newest_of_those_restored_wins(
    told: list[tuple[str, int, bool]],
) -> None:
    bindings: Bindings[str] = Bindings(TTL, 100)
    restored = [bindings.restore("s", key, version, 0.0, strict) for key, version, strict in told]
    newest = [max(version for _, version, _ in told[: i + 1]) for i in range(len(told))]
    assert restored == [version == most for (_, version, _), most in zip(told, newest, strict=True)]
    binding = bindings.binding("s", 0.0)
    assert binding is not None
    assert (binding.owner, binding.version, binding.strict) == ("b", 9, True)
    assert bindings.counts() == {"b": 1}
    assert not bindings.restore("s", "c", 9, 0.0, strict=False), "of two alike the first one stays"


@given(st.lists(st.integers(1, 100), max_size=10), st.integers(0, 100))
def test_versions_go_on_above_all_that_were_ever_heard_of(versions: list[int], start: int) -> None:
    bindings: Bindings[str] = Bindings(TTL, 100, start)
    for i, version in enumerate(versions):
        bindings.restore(f"old{i % 3}", "a", version, 0.0, strict=False)
    highest = max([start, *versions])
    assert bindings.version == highest
    assert bindings.claim("new", "a", 0.0, {}, LIVE).version == highest + 1
    assert bindings.rebind("new", "b", 0.0) == highest + 2
    assert not bindings.restore("new", "a", highest + 1, 0.0, strict=False), "what has moved on stays moved"


def test_counts_follow_a_session_that_is_restored_elsewhere() -> None:
    bindings: Bindings[str] = Bindings(TTL, 100)
    for version, session in enumerate(["s", "t", "u"]):
        bindings.restore(session, "a", 1 + version, 0.0, strict=False)
    bindings.restore("s", "b", 9, 0.0, strict=True)
    assert bindings.counts() == {"a": 2, "b": 1}
    assert (bindings.sessions("a"), bindings.sessions("b")) == (["t", "u"], ["s"])
    assert bindings.release_worker("a") == ["t", "u"]
    assert bindings.counts() == {"b": 1}
    assert list(bindings) == ["s"]


def test_the_ttl_of_a_restored_session_starts_anew_and_one_refused_gains_nothing() -> None:
    bindings: Bindings[str] = Bindings(TTL, 100)
    bindings.claim("mine", "a", 0.0, {}, LIVE)
    bindings.restore("s", "a", 5, 0.0, strict=False)
    bindings.restore("s", "b", 6, 9.0, strict=False)
    assert not bindings.restore("mine", "b", 1, 9.0, strict=False)
    assert bindings.next_expiry() == TTL
    assert bindings.expire(TTL) == ["mine"]
    assert bindings.owner("s", 18.9) == "b"
    assert bindings.expire(19.0) == ["s"]


def test_a_restored_strict_session_is_strict() -> None:
    bindings: Bindings[str] = Bindings(TTL, 1)
    bindings.restore("s", "a", 5, 0.0, strict=True)
    assert bindings.claim("s", "b", 1.0, {}, {"b"}).owner == "a", "it never moves silently"
    assert bindings.claim("other", "b", 1.0, {}, LIVE).refused, "nor is it evicted"
