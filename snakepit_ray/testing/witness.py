"""How to read what witnesses wrote (adapters.py): which interpreters there were, what ran in them.

- Pure: text in, facts out.
- What a killed writer left unfinished at the end of the file is ignored.
- An interpreter is its token, because a pid comes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Incarnation(NamedTuple):
    """One interpreter that got as far as its adapter's setup; `parent` is its worker actor's process."""

    token: str
    pid: int
    parent: int


@dataclass
class Witnessed:
    """Everything that the log says. `begun`: for each tag the tokens of the interpreters that began it;
    `ended`: those that ended it, and when (time.monotonic)."""

    incarnations: dict[str, Incarnation] = field(default_factory=dict)
    begun: dict[str, list[str]] = field(default_factory=dict)
    ended: dict[str, list[tuple[str, float]]] = field(default_factory=dict)

    def unfinished(self, token: str, at: float = float("inf")) -> list[str]:
        """Tags that were begun and not ended in one interpreter until that time."""
        return [
            tag
            for tag, tokens in self.begun.items()
            if tokens.count(token) > sum(one == token and t <= at for one, t in self.ended.get(tag, ()))
        ]


def read(lines: Iterable[str]) -> Witnessed:
    """The log, line by line; lines that it does not know are others'."""
    seen = Witnessed()
    for line in lines:
        kind, *rest = line.split() or [""]
        if kind == "up" and len(rest) == 3 and rest[1].isdigit() and rest[2].isdigit():
            seen.incarnations[rest[0]] = Incarnation(rest[0], int(rest[1]), int(rest[2]))
        elif kind == "begin" and len(rest) == 2:
            seen.begun.setdefault(rest[0], []).append(rest[1])
        elif kind == "end" and len(rest) == 3 and (at := _time(rest[2])) is not None:
            seen.ended.setdefault(rest[0], []).append((rest[1], at))
    return seen


def _time(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
