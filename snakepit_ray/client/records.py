"""What the store's answers are to users: variables, versions and changes, with their values decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from snakepit_ray.core.state.asked import Data, VariableChange, VariableInfo, Versioned
from snakepit_ray.wire.codec import decode_value


class VersionedValue(NamedTuple):
    """A variable's value, and its version: 1 at first, and one more with each write."""

    value: Any
    version: int


class PastValue(NamedTuple):
    """One version of a variable. `at`: when it was written, in seconds since 1970."""

    version: int
    value: Any
    at: float


class FoundValues(NamedTuple):
    """The values of the variables that there are, by name, and the names that there are not."""

    found: dict[str, Any]
    missing: list[str]


@dataclass(frozen=True)
class Variable:
    """One variable as it is now. `type`: its name, such as "float". `at`: when its newest version was
    written, in seconds since 1970."""

    name: str
    type: str
    value: Any
    version: int
    constraints: Mapping[str, Any]
    metadata: Mapping[str, Any]
    at: float


@dataclass(frozen=True)
class Change:
    """A variable as a watcher sees it. `skipped`: versions since the watcher's last change of this variable
    that it does not see. A variable that was deleted has `deleted`, no value, and version 0."""

    name: str
    value: Any
    version: int
    skipped: int = 0
    deleted: bool = False


def value_of(data: Data, what: str = "value") -> Any:
    """The value; arrays are read-only. `what` begins the path in the message of an EncodingError."""
    return decode_value(data.json, data.buffers, what)


def variable_of(info: VariableInfo) -> Variable:
    """A variable as users see it."""
    newest = info.newest
    value = value_of(newest.value, info.name)
    return Variable(info.name, info.type, value, newest.version, info.constraints, info.metadata, newest.at)


def past_value(versioned: Versioned) -> PastValue:
    """A version as users see it."""
    return PastValue(versioned.version, value_of(versioned.value), versioned.at)


def change_of(change: VariableChange) -> Change:
    """A change as users see it."""
    newest = change.newest
    if newest is None:
        return Change(change.name, None, 0, change.skipped, deleted=True)
    return Change(change.name, value_of(newest.value, change.name), newest.version, change.skipped)
