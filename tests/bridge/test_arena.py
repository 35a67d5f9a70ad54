"""The Python bridge's room for results: no range is taken twice, none is forgotten."""

from __future__ import annotations

from tests.bridge import harness  # noqa: F401 - puts the bridge's modules on the path
from tests.core import ranges

from snakepit_bridge.server.arena import GRAIN, Gaps  # isort: skip


class Ranges(ranges.Ranges):
    make = Gaps


TestRanges = Ranges.TestCase


def test_what_is_larger_than_the_space_finds_no_place() -> None:
    assert GRAIN == ranges.GRAIN
    assert Gaps(ranges.SIZE).take(ranges.SIZE + 1) is None
    assert Gaps(0).take(1) is None
