"""The one line that a handle says of its pool: `repr(pool)`.

Rules:
- The line tells what this process knows. Nothing is asked for it, so it never blocks.
- What is not known is left out, and what may be old says its age.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from snakepit_ray.port.messages import WorkerCounts

OLD_SECONDS = 5.0  # from which on a status says its age


class Status(NamedTuple):
    """What a handle knows of its pool. `age`: seconds since it heard from the router, 0.0 while the router
    tells it of every change. `closed`: why the pool is closed, "" while it is open."""

    name: str
    ready: int
    counts: WorkerCounts
    running: int = 0
    waiting: int = 0
    age: float = 0.0
    closed: str = ""

    def line(self) -> str:
        """Such as `<Pool 'features' 3 of 4 workers ready, 1 quarantined, 6 running, 2 waiting>`."""
        if self.closed:
            return f"<Pool {self.name!r} closed: {self.closed}>"
        counts = self.counts
        missing = counts.wanted - self.ready - counts.quarantined - counts.failed
        said = {
            "starting": max(0, missing),
            "quarantined": counts.quarantined,
            "failed to start": counts.failed,
            "running": self.running,
            "waiting": self.waiting,
        }
        words = [f"{count} {what}" for what, count in said.items() if count]
        if self.age >= OLD_SECONDS:
            words.append(f"as of {self.age:.0f} s ago")
        return f"<Pool {self.name!r} {', '.join([f'{self.ready} of {counts.wanted} workers ready', *words])}>"


def running_and_waiting(loads: Iterable[int], capacity: int) -> tuple[int, int]:
    """How many of the requests that workers have reported hold a slot, and how many wait for one. A request
    waits only where all `capacity` slots of its worker are taken."""
    reported = list(loads)
    running = sum(min(load, capacity) for load in reported)
    return running, sum(reported) - running
