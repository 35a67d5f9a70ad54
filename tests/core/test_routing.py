"""A caller's view: even spreading, stable hashing, bounded memory."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.routing.view import RoutingView, stable_hash


def view_of(n: int, capacity: int = 1) -> RoutingView[str]:
    return RoutingView([(f"w{i}", capacity, 0) for i in range(n)])


@given(workers=st.integers(1, 20), seed=st.integers(0, 1000))
def test_a_single_caller_spreads_evenly(workers: int, seed: int) -> None:
    view, rng = view_of(workers), random.Random(seed)
    chosen = Counter(view.choose(rng.random) for _ in range(50 * workers))
    assert len(chosen) == workers
    assert max(chosen.values()) - min(chosen.values()) <= 8


def test_capacity_weighs_the_load() -> None:
    view = RoutingView([("small", 1, 0), ("large", 3, 0)])
    rng = random.Random(1)
    chosen = Counter(view.choose(rng.random) for _ in range(4000))
    assert chosen["large"] == pytest.approx(3000, abs=20)


def test_published_load_is_avoided_and_resets_the_estimate() -> None:
    view, rng = view_of(2), random.Random(1)
    view.publish({"w0": 10, "unknown": 3})
    assert [view.choose(rng.random) for _ in range(10)] == ["w1"] * 10
    view.publish({"w0": 0, "w1": 0})
    assert dict(Counter(view.choose(rng.random) for _ in range(10))) == {"w0": 5, "w1": 5}


def test_the_estimate_does_not_get_worse_between_publications() -> None:
    """What counts is differences: however long the loads are not published, they stay small."""
    view, rng = view_of(4), random.Random(1)
    chosen = Counter(view.choose(rng.random) for _ in range(100_000))
    assert max(chosen.values()) - min(chosen.values()) <= 8


def test_an_older_table_changes_nothing() -> None:
    view = RoutingView([("a", 1, 0)], version=5)
    assert not view.update(5, [("b", 1, 0)])
    assert "a" in view
    assert view.update(6, [("b", 2, 3)])
    assert view.table == (("b", 2, 3),)
    assert repr(view) == "<RoutingView v6 1 workers, 0 sessions>"


def test_an_empty_table_says_so() -> None:
    view: RoutingView[str] = RoutingView()
    with pytest.raises(LookupError, match="no worker"):
        view.choose(random.random)
    with pytest.raises(LookupError, match="no worker"):
        view.choose_for_session("s")


def test_an_avoided_worker_is_the_last_resort() -> None:
    view, rng = view_of(3), random.Random(1)
    view.avoid("w0")
    view.avoid("stranger")
    assert {view.choose(rng.random) for _ in range(50)} == {"w1", "w2"}
    view.avoid("w1")
    view.avoid("w2")
    assert {view.choose(rng.random) for _ in range(50)} == {"w0", "w1", "w2"}
    view.restore("w2")
    assert view.choose(rng.random) == "w2"


def test_an_unknown_session_hashes_alike_in_every_process() -> None:
    program = (
        "from snakepit_ray.core.routing.view import RoutingView\n"
        "view = RoutingView([(f'w{i}', 1, 0) for i in range(9)])\n"
        "print(*(view.choose_for_session(f's{i}') for i in range(20)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    view = view_of(9)
    assert said.split() == [view.choose_for_session(f"s{i}") for i in range(20)]


def test_rendezvous_spreads_and_moves_only_the_sessions_of_a_worker_that_left() -> None:
    view = view_of(16)
    before = {f"user_{i}": view.choose_for_session(f"user_{i}") for i in range(3200)}
    counts = Counter(before.values())
    assert len(counts) == 16
    assert max(counts.values()) < 1.4 * 200
    view.update(1, [(f"w{i}", 1, 0) for i in range(15)])
    after = {session: view.choose_for_session(session) for session in before}
    assert all(after[s] == w for s, w in before.items() if w != "w15")


def test_a_binding_wins_until_it_is_forgotten_or_its_worker_leaves() -> None:
    view = view_of(8)
    guess = view.choose_for_session("s")
    other = next(f"w{i}" for i in range(8) if f"w{i}" != guess)
    assert view.bind("s", other, 7)
    assert not view.bind("s", guess, 6)
    assert view.binding("s") == (other, 7)
    assert view.choose_for_session("s") == other
    view.unbind("s")
    assert view.choose_for_session("s") == guess
    view.bind("s", "gone", 8)
    assert view.choose_for_session("s") == guess


def test_bindings_are_bounded_and_the_least_recently_used_goes() -> None:
    view = RoutingView([("a", 1, 0), ("b", 1, 0)], max_bindings=2)
    view.bind("s1", "a", 1)
    view.bind("s2", "a", 2)
    view.choose_for_session("s1")
    view.bind("s3", "a", 3)
    assert [view.binding(s) is not None for s in ("s1", "s2", "s3")] == [True, False, True]


@given(workers=st.integers(0, 40), n=st.integers(0, 20), seed=st.integers(0, 99))
def test_a_sample_has_distinct_workers_of_the_table(workers: int, n: int, seed: int) -> None:
    view = view_of(workers)
    sample = view.sample(n, random.Random(seed).random)
    assert len(sample) == len(set(sample)) == min(n, workers)
    assert set(sample) <= set(view.table)
    assert len(RoutingView(sample)) == len(sample)


def test_stable_hash_is_pinned() -> None:
    assert stable_hash("") == int.from_bytes(bytes.fromhex("e4a6a0577479b2b4"), "little")
