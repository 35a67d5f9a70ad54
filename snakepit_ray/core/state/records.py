"""What the store keeps of a session: its variables with their last versions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from snakepit_ray.core.state.asked import Data
from snakepit_ray.core.state.constraints import Demand

_NO_METADATA: Mapping[str, Any] = MappingProxyType({})
KEPT_VERSIONS = 10
LARGE = 65_536  # bytes: from there on a value is kept only while it is the newest


class Version(NamedTuple):
    """One value of a variable. `number` rises by one with each write. `at`: seconds since 1970. `changed`:
    the number of the session's change that wrote it."""

    number: int
    value: Any
    at: float
    changed: int = 0


class Variable(NamedTuple):
    """One variable: its newest version is the last of `versions`, of which the last KEPT_VERSIONS are kept,
    of large values only the newest."""

    name: str
    demand: Demand
    metadata: Mapping[str, Any] = _NO_METADATA
    versions: tuple[Version, ...] = ()

    @property
    def newest(self) -> Version:
        """The value that a read gets."""
        return self.versions[-1]

    def written(self, version: Version) -> Variable:
        """The variable after a write."""
        before = self.versions
        if before and size_of(before[-1].value) >= LARGE:
            before = before[:-1]
        return Variable(self.name, self.demand, self.metadata, (*before, version)[-KEPT_VERSIONS:])

    def numbers(self) -> set[int]:
        """Of the versions that are kept."""
        return {one.number for one in self.versions}


class Gone(NamedTuple):
    """A variable that was deleted, so that watchers hear of it. `number`: the version that it had."""

    number: int
    at: float
    changed: int


def size_of(value: Any) -> int:
    """Bytes of an encoded value."""
    return len(value.json) + sum(map(len, value.buffers)) if isinstance(value, Data) else 0
