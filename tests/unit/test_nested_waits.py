"""Waiting requests that commands have made: which of them start inside of others, and which are given up."""

from __future__ import annotations

from collections.abc import Sequence

from snakepit_ray.supervisor.nested import PATIENCE_SECONDS, NestedWaits


class World:
    """A clock, and what is known of the chains."""

    def __init__(self) -> None:
        self.now = 100.0
        self.outer: dict[str, str] = {}
        self.hopeless: set[str] = set()
        self.wakes: list[float] = []
        self.waits = NestedWaits(self, lambda: self.now, self.wakes.append)

    def is_nested(self, request_id: str) -> bool:
        return request_id.startswith("n")

    def outer_of(self, request_id: str) -> str:
        return self.outer.get(request_id, "")

    def may_wait(self, request_id: str, holders: Sequence[str]) -> bool:
        return request_id not in self.hopeless

    def verdicts(self, is_open: bool = True) -> list[tuple[str, str]]:
        return self.waits.verdicts({"n1", "n2", "r"}, ("h",), is_open)


def test_only_what_commands_have_made_is_looked_at() -> None:
    world = World()
    assert [world.waits.enters(one) for one in ("n1", "r", "n3")] == [True, False, True]
    world.hopeless = {"n3"}
    assert world.verdicts() == [] and world.wakes == [], "n3 is not in the queue"
    assert len(world.waits) == 2


def test_one_that_can_run_inside_of_another_starts_where_there_is_an_interpreter() -> None:
    world = World()
    world.waits.enters("n1")
    world.outer = {"n1": "h"}
    assert world.verdicts(is_open=False) == []
    assert world.verdicts() == [("n1", "h")]
    world.waits.leaves("n1")
    world.waits.leaves("n1")
    assert world.verdicts() == []


def test_one_that_may_not_wait_is_given_up_when_that_has_lasted() -> None:
    world = World()
    world.waits.enters("n1")
    world.waits.enters("n2")
    world.hopeless = {"n1"}
    assert world.verdicts() == [] and world.wakes == [PATIENCE_SECONDS]
    world.now += PATIENCE_SECONDS / 2
    assert world.verdicts() == [] and len(world.wakes) == 1
    world.hopeless = set()
    assert world.verdicts() == []
    world.hopeless = {"n1"}
    world.now += PATIENCE_SECONDS / 2
    assert world.verdicts() == [] and len(world.wakes) == 2, "it begins anew"
    world.now += PATIENCE_SECONDS
    assert world.verdicts() == [("n1", "")]
