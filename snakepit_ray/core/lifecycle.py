"""Knows the states of a worker and what leads from one to another.

Rules: the table is the whole truth, `step` the only way through it, and the README's diagram is made from it;
a worker that is dead stays dead; a leaver comes back to no other state; an event that a state does not know
is a fault of ours and raises."""

from __future__ import annotations

from enum import Enum


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


class LifecycleError(Exception):
    """An event that its state does not know."""


def step(state: WorkerState, event: WorkerEvent) -> WorkerState:
    """The state after `event`. Raises LifecycleError naming what would have been possible."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        possible = ", ".join(known.value for at, known in TRANSITIONS if at is state)
        raise LifecycleError(
            f"a worker that is {state} does not know {event!s}; it knows {possible}"
        ) from None


def diagram() -> str:
    """The table as a Mermaid state diagram, for the README."""
    arrows: dict[tuple[WorkerState, WorkerState], list[str]] = {}
    for (state, event), after in TRANSITIONS.items():
        if (state, after) != (_S.DEAD, _S.DEAD):
            arrows.setdefault((state, after), []).append(event.value)
    lines = [f"    {state} --> {after}: {', '.join(events)}" for (state, after), events in arrows.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {_S.STARTING}", *lines, f"    {_S.DEAD} --> [*]"])
