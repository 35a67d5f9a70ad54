"""Which request of a chain of calls may wait for a slot, so that chains that wait for each other end.

A command that calls a command of a pool holds its slot while it waits. Two chains may so hold what the other
one needs. The rule is local to one worker:

- A request that another command has made may wait at a worker only while some holder of a slot there does
  not itself wait for a call, or belongs to a younger chain.
- That is looked at again whenever a holder begins to wait.

Proof. Suppose that a set of chains waits for ever, and take its youngest. It waits at a worker whose
holders all wait (one that does not ends at some time, and the slot is free), and each of them belongs to the
set. None of them is younger than the youngest. So the rule forbids that wait.

The age of a chain is that of its first request, which has no other's: a time and an id.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Age(NamedTuple):
    """When a chain began (milliseconds since 1970), and the id of its first request. The older is the
    smaller."""

    began_ms: int
    root: str


class Holder(NamedTuple):
    """A request that has a slot. `is_waiting`: for a call that it has made, or for one that made it to take
    its values."""

    age: Age
    is_waiting: bool


def may_wait(age: Age, holders: Collection[Holder], slots: int) -> bool:
    """Whether a request of that chain may wait at a worker of so many `slots`. Where one is free it is not
    the holders that it waits for."""
    if len(holders) < slots:
        return True
    return any(not holder.is_waiting or holder.age > age for holder in holders)
