"""The ranges of a fixed space against a model that remembers every grain: the host's room for arguments and a
bridge's room for results keep the same rules."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

GRAIN = 4096
GRAINS = 32
SIZE = GRAINS * GRAIN + 100  # the rest of a grain is never used


class Ranges(RuleBasedStateMachine):
    """Takes and gives back; the model is the set of grains that each range holds."""

    make: Any = None
    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.space = self.make(SIZE)
        self.held: dict[int, set[int]] = {}
        self.touched: set[int] = set()  # used since they were last given back to the system

    @rule(target=taken, size=st.integers(1, 12 * GRAIN))
    def take(self, size: int) -> object:
        grains = -(-size // GRAIN)
        free = set(range(GRAINS)).difference(*self.held.values())
        gaps = [b for b in range(GRAINS - grains + 1) if set(range(b, b + grains)) <= free]
        offset = self.space.take(size)
        if offset is None:
            assert not gaps
            return multiple()
        assert offset == gaps[0] * GRAIN  # the lowest
        self.held[offset] = set(range(gaps[0], gaps[0] + grains))
        self.touched |= self.held[offset]
        return offset

    @rule(offset=consumes(taken))
    def give(self, offset: int) -> None:
        self.space.give(offset)
        del self.held[offset]

    @rule()
    def trim(self) -> None:
        trimmed = {
            grain
            for offset, size in self.space.trim()
            for grain in range(offset // GRAIN, (offset + size) // GRAIN)
        }
        held = set().union(*self.held.values())
        assert not trimmed & held  # nothing that is looked at is taken away
        assert self.touched - held <= trimmed  # and nothing that was used is forgotten
        self.touched = held

    @invariant()
    def used_is_what_is_held(self) -> None:
        assert self.space.used == GRAIN * sum(map(len, self.held.values()))
