"""One session's variables in the store: what a write changes, when others see it, when it is acknowledged.

Reads and writes are linearizable, whether a read is answered by the store or from a copy under a lease:

- A write is accepted in the order of arrival, and checked against what was accepted before it.
- It becomes visible, and is acknowledged, when it is durable and nobody holds a copy of the session.
- While a write is on its way no lease is granted: nobody would end it before its time, and the write would
  wait for it. Reads see what is visible.
- A store that takes over from one that died answers nothing before that one's leases have ended: what it
  finds durable may not have been visible, because of them.
- A write that comes again, by its id, is not made again: it has the same outcome.
- A write that is refused says nothing of what is not visible yet: its turn comes after the writes before it.
- Where a write cannot be made durable, those that were accepted after it fail with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from snakepit_ray.core.state.constraints import Demand
from snakepit_ray.core.state.leases import Lease, Leases
from snakepit_ray.core.state.records import Gone, Variable, Version
from snakepit_ray.core.state.story import Story
from snakepit_ray.core.state.writes import Change, Delete, Outcome, Register, Revert, Set, Write, Written
from snakepit_ray.errors import (
    InvalidArguments,
    SessionNotFound,
    SnakepitError,
    VariableNotFound,
    VersionConflict,
)

Table = Mapping[str, Variable]
Rows = Mapping[str, Variable | None]
Accept = Callable[[Demand, Any, str], Any]
_NO_ROWS: Rows = {}
SHOWN_NAMES = 100  # of variables that there are, in a message about one that there is not


class Told(NamedTuple):
    """What the store is to do about one write.

    - `rows` are to be made durable together with `floor` and with `accepted`, the outcome that the write will
      have. None in place of a variable: it is removed. `before`: what they replace. `change`: the number of
      the session's change.
    - The holders of `leases` are to let go of their copies.
    - `outcome`: it is decided already, because the write changes nothing or has come before."""

    rows: Rows
    leases: tuple[Lease, ...] = ()
    floor: int = 0
    accepted: Outcome = ()
    outcome: Outcome | None = None
    before: Rows = _NO_ROWS
    change: int = 0


@dataclass
class _Pending:
    op: str
    rows: Rows  # what it changes
    before: Rows
    floor: int
    change: int
    outcome: Outcome
    at: float
    is_durable: bool

    @property
    def changes(self) -> bool:
        return bool(self.rows)


class SessionState:
    """One session. Times are seconds: `now` of the store's monotonic clock, `at` since 1970.

    `floor`: the highest version of a variable that was deleted. A variable that is made later counts on from
    there, so that nobody takes it for the one that was. `ops`: outcomes of earlier writes, by their ids.
    `leases_until`: when leases end that a store before this one may have granted. `store`: see Leases.
    `gone`: variables that were deleted. `accept`: what becomes of a value that a demand is made of.
    `numbers`: of leases."""

    def __init__(
        self,
        name: str,
        generation: int,
        variables: Table | None = None,
        floor: int = 0,
        ops: Mapping[str, Outcome] | None = None,
        leases_until: float = 0.0,
        store: int = 0,
        gone: Mapping[str, Gone] | None = None,
        accept: Accept = Demand.accepted,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self.name = name
        self.generation = generation
        self.visible: dict[str, Variable] = dict(variables or {})
        self.leases = Leases(leases_until, store, numbers, name)
        self.readable_from = leases_until
        self.story = Story(self.visible, gone or {})
        self._accept = accept
        self._floor = floor
        self._done: OrderedDict[str, Outcome] = OrderedDict(ops or {})
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._accepted: dict[str, Variable | None] = {}  # the newest of each name with a change on its way
        self._again: list[str] = []  # to be answered once more

    # ---- writes -------------------------------------------------------------------------------------------

    def write(self, write: Write, now: float, at: float) -> Told:
        """Accepts a write, or says why not. One that is on its way already has no rows and no outcome yet."""
        if write.op in self._pending:
            return Told({})
        if write.op in self._done:
            if now >= self.readable_from:
                return Told({}, outcome=self._done[write.op])
            self._again.append(write.op)
            return Told({})
        if write.generation not in (0, self.generation):
            return Told({}, outcome=self._refused(write, SessionNotFound.named(self.name)))
        rows, floor, outcome = _Draft(self, at).of(write)
        if not rows and not self._pending and now >= self.readable_from:
            return Told({}, outcome=outcome)
        before = {name: self.newest(name) for name in rows}
        change = self._change + bool(rows)
        self._pending[write.op] = _Pending(write.op, rows, before, floor, change, outcome, at, not rows)
        self._accepted.update(rows)
        return Told(rows, self.leases.standing(now), floor, outcome, None, before, change)

    def durable(self, op: str) -> None:
        """A write's rows will outlive this process."""
        pending = self._pending.get(op)
        if pending is not None:
            pending.is_durable = True

    def failed(self, op: str, error: SnakepitError) -> dict[str, Outcome]:
        """A write's rows could not be made durable. Returns: the outcomes of all writes that fail with it."""
        ops = list(self._pending)
        lost = ops[ops.index(op) :] if op in self._pending else []
        found = {}
        for one in lost:
            pending = self._pending.pop(one)
            found[one] = tuple(Written(each.name, 0, each.error or error) for each in pending.outcome)
        self._accepted.clear()
        for kept in self._pending.values():
            self._accepted.update(kept.rows)
        return found

    def settled(self, now: float) -> dict[str, Outcome]:
        """Makes visible what may be. Returns: the outcomes to acknowledge, in their order."""
        found: dict[str, Outcome] = {}
        if not (self._pending or self._again) or self.leases.free_from(now) > now:
            return found
        found.update((op, self._done[op]) for op in self._again)
        self._again.clear()
        while self._pending and next(iter(self._pending.values())).is_durable:
            op, pending = self._pending.popitem(last=False)
            self._show(pending)
            found[op] = pending.outcome
            if pending.changes:
                self._done[op] = pending.outcome
        return found

    def _show(self, pending: _Pending) -> None:
        self._floor = pending.floor
        for name, variable in pending.rows.items():
            if self._accepted.get(name) is variable:  # else a later write has the name, too
                self._accepted.pop(name, None)
            if variable is None:
                self.visible.pop(name, None)
            else:
                self.visible[name] = variable
            self.story.tell(name, pending.before[name], variable, pending.change, pending.at)

    def forget(self, op: str) -> bool:
        """The outcome of a write that nobody sends again, or that somebody else remembers from now on.
        Returns: whether there was one."""
        return self._done.pop(op, None) is not None

    @property
    def floor(self) -> int:
        """The highest version of a variable that was deleted, as it is accepted."""
        return next(reversed(self._pending.values())).floor if self._pending else self._floor

    @property
    def is_idle(self) -> bool:
        """No write is on its way."""
        return not self._pending

    @property
    def may_settle(self) -> bool:
        """The write that came first is durable, so that something may become visible."""
        return bool(self._pending) and next(iter(self._pending.values())).is_durable

    @property
    def _change(self) -> int:
        return next(reversed(self._pending.values())).change if self._pending else self.story.cursor

    # ---- reads --------------------------------------------------------------------------------------------

    def lease(self, holder: str, now: float) -> Lease | None:
        """The lease by which `holder` may keep what it reads now and answer from it; None: it may not."""
        return None if self._pending else self.leases.grant(holder, now)

    def newest(self, name: str) -> Variable | None:
        """The variable as the last write that was accepted leaves it."""
        return self._accepted[name] if name in self._accepted else self.visible.get(name)

    def names(self) -> list[str]:
        """Some of the variables that there are, for a message."""
        return list(islice(self.visible, SHOWN_NAMES))

    def accepted(self, demand: Demand, value: Any, name: str) -> Any:
        """The value as it is kept. Raises VariableTypeError, ConstraintViolation."""
        return self._accept(demand, value, name)

    def number_of_the_next_change(self) -> int:
        """Of the session's changes, the next one's."""
        return self._change + 1

    def _refused(self, write: Write, error: SnakepitError) -> Outcome:
        return tuple(Written(change.name, 0, error) for change in write.changes)


class _Draft:
    """What one write makes of the variables that it names. Costs what it names, not what there is."""

    def __init__(self, session: SessionState, at: float) -> None:
        self._session = session
        self._at = at
        self._change = session.number_of_the_next_change()
        self._rows: dict[str, Variable | None] = {}
        self._floor = session.floor

    def of(self, write: Write) -> tuple[Rows, int, Outcome]:
        """What becomes of the variables, of the session's floor, and of each change."""
        outcome = []
        for change in write.changes:
            try:
                self._apply(change)
                made = self._now(change.name)
                outcome.append(Written(change.name, made.newest.number if made is not None else 0))
            except SnakepitError as error:
                outcome.append(Written(change.name, 0, error))
        if write.is_atomic and any(one.error is not None for one in outcome):
            return {}, self._session.floor, tuple(outcome)
        return self._rows, self._floor, tuple(outcome)

    def _now(self, name: str) -> Variable | None:
        return self._rows[name] if name in self._rows else self._session.newest(name)

    def _apply(self, change: Change) -> None:
        variable = self._now(change.name)
        if isinstance(change, Register):
            self._rows[change.name] = self._registered(variable, change)
            return
        if variable is None and isinstance(change, Set) and change.demand is not None and not change.expected:
            made = Register(change.name, change.value, change.demand)
            self._rows[change.name] = self._registered(None, made)
            return
        if variable is None:
            raise VariableNotFound.named(change.name, self._session.name, self._session.names())
        number = variable.newest.number
        if change.expected not in (None, number):
            raise VersionConflict.of(change.name, change.expected or 0, number)
        if isinstance(change, Delete):
            self._floor = max(self._floor, number)
            self._rows[change.name] = None
        elif isinstance(change, Set):
            value = self._session.accepted(variable.demand, change.value, change.name)
            self._rows[change.name] = self._written(variable, value, number + 1)
        else:
            self._rows[change.name] = self._written(variable, _earlier(variable, change), number + 1)

    def _registered(self, variable: Variable | None, change: Register) -> Variable:
        value = self._session.accepted(change.demand, change.value, change.name)
        number = self._floor + 1 if variable is None else variable.newest.number + 1
        before = () if variable is None or variable.demand != change.demand else variable.versions
        return self._written(Variable(change.name, change.demand, change.metadata, before), value, number)

    def _written(self, variable: Variable, value: Any, number: int) -> Variable:
        return variable.written(Version(number, value, self._at, self._change))


def _earlier(variable: Variable, change: Revert) -> Any:
    for version in variable.versions:
        if version.number == change.version:
            return version.value
    kept = ", ".join(str(number) for number in sorted(variable.numbers()))
    raise InvalidArguments(
        f"variable {change.name!r} has no version {change.version} to go back to; it has {kept} (the last "
        "versions are kept, of large values only the newest)",
        details={"variable": change.name, "version": change.version},
    )
