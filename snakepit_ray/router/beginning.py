"""Whether a pool's beginning is over, and whether the process that began it is still there.

A pool begins when its router is created and is there for good when the process that started it has said so
(`over`). Until then that process asks again and again how far the start is. A router that is not asked any
more was left behind, by Ctrl-C or by a kill in the middle of a start, and ends its pool: nobody else knows of
it.
"""

from __future__ import annotations

UNASKED_SECONDS = 60.0  # longer than a driver on a starved machine is silent between two questions


class Beginning:
    """The beginning of one pool. Times are of one monotonic clock, in seconds."""

    def __init__(self, now: float) -> None:
        self.over = False
        self._asked_at = now

    def asked(self, now: float) -> None:
        """The process that starts the pool asked how far it is."""
        self._asked_at = now

    def left(self, now: float) -> float:
        """Seconds until the pool counts as left behind; 0 when it does."""
        return max(0.0, self._asked_at + UNASKED_SECONDS - now)
