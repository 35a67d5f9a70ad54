"""When a pool that keeps failing refuses requests for a while (Nygard, "Release It!", 2007).

- Closed, it counts failures within a window.
- Open, it refuses until `reset` seconds have passed.
- Half open, it lets one request through and its outcome decides.
- The table is the whole truth of the three states.
- Only failures of the pool count: a worker that died or hung, a deadline that passed while running. What a
  command raises does not count, nor what a caller did wrong.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple


class Circuit(str, Enum):
    """`closed` lets requests through, `open` refuses, `half_open` tries one."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"

    def __str__(self) -> str:
        return self.value


class Change(str, Enum):
    """What moves a circuit."""

    TOO_MANY = "too_many"
    RESET = "reset"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


TRANSITIONS: dict[tuple[Circuit, Change], Circuit] = {
    (Circuit.CLOSED, Change.TOO_MANY): Circuit.OPEN,
    (Circuit.OPEN, Change.RESET): Circuit.HALF_OPEN,
    (Circuit.HALF_OPEN, Change.SUCCEEDED): Circuit.CLOSED,
    (Circuit.HALF_OPEN, Change.FAILED): Circuit.OPEN,
}


class Admit(NamedTuple):
    """`allowed`, or refused for `retry_after` seconds; `probe`: its outcome decides, and must be told."""

    allowed: bool
    retry_after: float = 0.0
    probe: bool = False


class Breaker:
    """One circuit. `now` is seconds of one monotonic clock."""

    def __init__(self, failures: int, window: float, reset: float) -> None:
        self.limit = failures
        self.window = window
        self.reset = reset
        self.state = Circuit.CLOSED
        self.opened_at = 0.0
        self._failed: deque[float] = deque()
        self._probing_since: float | None = None

    def __repr__(self) -> str:
        return f"<Breaker {self.state}, {len(self._failed)} of {self.limit} failures>"

    @property
    def failures(self) -> int:
        """Failures that count now."""
        return len(self._failed)

    def admit(self, now: float) -> Admit:
        """Whether a request may go on."""
        if self.state is Circuit.OPEN and now >= self.opened_at + self.reset:
            self._change(Change.RESET)
        if self.state is Circuit.CLOSED:
            return Admit(True)
        if self.state is Circuit.OPEN:
            return Admit(False, self.opened_at + self.reset - now)
        # A probe that never came back (its worker died with it) must not keep the circuit half open for ever.
        if self._probing_since is not None and now < self._probing_since + self.reset:
            return Admit(False, self._probing_since + self.reset - now)
        self._probing_since = now
        return Admit(True, probe=True)

    def failed(self, now: float, *, probe: bool = False) -> bool:
        """A request failed; whether the circuit opened by it."""
        if self.state is Circuit.HALF_OPEN and probe:
            return self._open(Change.FAILED, now)
        self._failed.append(now)
        while self._failed and self._failed[0] <= now - self.window:
            self._failed.popleft()
        if self.state is Circuit.CLOSED and len(self._failed) >= self.limit:
            return self._open(Change.TOO_MANY, now)
        return False

    def succeeded(self, *, probe: bool = False) -> bool:
        """A request succeeded; whether the circuit closed by it."""
        if not (probe and self.state is Circuit.HALF_OPEN):
            return False
        self._change(Change.SUCCEEDED)
        self._failed.clear()
        return True

    def _open(self, change: Change, now: float) -> bool:
        self._change(change)
        self.opened_at = now
        return True

    def _change(self, change: Change) -> None:
        self.state = TRANSITIONS[self.state, change]
        self._probing_since = None
