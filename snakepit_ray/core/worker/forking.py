"""When a worker's interpreters are forked instead of executed.

Rules:
- A forker costs about what one execution costs, and the memory of what it has imported. So there is one only
  while interpreters are replaced often, and none in a pool that never replaces any.
- A start that fails in a forked interpreter is repeated in an executed one. When that one starts, the fork
  was at fault: the worker forks no more.
- Whoever replaces an interpreter by hand wants everything new: that one is executed, and later ones are
  forked by another forker.
"""

from __future__ import annotations

from enum import Enum

SHORT_LIFE = 60.0  # seconds: an interpreter that is replaced earlier is likely to be replaced so again
IDLE = 2 * SHORT_LIFE  # without an order, after which a forker ends


class State(Enum):
    """What a worker does about forks."""

    POSSIBLE = "possible"
    DOUBTED = "doubted"  # a forked interpreter did not start; the executed one will show why
    OFF = "off"  # its adapter or the system does not allow it


class Forking:
    """What one worker knows of forks."""

    def __init__(self) -> None:
        self.state = State.POSSIBLE
        self._by_hand = False

    def start_failed(self) -> None:
        """A forked interpreter did not start: an executed one is tried now."""
        if self.state is State.POSSIBLE:
            self.state = State.DOUBTED

    def executed(self, *, has_started: bool) -> bool:
        """An executed interpreter has started, or has not. Whether that is the end of forks."""
        if self.state is not State.DOUBTED:
            return False
        self.state = State.OFF if has_started else State.POSSIBLE
        return has_started

    def refused(self) -> None:
        """A forker cannot be had."""
        self.state = State.OFF

    def by_hand(self) -> None:
        """The next replacement was asked for by hand. It says nothing of how soon another one comes, and what
        was in the way of forks may be mended."""
        self._by_hand, self.state = True, State.POSSIBLE

    def replaced(self, lived: float) -> bool:
        """An interpreter was replaced that lived for so many seconds: whether a forker pays now."""
        by_hand, self._by_hand = self._by_hand, False
        return self.state is State.POSSIBLE and not by_hand and lived < SHORT_LIFE
