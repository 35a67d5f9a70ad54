"""What an interpreter keeps of its sessions' variables: which values, how many, and what loads for it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from tests.bridge.harness import BRIDGE
from tests.bridge.test_imports import loaded

sys.path.insert(0, str(BRIDGE))
from snakepit_bridge.adapter import copies as module
from snakepit_bridge.adapter.copies import LARGEST, Copies


def answer(version: int = 1, word: int = 0) -> dict[str, Any]:
    lease = {"word": word, "stamp": 7, "seconds": 2.0}
    return {"version": version, "generation": 3, "lease": lease}


def kept(value: Any, small: int = 100) -> Any:
    copies, space = Copies([7], small), {}
    copies.keep(space, "x", value, answer(), 10.0)
    return space.get("x")


@pytest.mark.parametrize(
    "value", [1, 1.5, "text", None, True, b"bytes", [1, [2]], {"a": [None]}, float("inf")]
)
def test_what_is_read_again_is_the_value_and_the_readers_own(value: Any) -> None:
    one = kept(value)
    assert (one.ends, one.generation, one.version) == (12.0, 3, 1)
    reads = [one.value if one.thaw is None else one.thaw(one.value) for _ in range(2)]
    assert reads == [value, value]
    if isinstance(value, (list, dict)):
        assert reads[0] is not reads[1] and reads[0] is not value


def test_small_arrays_are_kept_and_what_lies_in_shared_memory_is_not() -> None:
    small = np.zeros(10)
    assert kept(small).value is small, "it is read-only, so that all may have it"
    assert kept(np.zeros(1000)) is None
    assert kept({"inner": small}) is None
    assert kept("x" * LARGEST) is None


def test_without_a_lease_or_without_the_word_nothing_is_kept() -> None:
    space: dict[str, Any] = {}
    Copies(None, 100).keep(space, "x", 1, answer(), 0.0)
    Copies([7], 100).keep(space, "x", 1, {**answer(), "lease": None}, 0.0)
    Copies([7], 100).keep(space, "x", 1, answer(word=1), 0.0)
    assert space == {}


def test_what_is_kept_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10_000)
    monkeypatch.setattr(module, "MOST_SESSIONS", 5)
    copies = Copies([7], 100)
    spaces = [copies.of("s") for _ in range(2)]
    assert spaces[0] is spaces[1]
    for number in range(1000):
        copies.keep(copies.of("s"), f"v{number}", "x" * 100, answer(), 0.0)
        assert sum(len(space) for space in copies._sessions.values()) * 300 <= 10_000
    for number in range(1000):
        copies.of(f"s{number}")
        assert len(copies._sessions) <= 5


def test_an_adapter_that_does_not_ask_for_it_loads_nothing_for_it() -> None:
    found = loaded("from snakepit_bridge import Adapter, SessionContext, command; SessionContext('s')")
    assert "snakepit_bridge.adapter.context" in found
    assert not {f"snakepit_bridge.adapter.{name}" for name in ("variables", "watching", "copies")} & found
