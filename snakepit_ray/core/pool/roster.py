"""Which workers a pool has, and what is to be done about each: facts come in, orders go out.

Rules:
- There are as many workers as the pool is to have, leavers not counted. One that is gone for good, or whose
  actor Ray refuses, is replaced by one with a new number.
- Handles hear of a worker when it is ready, never before, and of its loss at once.
- A worker that cannot start is tried again, ever more slowly.
- A worker whose actor died returns when Ray has restarted it.
- Nothing is added and nobody leaves before the roster is whole. After a restart of the router the workers
  that are there must first have had the time to say so.
- Starts wait for their turn (core/pool/starts.py).

The router performs the orders and reports what came of them. What is still to come needs further facts and no
further machine:

- A size between `min_size` and `max_size`: a rule about load calls `resize`.
- The node that a worker is to live on: the answer to SURVEY says so, and its row keeps it.
- A node's lease that ran out: DIED for all rows of that node.
"""

from __future__ import annotations

from snakepit_ray.core.pool.orders import Do, Order, RosterLimits
from snakepit_ray.core.pool.row import NEVER, Row, RowEvent, RowState, step
from snakepit_ray.core.pool.starts import NodeStarts, SpawnTurns
from snakepit_ray.core.pool.worker_ids import WorkerId
from snakepit_ray.errors import WorkerStartError

WATCH_AGAIN_SECONDS = 0.2  # after the death of an actor that Ray creates again
FIND_AGAIN_SECONDS = 1.0  # after the death of one that served: its restart may fail for good
START_AGAIN_SECONDS = 0.2  # its actor restarts, or our connection is to the one before
_CAN_SERVE = (RowState.STARTING, RowState.READY, RowState.QUARANTINED, RowState.FAILED)
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)  # after starts that failed


class Roster:
    """The workers of one pool. `version`, of the table that handles hold, rises with each of its changes."""

    def __init__(self, limits: RosterLimits, size: int, version: int = 1) -> None:
        self.size = size
        self.next_number = 0
        self.version = version
        self.is_whole = False
        self.is_closed = False
        self.rows: dict[str, Row] = {}
        self._limits = limits
        self._turns = SpawnTurns(limits.batch)
        self._starts = NodeStarts(limits.batch)
        self._orders: list[Order] = []

    def __repr__(self) -> str:
        states = ", ".join(f"{row.worker_id} {row.state}" for row in self.rows.values())
        return f"<Roster of {self.size}: {states or 'nobody'}>"

    def staying(self) -> list[Row]:
        """All that are not leaving."""
        return [row for row in self.rows.values() if row.state is not RowState.LEAVING]

    def next_at(self) -> float:
        """When `tick` is due; inf where nothing but a fact can change anything."""
        dues = min((row.due for row in self.rows.values()), default=NEVER)
        return min(dues, self._turns.next_at(), self._starts.next_at())

    # ---- facts about the pool -----------------------------------------------------------------------------

    def resize(self, size: int, now: float) -> list[Order]:
        """The pool is to have so many workers."""
        self.size = size
        self._order(Do.REMEMBER)
        for row in self.rows.values():
            if row.state is RowState.READY:
                self._order(Do.SHARE, row)
        return self._done(now)

    def adopt(self, size: int, next_number: int) -> None:
        """What the router before this one wanted."""
        self.size = size
        self.next_number = max(self.next_number, next_number)

    def whole(self, now: float) -> list[Order]:
        """All workers that there are have said so."""
        self.is_whole = True
        return self._done(now)

    def surveyed(self, nodes: int, room: float, no_room: Exception | None, now: float) -> list[Order]:
        """The cluster has so many nodes and room for so many workers of this pool; `no_room` says that for
        the others. They are created as well: other nodes may come."""
        self._turns.at_once = self._limits.batch * max(1, nodes)
        for index, row in enumerate(self.rows.values()):
            if index >= room and row.state is RowState.WANTED and not row.is_judged:
                self._give_up(row, no_room)
        return self._done(now)

    def close(self, now: float) -> list[Order]:
        """The pool ends: every worker does, and no other comes."""
        self.is_closed = True
        for row in list(self.rows.values()):
            self._out(row, now, end=True)
        return self._done(now)

    def tick(self, now: float) -> list[Order]:
        """Time has passed."""
        for worker_id in self._turns.ended(now):
            self._turns.over(worker_id)
            row = self.rows[worker_id]
            if not row.is_here:
                self._give_up(row, self._too_late(row))
        for row in [row for row in self.rows.values() if row.due <= now]:
            self._retry(row, now)
        return self._done(now)

    # ---- facts about a worker -----------------------------------------------------------------------------

    def found(self, worker_id: str, now: float) -> list[Order]:
        """The router before this one had created a worker that has not reported: it waits for room."""
        if worker_id not in self.rows:
            self._order(Do.WATCH, self._enter(worker_id, RowState.SPAWNED))
        return self._done(now)

    def created(self, worker_id: str, now: float) -> list[Order]:
        """Ray has taken its actor."""
        row = self.rows.get(worker_id)
        if row is None:  # it is not wanted any more
            return [Order(Do.END, worker_id)]
        if row.state is RowState.WANTED:
            self._step(row, RowEvent.CREATED)
        self._order(Do.WATCH, row)
        if row.is_judged:
            self._turns.over(worker_id)
        self._turns.limit(worker_id, now + self._arrival)
        return self._done(now)

    def refused(self, worker_id: str, error: Exception, now: float) -> list[Order]:
        """Ray does not create its actor, or its creation failed for good."""
        row = self.rows.get(worker_id)
        if row is not None and not row.is_here:
            row.error, row.is_settled, row.due = error, True, now + RETRY_SECONDS[-1]
            self._turns.over(worker_id)
            if row.state is not RowState.FAILED:
                self._step(row, RowEvent.REFUSED)
        return self._done(now)

    def came(
        self, worker_id: str, incarnation: int, node_id: str, event: RowEvent, now: float
    ) -> list[Order]:
        """A worker's actor reports. It is new, or was restarted, or has been there all the time where the
        router was restarted. `event`: CAME, SERVES, TROUBLED, or LEAVE for one that the router before this
        one was letting go."""
        if self.is_closed:
            return []
        row = self.rows.get(worker_id) or self._enter(worker_id, RowState.SPAWNED)
        if row.state is RowState.LEAVING:
            return self._done(now)
        row.is_here, row.is_overdue, row.error, row.due = True, False, None, NEVER
        row.incarnation, row.node_id = incarnation, node_id
        self._turns.limit(worker_id, now + self._arrival + self._limits.startup)
        self._order(Do.WATCH, row)
        if event is RowEvent.LEAVE:
            self._leave(row, now)
        elif event is RowEvent.CAME:
            self._to_start(row, event)
        else:
            self._step(row, event)
            self._order(Do.SHARE, row)
        return self._done(now)

    def started(self, worker_id: str, incarnation: int, now: float) -> list[Order]:
        """Its interpreter serves."""
        self._starts.over(worker_id, now + self._limits.delay)
        row = self._speaking(worker_id, incarnation)
        if row is not None:
            row.error, row.attempts, row.due, row.incarnation = None, 0, NEVER, incarnation
            self._step(row, RowEvent.SERVES)
        return self._done(now)

    def interrupted(self, worker_id: str, now: float) -> list[Order]:
        """Its actor did not answer to its start: it restarts, or nobody knows yet that it died."""
        self._starts.over(worker_id, now)
        row = self.rows.get(worker_id)
        if row is not None and row.state is RowState.STARTING:
            row.due = now + START_AGAIN_SECONDS
        return self._done(now)

    def could_not_start(self, worker_id: str, error: Exception, now: float) -> list[Order]:
        """Its interpreter did not start."""
        self._starts.over(worker_id, now)
        row = self.rows.get(worker_id)
        if row is not None and row.is_here and row.state in (RowState.STARTING, RowState.QUARANTINED):
            row.error, row.due = error, now + RETRY_SECONDS[min(row.attempts, len(RETRY_SECONDS) - 1)]
            row.attempts += 1
            self._step(row, RowEvent.UNABLE)
        return self._done(now)

    def troubled(self, worker_id: str, incarnation: int, now: float) -> list[Order]:
        """Its interpreters fail too often: it is quarantined."""
        row = self._speaking(worker_id, incarnation)
        if row is not None:
            self._step(row, RowEvent.TROUBLED)
        return self._done(now)

    def recovered(self, worker_id: str, incarnation: int, now: float) -> list[Order]:
        """It serves again after a quarantine."""
        row = self._speaking(worker_id, incarnation)
        if row is not None and row.state is RowState.QUARANTINED:
            row.error, row.attempts = None, 0
            self._step(row, RowEvent.SERVES)
        return self._done(now)

    def died(self, worker_id: str, incarnation: int, now: float) -> list[Order]:
        """Its actor died, and Ray restarts it or creates it again."""
        row = self._watched(worker_id, incarnation)
        if row is not None and (row.is_here or row.state is RowState.SPAWNED):
            if row.state in _CAN_SERVE:
                self._order(Do.LOST, row)
            row.due = now + (FIND_AGAIN_SECONDS if row.is_here else WATCH_AGAIN_SECONDS)
            self._step(row, RowEvent.DIED)
        return self._done(now)

    def gone(self, worker_id: str, incarnation: int, error: Exception, now: float) -> list[Order]:
        """Its actor died for good."""
        row = self._watched(worker_id, incarnation)
        if row is not None and not row.is_here:
            return self.refused(worker_id, error, now)
        if row is not None:
            if row.state in _CAN_SERVE:
                self._order(Do.LOST, row)
            self._out(row, now)
        return self._done(now)

    def left(self, worker_id: str, now: float) -> list[Order]:
        """A leaver has ended."""
        row = self.rows.get(worker_id)
        if row is not None:
            self._out(row, now)
        return self._done(now)

    # ---- what follows -------------------------------------------------------------------------------------

    @property
    def _arrival(self) -> float:
        return max(self._limits.arrival, self._limits.startup)

    def _speaking(self, worker_id: str, incarnation: int) -> Row | None:
        """The row that a worker's words are about: not where they are those of a process that has ended."""
        row = self.rows.get(worker_id)
        if row is None or not row.is_here or row.incarnation > incarnation:
            return None
        return row if row.state in _CAN_SERVE else None

    def _watched(self, worker_id: str, incarnation: int) -> Row | None:
        """The row that the end of a process concerns: not one that is leaving, or whose next process came."""
        row = self.rows.get(worker_id)
        if row is None or row.state is RowState.LEAVING:
            return None
        return row if row.incarnation == incarnation else None

    def _done(self, now: float) -> list[Order]:
        """What follows from a fact: workers come and go until there are as many as wanted, and who may begin
        does."""
        if self.is_whole and not self.is_closed:
            self._balance(now)
        for worker_id in self._turns.begin():
            self._order(Do.SPAWN, self.rows[worker_id])
        for worker_id in self._starts.begin(now):
            self._order(Do.START, self.rows[worker_id])
        orders, self._orders = self._orders, []
        return orders

    def _balance(self, now: float) -> None:
        staying = self.staying()
        missing = range(self.next_number, self.next_number + self.size - len(staying))
        for number in missing:
            worker_id = str(WorkerId(self._limits.pool, number))
            self._enter(worker_id, RowState.WANTED)
            self._turns.wait(worker_id)
        if missing:
            self._order(Do.SURVEY)
            self._order(Do.REMEMBER)
        for row in sorted(staying, key=_leaves_last)[self.size :]:
            self._leave(row, now)

    def _enter(self, worker_id: str, state: RowState) -> Row:
        number = WorkerId.parse(worker_id).number
        row = self.rows[worker_id] = Row(worker_id, number, state)
        self.next_number = max(self.next_number, number + 1)
        self._order(Do.ENTER, row)
        return row

    def _step(self, row: Row, event: RowEvent) -> None:
        served = row.state is RowState.READY
        row.state = step(row.state, event)
        serves = row.state is RowState.READY
        row.is_settled |= row.state in (RowState.READY, RowState.FAILED)
        if row.is_settled:
            self._turns.over(row.worker_id)
        self.version += served or serves
        if serves:
            self._order(Do.SERVE, row)
        elif served and row.state is not RowState.LEAVING:
            self._order(Do.UNSERVE, row)
        self._order(Do.PUBLISH)

    def _to_start(self, row: Row, event: RowEvent) -> None:
        self._step(row, event)
        self._starts.wait(row.worker_id, row.node_id)

    def _retry(self, row: Row, now: float) -> None:
        row.due = NEVER
        if row.state in (RowState.SPAWNED, RowState.LOST):
            self._order(Do.WATCH, row)
        elif row.state is RowState.STARTING:
            self._starts.wait(row.worker_id, row.node_id)
        elif row.is_here:
            self._to_start(row, RowEvent.AGAIN)
        else:
            self._out(row, now)

    def _leave(self, row: Row, now: float) -> None:
        if not row.is_here:
            self._out(row, now, end=True)
            return
        self._starts.over(row.worker_id, now)
        self._turns.over(row.worker_id)
        row.due = NEVER
        self._step(row, RowEvent.LEAVE)
        self._order(Do.LEAVE, row)

    def _out(self, row: Row, now: float, *, end: bool = False) -> None:
        self._starts.over(row.worker_id, now)
        self._turns.over(row.worker_id)
        self._step(row, RowEvent.OUT)
        del self.rows[row.worker_id]
        for do in (Do.END, Do.FORGET) if end else (Do.FORGET,):
            self._order(do, row)
        self._order(Do.REMEMBER)

    def _give_up(self, row: Row, error: Exception | None) -> None:
        row.is_overdue, row.error = True, error
        self._order(Do.GIVE_UP, row)
        self._order(Do.PUBLISH)

    def _too_late(self, row: Row) -> WorkerStartError:
        return WorkerStartError(
            f"Ray did not start the actor of worker {row.worker_id}, which asks for {self._limits.asked}, "
            f"within {self._arrival:g} s: other work may occupy the cluster; free what it occupies, or raise "
            "startup_timeout"
        )

    def _order(self, do: Do, row: Row | None = None) -> None:
        order = Order(do, row.worker_id if row is not None else "")
        if row is not None or order not in self._orders:
            self._orders.append(order)


def _leaves_last(row: Row) -> tuple[bool, int]:
    """Those that serve stay, the oldest first."""
    return row.state is not RowState.READY, row.number
