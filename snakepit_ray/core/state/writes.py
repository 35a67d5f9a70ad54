"""What a write of a session's variables asks for, and what becomes of each of its changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from snakepit_ray.core.state.constraints import Demand
from snakepit_ray.errors import SnakepitError


@dataclass(frozen=True)
class Set:
    """Gives a variable a value. `expected`: the version that it must have, 0: there must be none; None: any.
    `demand`: of the variable that is made where there is none; None: it must be there."""

    name: str
    value: Any
    expected: int | None = None
    demand: Demand | None = None


@dataclass(frozen=True)
class Register:
    """Makes a variable. One that is there already, with the same demand, is written."""

    name: str
    value: Any
    demand: Demand
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Delete:
    """Removes a variable. `expected` as in Set."""

    name: str
    expected: int | None = None


@dataclass(frozen=True)
class Revert:
    """Gives a variable the value of an earlier version that is kept, as a new version. `expected` as in
    Set."""

    name: str
    version: int
    expected: int | None = None


Change = Set | Register | Delete | Revert


@dataclass(frozen=True)
class Write:
    """Some changes of one session's variables, which become visible at one moment.

    `op`: an id of the writer's choice, the same when the same write is sent again. `generation`: of the
    session that the writer has in mind; 0: whichever there is. `is_atomic`: all of the changes or none."""

    op: str
    changes: tuple[Change, ...]
    is_atomic: bool = True
    generation: int = 0


class Written(NamedTuple):
    """What became of one change: the variable's version from now on, or why nothing changed."""

    name: str
    version: int
    error: SnakepitError | None = None


Outcome = tuple[Written, ...]
