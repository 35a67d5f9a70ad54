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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from snakepit_ray.core.state.leases import Lease, Leases
from snakepit_ray.core.state.records import Variable, Version
from snakepit_ray.core.state.writes import Change, Delete, Outcome, Register, Set, Write, Written
from snakepit_ray.errors import SessionNotFound, SnakepitError, VariableNotFound, VersionConflict

Table = Mapping[str, Variable]


class Told(NamedTuple):
    """What the store is to do about one write.

    - `rows` are to be made durable together with `floor` and with `accepted`, the outcome that the write will
      have. None in place of a variable: it is removed.
    - The holders of `leases` are to let go of their copies.
    - `outcome`: it is decided already, because the write changes nothing or has come before."""

    rows: Mapping[str, Variable | None]
    leases: tuple[Lease, ...] = ()
    floor: int = 0
    accepted: Outcome = ()
    outcome: Outcome | None = None


@dataclass
class _Pending:
    op: str
    table: Table  # as it will be
    floor: int
    outcome: Outcome
    changes: bool  # and so has rows, which have to become durable
    is_durable: bool


class SessionState:
    """One session. Times are seconds: `now` of the store's monotonic clock, `at` since 1970.

    `floor`: the highest version of a variable that was deleted. A variable that is made later counts on from
    there, so that nobody takes it for the one that was. `ops`: outcomes of earlier writes, by their ids.
    `leases_until`: when leases end that a store before this one may have granted. `store`: see Leases."""

    def __init__(
        self,
        name: str,
        generation: int,
        variables: Table | None = None,
        floor: int = 0,
        ops: Mapping[str, Outcome] | None = None,
        leases_until: float = 0.0,
        store: int = 0,
    ) -> None:
        self.name = name
        self.generation = generation
        self.visible: Table = dict(variables or {})
        self.leases = Leases(leases_until, store)
        self.readable_from = leases_until
        self._floor = floor
        self._done: OrderedDict[str, Outcome] = OrderedDict(ops or {})
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
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
        table, floor, outcome = self._changed(write, at)
        rows = {
            one.name: table.get(one.name)
            for one in outcome
            if one.error is None and table.get(one.name) is not self._newest.get(one.name)
        }
        if not rows and not self._pending and now >= self.readable_from:
            return Told({}, outcome=outcome)
        self._pending[write.op] = _Pending(write.op, table, floor, outcome, bool(rows), not rows)
        return Told(rows, self.leases.standing(now), floor, outcome)

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
            self.visible, self._floor = pending.table, pending.floor
            found[op] = pending.outcome
            if pending.changes:
                self._done[op] = pending.outcome
        return found

    def forget(self, op: str) -> None:
        """The outcome of a write that nobody sends again."""
        self._done.pop(op, None)

    @property
    def floor(self) -> int:
        """The highest version of a variable that was deleted, as it is accepted."""
        return next(reversed(self._pending.values())).floor if self._pending else self._floor

    # ---- reads --------------------------------------------------------------------------------------------

    def lease(self, holder: str, now: float) -> Lease | None:
        """The lease by which `holder` may keep what it reads now and answer from it; None: it may not."""
        return None if self._pending else self.leases.grant(holder, now)

    # ---- how a write changes the table --------------------------------------------------------------------

    @property
    def _newest(self) -> Table:
        return next(reversed(self._pending.values())).table if self._pending else self.visible

    def _changed(self, write: Write, at: float) -> tuple[Table, int, Outcome]:
        table, floor, outcome = dict(self._newest), self.floor, []
        for change in write.changes:
            try:
                floor = max(floor, self._apply(table, floor, change, at))
                version = table[change.name].newest.number if change.name in table else 0
                outcome.append(Written(change.name, version))
            except SnakepitError as error:
                outcome.append(Written(change.name, 0, error))
        if write.is_atomic and any(one.error is not None for one in outcome):
            return self._newest, self.floor, tuple(outcome)
        return table, floor, tuple(outcome)

    def _apply(self, table: dict[str, Variable], floor: int, change: Change, at: float) -> int:
        """Makes one change. Returns the version that was deleted by it, or 0."""
        variable = table.get(change.name)
        if isinstance(change, Register):
            self._register(table, variable, floor, change, at)
            return 0
        if variable is None:
            raise VariableNotFound.named(change.name, self.name, table)
        number = variable.newest.number
        if change.expected not in (None, number):
            raise VersionConflict.of(change.name, change.expected or 0, number)
        if isinstance(change, Delete):
            del table[change.name]
            return number
        table[change.name] = self._set(variable, change, at)
        return 0

    def _register(
        self, table: dict[str, Variable], variable: Variable | None, floor: int, change: Register, at: float
    ) -> None:
        value = change.demand.accepted(change.value, change.name)
        number = floor + 1 if variable is None else variable.newest.number + 1
        before = () if variable is None or variable.demand != change.demand else variable.versions
        made = Variable(change.name, change.demand, change.metadata, before)
        table[change.name] = made.written(Version(number, value, at), number)

    def _set(self, variable: Variable, change: Set, at: float) -> Variable:
        value = variable.demand.accepted(change.value, change.name)
        version = Version(variable.newest.number + 1, value, at)
        return variable.written(version, version.number)

    def _refused(self, write: Write, error: SnakepitError) -> Outcome:
        return tuple(Written(change.name, 0, error) for change in write.changes)
