"""The room for arguments: no range is taken twice, none is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from snakepit_ray.core.worker.space import GRAIN, Space
from tests.core import ranges
from tests.core.ranges import GRAINS, SIZE


class Ranges(ranges.Ranges):
    make = Space

    @rule(begin=st.integers(0, GRAINS - 1), grains=st.integers(1, GRAINS))
    def reserve(self, begin: int, grains: int) -> None:
        wanted = set(range(begin, min(begin + grains, GRAINS)))
        free = not wanted & set().union(*self.held.values())
        offset, size = begin * GRAIN, len(wanted) * GRAIN
        assert self.space.reserve(offset, size) == free
        if free:
            assert self.space.take(GRAINS * GRAIN) is None
            self.space.give(offset)
        else:
            self.touched |= wanted


TestRanges = Ranges.TestCase


def test_nothing_is_given_back_twice() -> None:
    space = Space(SIZE)
    offset = space.take(10)
    assert offset == 0 and len(space) == 1
    space.give(offset)
    with pytest.raises(KeyError):
        space.give(offset)
    assert space.used == 0 and not len(space)


def test_what_is_larger_than_the_space_finds_no_place() -> None:
    assert GRAIN == ranges.GRAIN
    assert Space(SIZE).take(SIZE + 1) is None
    assert Space(0).take(1) is None
    assert Space(SIZE).take(GRAINS * GRAIN) == 0
