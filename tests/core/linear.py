"""Whether what parties saw of one variable is linearizable. The store names the versions, so ten lines say
it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class Seen(Protocol):
    """A party knows that the variable had this version and value at some moment between two."""

    @property
    def version(self) -> int: ...
    @property
    def value(self) -> Any: ...
    @property
    def began(self) -> float: ...
    @property
    def ended(self) -> float: ...
    @property
    def wrote(self) -> bool: ...


def check_register(seen: Iterable[Seen]) -> None:
    """Raises AssertionError where a version has two values, two writes have one version, or an order is
    broken."""
    seen = list(seen)
    values: dict[int, Any] = {}
    for one in seen:
        assert values.setdefault(one.version, one.value) == one.value, "one version, two values"
    written = [one.version for one in seen if one.wrote]
    assert len(written) == len(set(written)), "two writes of one version"
    check_order(seen)


def check_order(seen: Iterable[Seen]) -> None:
    """Nothing that began after another ended has an older version."""
    moments = [(one.began, True, one.version) for one in seen]
    moments += [(one.ended, False, one.version) for one in seen]
    newest = 0
    for _, is_begin, version in sorted(moments):
        if is_begin:
            assert version >= newest, "older than what somebody had seen before"
        else:
            newest = max(newest, version)
