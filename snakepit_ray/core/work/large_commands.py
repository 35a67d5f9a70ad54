"""Which commands have answers that are too large for a lane: they go by Ray for a while, so that not each of
their answers is fetched a second time."""

from __future__ import annotations

SECONDS = 60.0  # that a command is remembered
MOST = 256  # commands that are remembered


class LargeCommands:
    """The commands whose answers were too large lately. Empty: none. For one thread."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, command: str, now: float) -> None:
        """An answer of this command was too large."""
        self._until.pop(command, None)  # the last that was added is the last to be forgotten
        self._until[command] = now + SECONDS
        while len(self._until) > MOST:
            del self._until[next(iter(self._until))]

    def has(self, command: str, now: float) -> bool:
        """Whether its answers were too large lately."""
        until = self._until.get(command)
        if until is not None and now >= until:
            del self._until[command]
            until = None
        return until is not None
