"""When an interpreter that does not answer is to be taken for hung.

- Silence shorter than the timeout is none.
- While a command runs within its budget and the process gets processor time, it works: a long call that
  holds the interpreter's lock answers nobody, and is not hung.
- An interpreter that is stopped, or idle and deaf, is hung.
- Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from typing import NamedTuple

# Seconds of processor time between two looks; less is a process that stands still. Half of the tick that
# systems count in, so that one tick is an advance however its floats round.
CPU_ADVANCED = 0.005


class Look(NamedTuple):
    """What a look at an interpreter found."""

    now: float
    answered: bool
    cpu: float | None  # seconds of processor time so far; None: could not be read
    working: bool  # a command runs in it, within its budget


class Pulse:
    """One interpreter's health."""

    def __init__(self, now: float, timeout: float) -> None:
        self.timeout = timeout
        self.failures = 0  # looks in a row without an answer
        self._alive_at = now
        self._cpu: float | None = None

    def silent_for(self, now: float) -> float:
        """Seconds since it was last known to be alive."""
        return now - self._alive_at

    def look(self, look: Look) -> bool:
        """Takes a look in; whether the interpreter is hung."""
        advanced = look.cpu is not None and look.cpu - (self._cpu or 0.0) >= CPU_ADVANCED
        self._cpu = look.cpu if look.cpu is not None else self._cpu
        if look.answered:
            self.failures = 0
        else:
            self.failures += 1
        if look.answered or (look.working and advanced):
            self._alive_at = look.now
        return self.silent_for(look.now) >= self.timeout
