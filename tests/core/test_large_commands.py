"""Commands whose answers were too large are remembered for a while, and not too many of them."""

from __future__ import annotations

from snakepit_ray.core.work.large_commands import MOST, SECONDS, LargeCommands


def test_a_command_is_remembered_for_a_while() -> None:
    large = LargeCommands()
    assert not large.has("a", 0.0)
    large.add("a", 10.0)
    assert large.has("a", 10.0 + SECONDS / 2) and not large.has("b", 10.0)
    assert not large.has("a", 10.0 + SECONDS)
    assert len(large) == 0


def test_the_newest_are_remembered() -> None:
    large = LargeCommands()
    large.add("first", 0.0)
    for number in range(MOST - 1):
        large.add(f"command-{number}", 0.0)
    large.add("first", 1.0)
    large.add("one more", 1.0)
    assert len(large) == MOST
    assert large.has("first", 1.0) and not large.has("command-0", 1.0)
