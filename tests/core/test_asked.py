"""Questions and answers pickle as what they are, also those that pickle in a way of their own."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from snakepit_ray.core.state.asked import Creation, Data, Fence, Put, Wrote
from snakepit_ray.core.state.constraints import demanded
from snakepit_ray.core.state.leases import Lease
from snakepit_ray.core.state.writes import Delete, Register, Revert, Set, Written
from snakepit_ray.errors import VersionConflict

CHANGES = (
    Set("a", Data(b"1", (b"x", b"y")), 3),
    Set("b", Data(b"2")),
    Set("c", Data(b"3"), 0, demanded("integer", {}, "c")),
    Set("c", "no data"),
    Register("d", Data(b"1.5"), demanded("float", {"min": 0}, "d"), {"unit": "m"}),
    Delete("e", 2),
    Revert("f", 3),
)


@pytest.mark.parametrize(
    "one",
    [
        Put("s", "op", CHANGES),
        Put("s", "op", CHANGES[:1], False, Fence("p", 2), 7, Creation("p", 1.0, 2, {"a": 1})),
        Put("s", "op", (), released=Lease("w", 1, 2, "s"), age=1.5),
        Wrote(3, (Written("a", 1), Written("b", 0))),
        Wrote(3, ()),
    ],
)
def test_what_comes_back_is_the_same(one: Any) -> None:
    assert pickle.loads(pickle.dumps(one, protocol=5)) == one


def test_errors_of_changes_come_back() -> None:
    error = VersionConflict.of("a", 1, 2)
    back = pickle.loads(pickle.dumps(Wrote(3, (Written("a", 0, error),)), protocol=5))
    assert (type(back.outcome[0].error), vars(back.outcome[0].error)) == (VersionConflict, vars(error))
