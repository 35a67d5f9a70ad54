"""A state machine as one table: states, events, and what leads where.

- The table is the whole truth, and `step` the only way through it.
- An event that a state does not know is a fault of ours, and raises.
- The diagrams of the documentation are drawn from the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


class UnknownEvent(Exception):
    """An event that its state does not know."""


class Machine(Generic[S, E]):
    """One table. `what` names the thing that has the states. It begins in `start` and ends in `end`."""

    def __init__(self, what: str, transitions: Mapping[tuple[S, E], S], start: S, end: S) -> None:
        self.what = what
        self.transitions = transitions
        self.start = start
        self.end = end

    def step(self, state: S, event: E) -> S:
        """The state after `event`. Raises UnknownEvent naming what would have been possible."""
        try:
            return self.transitions[state, event]
        except KeyError:
            possible = ", ".join(known.value for at, known in self.transitions if at is state)
            raise UnknownEvent(
                f"{self.what} that is {state.value} does not know {event.value}; it knows {possible}"
            ) from None

    def diagram(self) -> str:
        """The table as a Mermaid state diagram."""
        arrows: dict[tuple[S, S], list[str]] = {}
        for (state, event), after in self.transitions.items():
            if (state, after) != (self.end, self.end):
                arrows.setdefault((state, after), []).append(event.value)
        lines = [
            f"    {state.value} --> {after.value}: {', '.join(events)}"
            for (state, after), events in arrows.items()
        ]
        begin, end = f"    [*] --> {self.start.value}", f"    {self.end.value} --> [*]"
        return "\n".join(["stateDiagram-v2", begin, *lines, end])
