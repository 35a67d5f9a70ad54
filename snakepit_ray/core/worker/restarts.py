"""How soon a lost interpreter is replaced, and when a worker has failed too often.

- The first replacement comes at once.
- Each loss that followed no good work doubles the wait.
- A worker is quarantined after FRUITLESS losses in a row without good work between them, or after BURST
  losses within WINDOW whatever it did.
- Each quarantine in a row is twice as long as the one before.
- A life of STEADY seconds forgives fruitless losses and earlier quarantines, only the window forgets a
  burst. Delays have full-range jitter in their upper half, so that workers that failed together do not
  start together (Brooker, "Exponential Backoff and Jitter", 2015).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class RestartPolicy:
    """Counts of losses, and seconds."""

    fruitless: int = 7  # in storms of kills at 1 a second over 8 workers, 5 hit 1 storm in 40
    burst: int = 30
    window: float = 60.0
    first_delay: float = 0.1
    most_delay: float = 10.0
    quarantine: float = 30.0
    most_quarantine: float = 600.0
    steady: float = 10.0  # an interpreter that served so long did good work, requests or not


class Restart(NamedTuple):
    """Start the next interpreter after `delay` seconds."""

    delay: float


class Quarantine(NamedTuple):
    """Give up for `seconds`; `losses` of them within `window` seconds were too many."""

    seconds: float
    losses: int
    window: float


class RestartBudget:
    """One worker's budget. Tell it of each loss; it says what is to be done."""

    def __init__(self, policy: RestartPolicy | None = None) -> None:
        self.policy = policy or RestartPolicy()
        self.fruitless = 0  # losses in a row without good work
        self._losses: deque[float] = deque()
        self._quarantines = 0

    def __repr__(self) -> str:
        return f"<RestartBudget {len(self._losses)} losses lately, {self.fruitless} fruitless in a row>"

    def lost(self, now: float, *, served: int, lived: float, random: float) -> Restart | Quarantine:
        """An interpreter was lost, or could not be started (`lived` 0).

        `served`: requests that it answered; `lived`: seconds since it was ready; `random` in [0, 1)."""
        policy = self.policy
        if lived >= policy.steady:
            self._quarantines = 0
        good = served > 0 or lived >= policy.steady
        self.fruitless = 0 if good else self.fruitless + 1
        self._losses.append(now)
        while self._losses and self._losses[0] <= now - policy.window:
            self._losses.popleft()
        if self.fruitless >= policy.fruitless or len(self._losses) >= policy.burst:
            return self._quarantine(random)
        return Restart(self._delay(random))

    def _delay(self, random: float) -> float:
        if self.fruitless < 2:
            return 0.0
        policy = self.policy
        doubled = _doubled(policy.first_delay, self.fruitless - 2, policy.most_delay)
        return doubled * (0.5 + random / 2)

    def _quarantine(self, random: float) -> Quarantine:
        policy = self.policy
        losses = len(self._losses)
        seconds = _doubled(policy.quarantine, self._quarantines, policy.most_quarantine)
        self._quarantines += 1
        self.fruitless = policy.fruitless - 1  # one more chance, not a whole new budget
        self._losses.clear()
        return Quarantine(seconds * (0.75 + random / 4), losses, policy.window)


def _doubled(first: float, times: int, most: float) -> float:
    # A worker may fail for weeks, and 2.0**1024 is no number: sixty doublings are beyond any bound.
    return min(most, first * 2.0 ** min(times, 60))
