"""What watchers of a session are told: which variables have changed since the change that they know.

- Changes of a session are numbered, and the number is the watchers' cursor.
- The names of the last changes are remembered, so that an answer costs what has changed, not what there is.
- A watcher from before that is told of all variables, and of the deleted ones that are still known: of
  KEPT_GONE in any case. Versions that it missed are then counted from those that are kept.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from snakepit_ray.core.state.records import Gone, Variable

KEPT_CHANGES = 10_000
KEPT_GONE = 10_000


class Changed(NamedTuple):
    """A variable that has changed; None: it was deleted. `skipped`: versions that were written meanwhile,
    without the newest."""

    name: str
    variable: Variable | None
    gone: Gone | None
    skipped: int


class _Line(NamedTuple):
    change: int
    name: str
    versions: int  # that it has made


class Story:
    """The changes of one session's `variables`, a table that is shared with its owner. `gone`: variables that
    were deleted."""

    def __init__(self, variables: Mapping[str, Variable], gone: Mapping[str, Gone]) -> None:
        self._variables = variables
        self.gone: OrderedDict[str, Gone] = OrderedDict(
            sorted(gone.items(), key=lambda item: item[1].changed)
        )
        newest = [variable.newest.changed for variable in variables.values()]
        self.cursor = max([0, *newest, *(one.changed for one in gone.values())])
        self._lines: deque[_Line] = deque(maxlen=KEPT_CHANGES)
        self._complete_from = self.cursor  # all later changes have their lines

    def tell(
        self, name: str, before: Variable | None, variable: Variable | None, change: int, at: float
    ) -> None:
        """A change has become visible; the variable is in the table already, or out of it."""
        self.gone.pop(name, None)
        old = 0 if before is None else before.newest.number
        if variable is None:
            self.gone[name] = Gone(old, at, change)
            while len(self.gone) > KEPT_GONE:
                self.gone.popitem(last=False)
        self.cursor = change
        if len(self._lines) == KEPT_CHANGES:
            self._complete_from = self._lines[0].change
        versions = 0 if variable is None else 1 if before is None else variable.newest.number - old
        self._lines.append(_Line(change, name, versions))

    def since(self, cursor: int, means: Callable[[str], bool]) -> list[Changed]:
        """What has changed after `cursor`, of the names that `means` wants, in the order of the changes.
        After 0: all variables."""
        if cursor == 0:
            found = [self._changed(name, 0) for name in self._variables if means(name)]
        elif cursor >= self._complete_from:
            found = [
                self._changed(name, count) for name, count in self._counts(cursor).items() if means(name)
            ]
        else:
            found = [
                self._changed(name, self._known(name, cursor)) for name in self._all(cursor) if means(name)
            ]
        return sorted(found, key=_number)

    def _counts(self, cursor: int) -> dict[str, int]:
        counts: dict[str, int] = {}
        for line in reversed(self._lines):
            if line.change <= cursor:
                break
            counts[line.name] = counts.get(line.name, 0) + line.versions
        return counts

    def _all(self, cursor: int) -> Iterable[str]:
        yield from (name for name, one in self._variables.items() if one.newest.changed > cursor)
        yield from (name for name, one in self.gone.items() if one.changed > cursor)

    def _known(self, name: str, cursor: int) -> int:
        variable = self._variables.get(name)
        return 0 if variable is None else sum(one.changed > cursor for one in variable.versions)

    def _changed(self, name: str, versions: int) -> Changed:
        variable = self._variables.get(name)
        shown = 0 if variable is None else 1
        return Changed(name, variable, self.gone.get(name), max(0, versions - shown))


def _number(one: Changed) -> int:
    if one.variable is not None:
        return one.variable.newest.changed
    return one.gone.changed if one.gone is not None else 0
