"""The outcomes that one process kept, the next one knows: against a model, torn anywhere, damaged."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from snakepit_ray.process import outcome_ring
from snakepit_ray.process.outcome_ring import BYTES, FIXED, HEADER, LARGEST, LONGEST, SIZE, OutcomeRing
from snakepit_ray.process.registry import Swept, sweep
from tests.process.conftest import killed
from tests.process.test_journal import HOUR, files, make_older, words

patient = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
quiet = settings(deadline=None, suppress_health_check=patient)
keys = st.text(max_size=8) | st.integers(0, 30).map(str)
outcomes = st.binary(max_size=60) | st.builds(
    lambda size, byte: bytes([byte]) * size, st.integers(0, LARGEST), st.integers(0, 255)
)


def opened(base: Path) -> OutcomeRing:
    return OutcomeRing.open("w-0", base)


class AgainstModel(RuleBasedStateMachine):
    """Outcomes are kept and processes follow each other; the model is all that was ever kept."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="ring-"))
        self.ring = opened(self.base)
        self.kept: list[tuple[str, bytes]] = []

    @rule(key=keys, outcome=outcomes)
    def keep(self, key: str, outcome: bytes) -> None:
        assert self.ring.keep(key, outcome)
        self.kept.append((key, outcome))

    @rule(size=st.integers(0, LARGEST), times=st.integers(1, 300))
    def keep_many(self, size: int, times: int) -> None:
        for _ in range(times):
            self.keep(f"many-{len(self.kept)}", bytes([len(self.kept) % 256]) * size)

    @rule()
    def reopen(self) -> None:
        before = len(self.ring)
        self.ring.close()
        self.ring = opened(self.base)
        assert len(self.ring) == before

    @invariant()
    def agrees(self) -> None:
        """What is known is right, and it is the newest: all of those that surely fit."""
        room, seen = BYTES - LARGEST - LONGEST - FIXED, set[str]()
        looked_at = len(self.kept) // 20 + 1  # some of them: to find one is to search for it
        for number, (key, outcome) in enumerate(reversed(self.kept)):
            room -= FIXED + len(key.encode()) + len(outcome)
            if key not in seen and (number < 5 or number % looked_at == 0):
                found = self.ring.find(key)
                assert found == outcome or (found is None and room < 0)
            seen.add(key)
        assert self.ring.find("never kept") is None

    def teardown(self) -> None:
        self.ring.close()
        shutil.rmtree(self.base)


AgainstModel.TestCase.settings = settings(stateful_step_count=20, deadline=None)
TestAgainstModel = AgainstModel.TestCase


@settings(quiet, max_examples=8)
@given(
    before=st.lists(st.tuples(keys, outcomes), max_size=5),
    rounds=st.booleans(),
    key=keys,
    outcome=st.binary(max_size=80),
)
def test_an_entry_that_is_torn_anywhere_is_not_there_and_harms_only_what_it_overwrites(
    tmp_path: Path, before: list[tuple[str, bytes]], rounds: bool, key: str, outcome: bytes
) -> None:
    ring = opened(tmp_path)
    known: dict[str, bytes] = {}
    for number in range(2 * BYTES // LARGEST if rounds else 0):
        ring.keep(f"old-{number}", bytes([number % 256]) * LARGEST)
    for name, value in before:
        ring.keep(name, value)
        known[name] = value
    ring.close()
    old = ring.path.read_bytes()
    ring = opened(tmp_path)
    ring.keep(key, outcome)
    ring.close()
    new = ring.path.read_bytes()
    first = next((at for at in range(HEADER.size, SIZE) if old[at] != new[at]), SIZE)
    for cut in range(first, min(first + FIXED + 8 + 80, SIZE)):
        # The stores before `cut` are done, those after it are not, and the word comes last of all.
        ring.path.write_bytes(old[: HEADER.size] + new[HEADER.size : cut] + old[cut:])
        torn = opened(tmp_path)
        assert {name: torn.find(name) for name in known} == known
        assert torn.find(key) == known.get(key)
        torn.keep("next", b"goes on")
        assert torn.find("next") == b"goes on" and len(torn) >= len(known)
        torn.close()
    ring.path.write_bytes(new)
    whole = opened(tmp_path)
    assert whole.find(key) == outcome
    whole.close()
    whole.remove()


KILLED = """
import os, signal, sys
from snakepit_ray.process.outcome_ring import OutcomeRing
ring = OutcomeRing.open("w-0", sys.argv[1])
for i in range(40_000):
    ring.keep(f"r-{i}", b"%d" % i)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_the_newest_that_it_kept(tmp_path: Path) -> None:
    killed(KILLED, tmp_path)
    after = opened(tmp_path)
    known = [after.find(f"r-{i}") for i in range(40_000)]
    assert known[30_000:] == [b"%d" % i for i in range(30_000, 40_000)]
    assert known[:20_000] == [None] * 20_000
    after.close()


def test_what_is_too_large_is_not_kept(tmp_path: Path) -> None:
    ring = opened(tmp_path)
    assert not ring.keep("k", bytes(LARGEST + 1))
    assert not ring.keep("k" * (LONGEST + 1), b"")
    assert ring.keep("k" * LONGEST, bytes(LARGEST))
    assert len(ring) == 1
    ring.close()


# ---- damage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"", lambda data: data[:-1], lambda data: data + b"\0", lambda data: bytes(SIZE),
        words((0, 1)), words((1, 99)), words((2, 1)), words((3, 2**64 - 1)), words((3, 2**62)), words((3, 5)),
        lambda data: data[:HEADER.size] + os.urandom(BYTES),
    ],
)  # fmt: skip
def test_a_damaged_ring_is_an_empty_one(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    ring = opened(tmp_path)
    ring.keep("a", b"1")
    ring.close()
    ring.path.write_bytes(damage(ring.path.read_bytes()))
    ring = opened(tmp_path)
    assert len(ring) == 0 and ring.find("a") is None
    ring.keep("b", b"2")
    ring.close()
    ring = opened(tmp_path)
    assert ring.find("b") == b"2" and len(ring) == 1
    ring.close()


@quiet
@given(data=st.data())
def test_bytes_that_changed_never_raise_and_never_lie(tmp_path: Path, data: st.DataObject) -> None:
    ring = opened(tmp_path)
    for number in range(4):
        ring.keep(f"k{number}", b"%d" % number * 5)
    ring.close()
    content = bytearray(ring.path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, HEADER.size + 200), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    ring.path.write_bytes(content)
    ring = opened(tmp_path)
    assert all(ring.find(f"k{n}") in (None, b"%d" % n * 5) for n in range(4))
    ring.keep("new", b"!")
    ring.close()
    ring = opened(tmp_path)
    assert ring.find("new") == b"!"
    ring.close()
    ring.remove()


def test_the_word_is_stored_after_the_entry(tmp_path: Path) -> None:
    """A reader that looks between the two stores sees the state before."""
    ring = opened(tmp_path)
    ring.keep("a", b"1")
    (newest,) = struct.unpack_from("=Q", ring._map, 8 * outcome_ring.NEWEST)
    ring.keep("b", b"2")
    ring._words[outcome_ring.NEWEST] = newest
    ring.close()
    ring = opened(tmp_path)
    assert (ring.find("a"), ring.find("b")) == (b"1", None)
    ring.close()


# ---- its end --------------------------------------------------------------------------------------------


def test_a_polite_end_removes_it_and_a_sweep_what_nobody_needs(tmp_path: Path) -> None:
    ring = opened(tmp_path)
    make_older(ring.path, 2 * HOUR)
    assert sweep(base=tmp_path) == Swept([], 0, []), "a living process holds it"
    ring.remove()
    ring.remove()
    ring.keep("late", b"for nobody")
    assert files(tmp_path) == []
    ring.close()
    ring = opened(tmp_path)
    assert len(ring) == 0
    ring.close()
    make_older(ring.path, 2 * HOUR)
    assert sweep(base=tmp_path) == Swept([], 0, [ring.path])
