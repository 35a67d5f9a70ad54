"""The room for arguments: no range is taken twice, none is forgotten."""

from __future__ import annotations

import pytest

from snakepit_ray.core.space import GRAIN, Space
from tests.core import ranges
from tests.core.ranges import GRAINS, SIZE


class Ranges(ranges.Ranges):
    make = Space


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
