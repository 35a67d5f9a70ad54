"""What the store keeps of a session: its variables with their last versions. Values are opaque here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from snakepit_ray.core.state.constraints import Demand

KEPT_VERSIONS = 10


@dataclass(frozen=True)
class Version:
    """One value of a variable. `number` rises by one with each write. `at`: seconds since 1970."""

    number: int
    value: Any
    at: float


@dataclass(frozen=True)
class Variable:
    """One variable: its newest version is the last of `versions`, of which the last KEPT_VERSIONS are kept.

    `changed`: the number of the session's change that wrote it."""

    name: str
    demand: Demand
    metadata: Mapping[str, Any] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()
    changed: int = 0

    @property
    def newest(self) -> Version:
        """The value that a read gets."""
        return self.versions[-1]

    def written(self, version: Version, changed: int) -> Variable:
        """The variable after a write."""
        return replace(self, versions=(*self.versions, version)[-KEPT_VERSIONS:], changed=changed)
