"""The waiting requests of one worker that commands have made, and that hold slots elsewhere while they wait.

- One that can run inside of a command of its own chain, which waits for it here, starts at once.
- One whose chain may not wait (core/tools/ages.py) is given up after PATIENCE_SECONDS, because it might wait
  for ever. It seldom would: the command that it waits for mostly waits for something else, which ends soon.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Protocol

PATIENCE_SECONDS = 0.5


class Chains(Protocol):
    """What is known of chains of calls at this worker."""

    def is_nested(self, request_id: str) -> bool:
        """Whether a command has made the request, and holds a slot while it waits for that."""

    def outer_of(self, request_id: str) -> str:
        """The request of its own chain inside of which a nested one can run, "" for none."""

    def may_wait(self, request_id: str, holders: Sequence[str]) -> bool:
        """Whether a nested request may wait while those requests have the slots."""


class NestedWaits:
    """Those of one worker. `wake(seconds)` has `verdicts` asked again then."""

    def __init__(self, chains: Chains, clock: Callable[[], float], wake: Callable[[float], None]) -> None:
        self._chains = chains
        self._clock = clock
        self._wake = wake
        self._since: dict[str, float | None] = {}  # when each was first seen that may not wait

    def __len__(self) -> int:
        return len(self._since)

    def enters(self, request_id: str) -> bool:
        """A request waits; whether a command has made it."""
        is_nested = self._chains.is_nested(request_id)
        if is_nested:
            self._since[request_id] = None
        return is_nested

    def leaves(self, request_id: str) -> None:
        """It has its verdict, or is gone. Safe to repeat."""
        self._since.pop(request_id, None)

    def verdicts(self, queue: Container[str], holders: Sequence[str], is_open: bool) -> list[tuple[str, str]]:
        """Those that wait no longer: with the request that each runs inside of, "" for one that is given
        up."""
        found, now = [], self._clock()
        for request_id in [one for one in self._since if one in queue]:
            outer = self._chains.outer_of(request_id) if is_open else ""
            if outer or self._is_given_up(request_id, holders, now):
                found.append((request_id, outer))
        return found

    def _is_given_up(self, request_id: str, holders: Sequence[str], now: float) -> bool:
        if self._chains.may_wait(request_id, holders):
            self._since[request_id] = None
            return False
        since = self._since[request_id]
        if since is None:
            self._since[request_id] = now
            self._wake(PATIENCE_SECONDS)
            return False
        return now - since >= PATIENCE_SECONDS
