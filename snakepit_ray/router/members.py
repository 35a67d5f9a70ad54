"""The router's table of workers, its versions, and what the pool adds up to. Plain data.

Rules:
- The table's version rises with every change that a handle must know, and starts above those of a router
  before this one.
- Counters of workers that left are kept, so that a pool's numbers never fall.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from snakepit_ray.port.messages import COUNTED, Entry, PoolStats, WorkerFacts

MOST_DEPARTED = 1000


@dataclass
class Member:
    """One worker as the router knows it.

    `state`: expected (its actor is not created yet), spawned (its actor has not reported yet), starting,
    ready, quarantined, lost (its actor died and will be restarted), leaving, failed. `actor`: None while
    expected. `overdue`: it may still come, but nobody waits for it any more; `error` says why it has not
    come, or could not start. `here`: its actor has reported; `settled`: its first start has ended, well or
    not."""

    worker_id: str
    actor: Any = None
    state: str = "expected"
    overdue: bool = False
    here: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    facts: WorkerFacts | None = None
    load: float = 0.0
    error: Exception | None = None
    watch: asyncio.Task[None] | None = None

    @property
    def incarnation(self) -> int:
        """Of its actor's process, 0 when it was never heard of."""
        return self.facts.epoch[0] if self.facts is not None else 0


@dataclass
class Members:
    """All workers of one pool."""

    capacity: int
    size: int = 0  # how many workers the pool is to have
    version: int = 1
    load_version: int = 1
    by_id: dict[str, Member] = field(default_factory=dict)
    _departed: dict[str, float] = field(default_factory=dict)  # when each worker left for good
    left: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))

    def add(self, member: Member) -> None:
        self.by_id[member.worker_id] = member

    def ready(self) -> list[Member]:
        """Those that requests are sent to."""
        return self.in_state("ready")

    def in_state(self, *states: str) -> list[Member]:
        return [member for member in self.by_id.values() if member.state in states]

    def present(self) -> list[Member]:
        """Those whose actor lives: they can be told something."""
        return self.in_state("ready", "starting", "quarantined", "leaving")

    def failed(self) -> list[Member]:
        """Those that could not start, and those that nobody waits for any more."""
        return [m for m in self.by_id.values() if m.state == "failed" or (m.overdue and m.state != "ready")]

    def judged(self) -> list[Member]:
        """Those whose first start has ended, well or not, and those that nobody waits for any more."""
        return [m for m in self.by_id.values() if m.overdue or m.settled.is_set()]

    def set_state(self, member: Member, state: str) -> None:
        """A change that handles see when it concerns the ready ones."""
        seen = "ready" in (member.state, state)
        member.state = state
        self.version += seen
        if state in ("ready", "failed"):
            member.settled.set()

    def remove(self, member: Member) -> None:
        """A worker that left: its counters stay, and since when it is gone."""
        if self.by_id.pop(member.worker_id, None) is not None:
            self._departed[member.worker_id] = time.monotonic()
            while len(self._departed) > MOST_DEPARTED:
                del self._departed[next(iter(self._departed))]
            if member.facts is not None:
                self._keep_counters(member)

    def departed(self, worker_id: str) -> float | None:
        """Seconds since a worker left for good; None of one that did not, or long ago."""
        left_at = self._departed.get(worker_id)
        return None if left_at is None else time.monotonic() - left_at

    def said(self, member: Member, facts: WorkerFacts) -> bool:
        """What a worker says of itself now; whether its actor was restarted. On another node that counts from
        0: what it had counted stays in the pool's numbers, as it was last heard."""
        restarted = 0 < member.incarnation < facts.epoch[0]
        if restarted and facts.counts_from > member.incarnation:
            self._keep_counters(member)
            self.left["restarts"] += 1
        member.facts = facts
        return restarted

    def _keep_counters(self, member: Member) -> None:
        for name in COUNTED:
            self.left[name] = self.left.get(name, 0) + getattr(member.facts, name)

    def set_load(self, member: Member, load: float) -> None:
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
                m.incarnation,
                m.facts.timeouts if m.facts is not None else (),
            )
            for m in self.ready()
        ]

    def loads(self) -> dict[str, int]:
        return {member.worker_id: round(member.load) for member in self.ready()}

    def stats(self, facts: Iterable[WorkerFacts], sessions: int) -> PoolStats:
        """The pool's numbers from what its workers said just now."""
        said = list(facts)
        total = {name: self.left.get(name, 0) + sum(getattr(f, name) for f in said) for name in COUNTED}
        serving = [f for f in said if f.state == "ready"]
        return PoolStats(
            workers=len(self.by_id) - len(self.in_state("leaving")) - len(self.failed()),
            available=sum(f.running < f.capacity for f in serving),
            busy=sum(f.running > 0 for f in said),
            waiting=sum(f.waiting for f in said),
            sessions=sessions,
            **total,
        )
