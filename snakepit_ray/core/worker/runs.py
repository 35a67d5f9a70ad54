"""The states of a request in one interpreter, from its slot to its end there.

- A request is sent at most once. One that is withdrawn never is.
- A request that is told to stop is not called back, and one that was called back can still be told to stop.
- A request that is late before it has begun may begin until the interpreter has said that it will not.
"""

from __future__ import annotations

from enum import Enum

from snakepit_ray.core.machine import Machine


class RunState(str, Enum):
    """What a request in an interpreter is doing."""

    ENTERED = "entered"  # it has its slot, and its buffers are on their way
    WITHDRAWN = "withdrawn"  # it has its outcome before it was sent
    SENT = "sent"
    RECALLED = "recalled"  # asked to come back if it has not begun
    STOPPING = "stopping"  # told to stop
    OVERDUE = "overdue"  # told to stop because its budget is used up, and had not begun
    ENDED = "ended"

    def __str__(self) -> str:
        return self.value


class RunEvent(str, Enum):
    """What happens to a request in an interpreter."""

    SEND = "send"
    RECALL = "recall"
    STOP = "stop"
    LATE = "late"  # its budget is used up, and it has not begun
    END = "end"  # answered, or its interpreter is gone

    def __str__(self) -> str:
        return self.value


_S, _E = RunState, RunEvent

TRANSITIONS: dict[tuple[RunState, RunEvent], RunState] = {
    (_S.ENTERED, _E.SEND): _S.SENT,
    (_S.ENTERED, _E.STOP): _S.WITHDRAWN,
    (_S.ENTERED, _E.END): _S.ENDED,
    (_S.WITHDRAWN, _E.STOP): _S.WITHDRAWN,
    (_S.WITHDRAWN, _E.END): _S.ENDED,
    (_S.SENT, _E.RECALL): _S.RECALLED,
    (_S.SENT, _E.STOP): _S.STOPPING,
    (_S.SENT, _E.LATE): _S.OVERDUE,
    (_S.SENT, _E.END): _S.ENDED,
    (_S.RECALLED, _E.STOP): _S.STOPPING,
    (_S.RECALLED, _E.LATE): _S.OVERDUE,
    (_S.RECALLED, _E.END): _S.ENDED,
    (_S.STOPPING, _E.STOP): _S.STOPPING,
    (_S.STOPPING, _E.LATE): _S.STOPPING,
    (_S.STOPPING, _E.END): _S.ENDED,
    (_S.OVERDUE, _E.STOP): _S.OVERDUE,
    (_S.OVERDUE, _E.END): _S.ENDED,
}
MACHINE = Machine("a request in an interpreter", TRANSITIONS, _S.ENTERED, _S.ENDED)
step = MACHINE.step

IN_INTERPRETER = frozenset((_S.SENT, _S.RECALLED, _S.STOPPING, _S.OVERDUE))
TOLD_TO_STOP = frozenset((_S.WITHDRAWN, _S.STOPPING, _S.OVERDUE))
