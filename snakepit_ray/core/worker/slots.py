"""Which requests hold a slot of one worker, and which ones are sent to its interpreter ahead of one.

Requests are prefetched

- only while the interpreter's commands are over in less time than it takes to send the next one, by the
  longest of the last few;
- no more for some dozens of short commands after one long one;
- never more than MOST_AHEAD, for what is sent ahead cannot move to a worker that has become free.

A worker with one slot otherwise has its interpreter wait for every next request. Sent ahead, requests and
answers travel several to a message (benchmarks/README.md, unary).
"""

from __future__ import annotations

MOST_AHEAD = 2
STAY_SECONDS = 0.02  # the longest that a slot may be free elsewhere while a request waits here
HANDLING_SECONDS = 0.0005  # a worker's own time for one request
SHORT_SECONDS = 0.001
FADES = 0.9  # of the longest, with each command after it


class Prefetch:
    """How long the commands of one interpreter take. Nothing is known before the first. `most`: what may ever
    be sent ahead to it."""

    def __init__(self, most: int = MOST_AHEAD) -> None:
        self._most = most
        self._longest: float | None = None

    def observe(self, seconds: float) -> None:
        """One took so long."""
        self._longest = max(seconds, (self._longest or 0.0) * FADES)

    @property
    def ahead(self) -> int:
        """How many requests may be there beside those that have a slot."""
        return self._most if self._is_short else 0

    def movable(self, waiting: int, capacity: int) -> int:
        """How many of `waiting` requests may move. While commands take less time than a message, those that
        have a slot here within STAY_SECONDS stay: a move costs both workers and the router more than it
        saves."""
        if self._longest is None or not self._is_short:
            return waiting
        return max(0, waiting - capacity * int(STAY_SECONDS / (self._longest + HANDLING_SECONDS)))

    @property
    def _is_short(self) -> bool:
        return self._longest is not None and self._longest < SHORT_SECONDS


class Slots:
    """Who runs: at most `capacity` ids at a time; and who was sent ahead of a slot, each of which takes the
    next one that is free, the oldest first."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be >= 1, got {capacity}")
        self.capacity = capacity
        self.ahead: dict[str, None] = {}
        self._running: set[str] = set()

    def __repr__(self) -> str:
        ahead = f", {len(self.ahead)} ahead" if self.ahead else ""
        return f"<Slots {self.running}/{self.capacity} running{ahead}>"

    def __contains__(self, id: str) -> bool:
        return id in self._running or id in self.ahead

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def holders(self) -> tuple[str, ...]:
        """The ids that run."""
        return tuple(self._running)

    @property
    def free(self) -> int:
        return self.capacity - len(self._running)

    def acquire(self, id: str) -> bool:
        """Take a slot; False when none is free. Raises ValueError when the id holds one already."""
        if id in self._running or id in self.ahead:
            raise ValueError(f"request {id!r} runs already")
        if len(self._running) >= self.capacity:
            return False
        self._running.add(id)
        return True

    def go_ahead(self, id: str) -> None:
        """Takes the next slot that will be free, or one that is. Raises ValueError as `acquire` does."""
        if not self.acquire(id):
            self.ahead[id] = None

    def release(self, id: str) -> bool:
        """Give the slot back, or the place ahead of one; False when the id held none (safe to call twice)."""
        if id in self.ahead:
            del self.ahead[id]
            return True
        if id not in self._running:
            return False
        self._running.remove(id)
        if self.ahead:
            following = next(iter(self.ahead))
            del self.ahead[following]
            self._running.add(following)
        return True
