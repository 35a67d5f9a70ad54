"""Whether requests are sent to an interpreter before it has a slot for them.

- Only while its commands are over in less time than it takes to send the next one, by the longest of the
  last few.
- One long command ends it for some dozens of short ones.
- Never more than MOST_AHEAD, for what is sent ahead cannot move to a worker that has become free.

A worker with one slot otherwise has its interpreter wait for every next request; sent ahead, requests and
answers travel several to a message (benchmarks/README.md, unary).
"""

from __future__ import annotations

MOST_AHEAD = 2
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
        return self._most if self._longest is not None and self._longest < SHORT_SECONDS else 0
