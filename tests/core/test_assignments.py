"""A variable that is made by its first assignment: what is demanded of it, and who may be the first."""

from __future__ import annotations

from snakepit_ray.core.state.constraints import demanded
from snakepit_ray.core.state.session import SessionState
from snakepit_ray.core.state.writes import Change, Delete, Register, Set, Write, Written
from snakepit_ray.errors import VariableNotFound, VariableTypeError, VersionConflict

INTEGER, BOUNDED = demanded("integer", {}, "x"), demanded("float", {"max": 10}, "x")


class Writer:
    """Writes that are durable and visible at once."""

    def __init__(self) -> None:
        self.state, self.count = SessionState("s", 1), 0

    def __call__(self, change: Change) -> Written:
        self.count += 1
        told = self.state.write(Write(str(self.count), (change,)), 0.0, 0.0)
        self.state.durable(str(self.count))
        outcome = self.state.settled(0.0).get(str(self.count), told.outcome)
        assert outcome is not None
        return outcome[0]


def test_the_first_assignment_makes_the_variable() -> None:
    write = Writer()
    assert isinstance(write(Set("x", 1)).error, VariableNotFound)
    assert write(Set("x", 1, demand=INTEGER)).version == 1
    assert write.state.visible["x"].demand == INTEGER
    assert isinstance(write(Set("x", "text", demand=demanded("string", {}, "x"))).error, VariableTypeError)


def test_an_assignment_keeps_what_is_demanded_already() -> None:
    write = Writer()
    write(Register("x", 1, BOUNDED))
    assert write(Set("x", 2, demand=INTEGER)).version == 2
    assert (write.state.visible["x"].demand, write.state.visible["x"].newest.value) == (BOUNDED, 2.0)


def test_version_0_is_that_of_a_variable_that_is_not_there() -> None:
    write = Writer()
    assert write(Set("x", 1, 0, INTEGER)).version == 1
    assert isinstance(write(Set("x", 2, 0, INTEGER)).error, VersionConflict)
    write(Delete("x"))
    assert isinstance(write(Set("x", 3, 1, INTEGER)).error, VariableNotFound)
    assert write(Set("x", 3, 0, INTEGER)).version == 2, "nobody takes it for the one that was"
