"""Knows who belongs to a pool: the router's table of workers, its versions, and what the pool adds up to.
Plain data.

Rules: the table's version rises with every change that a handle must know; counters of workers that left are
kept, so that a pool's numbers never fall."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from snakepit_ray.actors.messages import Entry, WorkerFacts

COUNTED = ("requests", "errors", "queue_timeouts", "saturated", "restarts", "delegated")


@dataclass
class Member:
    """One worker as the router knows it. `state`: spawned, starting, ready, leaving, failed."""

    worker_id: str
    actor: Any
    state: str = "spawned"
    facts: WorkerFacts | None = None
    load: float = 0.0
    error: Exception | None = None


@dataclass(frozen=True)
class PoolStats:
    """A pool's numbers. `busy` and `available` count workers; `sessions` those that are bound."""

    workers: int
    available: int
    busy: int
    waiting: int
    requests: int
    errors: int
    queue_timeouts: int
    saturated: int
    recycled: int
    restarts: int
    delegated: int
    sessions: int


@dataclass
class Members:
    """All workers of one pool."""

    capacity: int
    version: int = 1
    load_version: int = 1
    by_id: dict[str, Member] = field(default_factory=dict)
    _left: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))

    def add(self, member: Member) -> None:
        self.by_id[member.worker_id] = member

    def ready(self) -> list[Member]:
        """Those that requests are sent to."""
        return [member for member in self.by_id.values() if member.state == "ready"]

    def in_state(self, *states: str) -> list[Member]:
        return [member for member in self.by_id.values() if member.state in states]

    def set_state(self, member: Member, state: str) -> None:
        """A change that handles see when it concerns the ready ones."""
        seen = "ready" in (member.state, state)
        member.state = state
        self.version += seen

    def remove(self, member: Member) -> None:
        """A worker that left: its counters stay."""
        if self.by_id.pop(member.worker_id, None) is not None and member.facts is not None:
            for name in COUNTED:
                self._left[name] += getattr(member.facts, name)

    def set_load(self, member: Member, load: float) -> None:
        member.load = load
        self.load_version += 1

    def entries(self) -> list[Entry]:
        """The table that handles hold."""
        return [Entry(m.worker_id, m.actor, self.capacity, round(m.load)) for m in self.ready()]

    def loads(self) -> dict[str, int]:
        return {member.worker_id: round(member.load) for member in self.ready()}

    def stats(self, facts: Iterable[WorkerFacts], sessions: int) -> PoolStats:
        """The pool's numbers from what its workers said just now."""
        said = list(facts)
        total = {name: self._left[name] + sum(getattr(f, name) for f in said) for name in COUNTED}
        serving = [f for f in said if f.state == "ready"]
        return PoolStats(
            workers=len(self.in_state("ready", "starting", "spawned")),
            available=sum(f.running < f.capacity for f in serving),
            busy=sum(f.running > 0 for f in said),
            waiting=sum(f.waiting for f in said),
            requests=total["requests"],
            errors=total["errors"],
            queue_timeouts=total["queue_timeouts"],
            saturated=total["saturated"],
            recycled=0,
            restarts=total["restarts"],
            delegated=total["delegated"],
            sessions=sessions,
        )
