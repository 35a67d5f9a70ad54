"""One worker on its pool's roster: its states, what leads from one to another, and what is known of it.

- A worker that leaves comes back to no other state.
- A worker that is gone stays gone: its number is never given again.
- Whether a worker's actor has reported decides how it leaves. One that has not may be waiting for room, so it
  is ended (`OUT`) and not asked (`LEAVE`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from snakepit_ray.core.machine import Machine


class RowState(str, Enum):
    """Where a worker of the pool stands."""

    WANTED = "wanted"
    SPAWNED = "spawned"
    STARTING = "starting"
    READY = "ready"
    QUARANTINED = "quarantined"
    LOST = "lost"
    LEAVING = "leaving"
    FAILED = "failed"
    GONE = "gone"

    def __str__(self) -> str:
        return self.value


class RowEvent(str, Enum):
    """What happens to a worker of the pool."""

    CREATED = "created"  # Ray has taken its actor
    REFUSED = "refused"  # Ray does not create its actor, or its creation failed for good
    CAME = "came"  # its actor has reported, and serves nobody yet
    SERVES = "serves"  # its interpreter serves
    TROUBLED = "troubled"  # its interpreters fail too often
    UNABLE = "unable"  # its interpreter could not be started
    AGAIN = "again"  # the pause after a failed start is over
    DIED = "died"  # its actor died; Ray restarts it
    LEAVE = "leave"  # the pool shrinks
    OUT = "out"  # its actor has ended, or will never be

    def __str__(self) -> str:
        return self.value


_S, _E = RowState, RowEvent
_HERE = (_S.STARTING, _S.READY, _S.QUARANTINED, _S.LOST, _S.FAILED)
_ANY = (_S.WANTED, _S.SPAWNED, *_HERE)

TRANSITIONS: dict[tuple[RowState, RowEvent], RowState] = {
    (_S.WANTED, _E.CREATED): _S.SPAWNED,
    (_S.WANTED, _E.REFUSED): _S.FAILED,
    (_S.SPAWNED, _E.REFUSED): _S.FAILED,
    (_S.SPAWNED, _E.DIED): _S.SPAWNED,  # Ray tries its creation again
    # From any state: what a worker says may be quicker than Ray's answer to its creation.
    **{(state, _E.CAME): _S.STARTING for state in _ANY},
    **{(state, _E.SERVES): _S.READY for state in _ANY},
    **{(state, _E.TROUBLED): _S.QUARANTINED for state in _ANY},
    **{(state, _E.LEAVE): _S.LEAVING for state in _ANY},
    (_S.STARTING, _E.UNABLE): _S.FAILED,
    (_S.QUARANTINED, _E.UNABLE): _S.FAILED,
    (_S.FAILED, _E.AGAIN): _S.STARTING,
    **{(state, _E.DIED): _S.LOST for state in _HERE},  # of a lost one: its restart failed once more
    **{(state, _E.OUT): _S.GONE for state in (*_ANY, _S.LEAVING)},
}

MACHINE = Machine("a worker of the roster", TRANSITIONS, _S.WANTED, _S.GONE)
step = MACHINE.step

ALIVE = frozenset({_S.STARTING, _S.READY, _S.QUARANTINED, _S.LEAVING})  # its actor can be told something
NEVER = math.inf


@dataclass
class Row:
    """One worker. Times are seconds of one monotonic clock.

    `incarnation`: of its actor's process, 0 before it has reported. `is_here`: its actor has reported.
    `is_settled`: its first start has ended, well or not. `is_overdue`: it may still come, but nobody waits
    for it any more. `error`: why it has not come or could not start. `attempts`: starts that failed since it
    last served. `due`: when what it waits for is tried again."""

    worker_id: str
    number: int
    state: RowState = RowState.WANTED
    incarnation: int = 0
    node_id: str = ""
    is_here: bool = False
    is_settled: bool = False
    is_overdue: bool = False
    error: Exception | None = None
    attempts: int = 0
    due: float = NEVER

    @property
    def is_judged(self) -> bool:
        """Whether it has had its chance: its first start has ended, or nobody waits for it any more."""
        return self.is_settled or self.is_overdue

    @property
    def is_failed(self) -> bool:
        """Whether it could not start, or nobody waits for it any more."""
        return self.state is RowState.FAILED or (self.is_overdue and self.state is not RowState.READY)
