"""The router's table of workers: the roster's rows, the actors, what each said last, and what the pool adds
up to. Plain data.

Rules:
- The table's version rises with every change that a handle must know, and starts above those of a router
  before this one.
- Counters of workers that left are kept, so that a pool's numbers never fall.
- Every worker that the pool is to have has its facts, also one that has not come yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from snakepit_ray.core.pool.roster import Roster
from snakepit_ray.core.pool.row import ALIVE, Row, RowState
from snakepit_ray.core.worker.lifecycle import WorkerState
from snakepit_ray.port.messages import COUNTED, Entry, PoolStats, WorkerFacts
from snakepit_ray.wire.lane import Lane

MOST_DEPARTED = 1000
LOST_WORDS = "its actor died; Ray starts it again"


@dataclass
class Member:
    """One worker as the router knows it. `actor`: None before Ray has taken it. `facts`: what it said last,
    None before it reported."""

    row: Row
    actor: Any = None
    facts: WorkerFacts | None = None
    load: float = 0.0
    watch: asyncio.Task[None] | None = None

    @property
    def worker_id(self) -> str:
        """What users see, such as "default-0"."""
        return self.row.worker_id

    @property
    def lane(self) -> Lane | None:
        """How it is reached from its node without Ray; None where it has not said."""
        return None if self.facts is None else self.facts.lane

    @property
    def state(self) -> RowState:
        """The roster's."""
        return self.row.state

    def described(self, capacity: int, node_names: Mapping[str, str]) -> WorkerFacts:
        """What `pool.workers()` shows. A worker whose actor is not there is starting, to a user. Its error
        says why it does not serve."""
        row = self.row
        facts = self.facts or _unheard(row.worker_id, capacity)
        if row.state not in ALIVE:
            facts = facts._replace(
                state=WorkerState.STARTING.value, pid=0, running=0, waiting=0, present=0, rss_bytes=0
            )
        error = str(row.error) if row.error is not None else ""
        if row.state is RowState.LOST and not error:
            error = LOST_WORDS
        return facts._replace(node_name=node_names.get(facts.node_id, ""), error=error, lane=None)


def _unheard(worker_id: str, capacity: int) -> WorkerFacts:
    numbers: dict[str, Any] = dict.fromkeys(
        (*COUNTED, "pid", "actor_pid", "running", "waiting", "rss_bytes"), 0
    )
    state = WorkerState.STARTING.value
    return WorkerFacts(
        worker_id, node_id="", epoch=(0, 0), state=state, capacity=capacity, started_at=0.0, **numbers
    )


class Members:
    """All workers of one pool."""

    def __init__(self, capacity: int, roster: Roster, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.capacity = capacity
        self.roster = roster
        self.load_version = 1
        self.by_id: dict[str, Member] = {}
        self.left = dict.fromkeys(COUNTED, 0)
        self._departed: dict[str, float] = {}  # when each worker left for good

    @property
    def size(self) -> int:
        """How many workers the pool is to have."""
        return self.roster.size

    @property
    def version(self) -> int:
        """Of the table that handles hold."""
        return self.roster.version

    def add(self, row: Row) -> Member:
        """A worker that is on the roster now."""
        member = self.by_id[row.worker_id] = Member(row)
        return member

    def ready(self) -> list[Member]:
        """Those that requests are sent to."""
        return self.in_state(RowState.READY)

    def in_state(self, *states: RowState) -> list[Member]:
        """Those whose row is in one of these states."""
        return [member for member in self.by_id.values() if member.row.state in states]

    def alive(self) -> list[Member]:
        """Those whose actor lives: they can be told something."""
        return self.in_state(*ALIVE)

    def failed(self) -> list[Member]:
        """Those that could not start, and those that nobody waits for any more."""
        return [member for member in self.by_id.values() if member.row.is_failed]

    def judged(self) -> list[Member]:
        """Those whose first start has ended, well or not, and those that nobody waits for any more."""
        return [member for member in self.by_id.values() if member.row.is_judged]

    def have_reported(self) -> bool:
        """Whether as many workers as are wanted have reported to this router, and all that it knows of."""
        rows = [member.row for member in self.by_id.values()]
        return len(rows) >= self.size and all(row.is_here for row in rows)

    def remove(self, member: Member) -> None:
        """A worker that left: its counters stay, and since when it is gone."""
        if self.by_id.pop(member.worker_id, None) is not None:
            self._departed[member.worker_id] = self._clock()
            while len(self._departed) > MOST_DEPARTED:
                del self._departed[next(iter(self._departed))]
            if member.facts is not None:
                self._keep_counters(member.facts)

    def departed(self, worker_id: str) -> float | None:
        """Seconds since a worker left for good; None of one that did not, or long ago."""
        left_at = self._departed.get(worker_id)
        return None if left_at is None else self._clock() - left_at

    def heard(self, member: Member, facts: WorkerFacts) -> bool:
        """What a worker says of itself now; whether its actor was restarted. On another node that counts from
        0: what it had counted stays in the pool's numbers, as it was last heard."""
        before, member.facts = member.facts, facts
        restarted = before is not None and 0 < before.epoch[0] < facts.epoch[0]
        if before is not None and restarted and facts.counts_from > before.epoch[0]:
            self._keep_counters(before)
            self.left["restarts"] += 1
        return restarted

    def _keep_counters(self, facts: WorkerFacts) -> None:
        for name in COUNTED:
            self.left[name] = self.left.get(name, 0) + getattr(facts, name)

    def set_load(self, member: Member, load: float) -> None:
        """A worker's load, as it reported it or as it was sent there."""
        member.load = load
        self.load_version += 1

    def entries(self) -> list[Entry]:
        """The table that handles hold."""
        return [
            Entry(
                m.worker_id,
                m.actor,
                self.capacity,
                round(m.load),
                m.row.incarnation,
                m.facts.timeouts if m.facts is not None else (),
                m.lane,
            )
            for m in self.ready()
        ]

    def loads(self) -> dict[str, int]:
        """Of each worker that requests are sent to."""
        return {member.worker_id: round(member.load) for member in self.ready()}

    def stats(self, facts: Iterable[WorkerFacts], sessions: int) -> PoolStats:
        """The pool's numbers from what its workers said just now."""
        heard = list(facts)
        total = {name: self.left.get(name, 0) + sum(getattr(f, name) for f in heard) for name in COUNTED}
        serving = [f for f in heard if f.state == WorkerState.READY]
        return PoolStats(
            workers=len(self.by_id) - len(self.in_state(RowState.LEAVING)) - len(self.failed()),
            available=sum(f.running < f.capacity for f in serving),
            busy=sum(f.running > 0 for f in heard),
            waiting=sum(f.waiting for f in heard),
            sessions=sessions,
            **total,
        )
