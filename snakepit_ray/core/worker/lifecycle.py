"""The states of a worker, and what leads from one to another.

- A worker that is dead stays dead.
- A worker that leaves comes back to no other state.
"""

from __future__ import annotations

from enum import Enum

from snakepit_ray.core.machine import Machine


class WorkerState(str, Enum):
    """What a worker is doing."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    QUARANTINED = "quarantined"
    DEAD = "dead"

    def __str__(self) -> str:
        return self.value


class WorkerEvent(str, Enum):
    """What happens to a worker."""

    SERVING = "serving"  # an interpreter has shaken hands and takes requests
    DOWN = "down"  # none serves: it crashed, hung, could not be started, or is replaced without overlap
    EXHAUSTED = "exhausted"  # it failed too often: the restart budget is spent
    RETRY = "retry"  # the quarantine is over
    LEAVE = "leave"  # the pool shrinks
    STOP = "stop"  # the pool ends, or the worker has left

    def __str__(self) -> str:
        return self.value


_S, _E = WorkerState, WorkerEvent

TRANSITIONS: dict[tuple[WorkerState, WorkerEvent], WorkerState] = {
    (_S.STARTING, _E.SERVING): _S.READY,
    (_S.STARTING, _E.DOWN): _S.STARTING,
    (_S.STARTING, _E.EXHAUSTED): _S.QUARANTINED,
    (_S.STARTING, _E.LEAVE): _S.DRAINING,
    (_S.STARTING, _E.STOP): _S.DEAD,
    (_S.READY, _E.SERVING): _S.READY,  # a planned replacement took over
    (_S.READY, _E.DOWN): _S.STARTING,
    (_S.READY, _E.LEAVE): _S.DRAINING,
    (_S.READY, _E.STOP): _S.DEAD,
    (_S.QUARANTINED, _E.RETRY): _S.STARTING,
    (_S.QUARANTINED, _E.LEAVE): _S.DRAINING,
    (_S.QUARANTINED, _E.STOP): _S.DEAD,
    (_S.DRAINING, _E.SERVING): _S.DRAINING,
    (_S.DRAINING, _E.DOWN): _S.DRAINING,
    (_S.DRAINING, _E.EXHAUSTED): _S.DRAINING,
    (_S.DRAINING, _E.RETRY): _S.DRAINING,
    (_S.DRAINING, _E.LEAVE): _S.DRAINING,
    (_S.DRAINING, _E.STOP): _S.DEAD,
    (_S.DEAD, _E.STOP): _S.DEAD,
}


MACHINE = Machine("a worker", TRANSITIONS, _S.STARTING, _S.DEAD)
step = MACHINE.step
