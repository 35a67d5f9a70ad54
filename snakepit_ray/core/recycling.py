"""Knows when an interpreter is to be replaced on purpose, and how many may be at once.

Rules: a limit that is not set never fires; ages are spread by jitter, once for each interpreter, so that a
pool that started together does not recycle together; memory that could not be read fires nothing; at most a
quarter of a pool, at least one worker, is being recycled at any moment; a permit whose holder is never heard
of again ends by itself."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

SHARE = 4  # one of so many workers may be recycling


class Reason(str, Enum):
    """Why an interpreter was replaced on purpose."""

    TTL = "recycle_age"
    MAX_REQUESTS = "recycle_requests"
    MAX_MEMORY = "recycle_memory"
    MANUAL = "recycle_manual"
    TERMINATED = "recycle_terminated"  # it said that it ends: it got SIGTERM from somebody else

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Limits:
    """`ttl` in seconds, `max_memory` in bytes of the interpreter and its children; None: no limit."""

    ttl: float | None = None
    max_requests: int | None = None
    max_memory: int | None = None
    jitter: float = 0.0  # a share of ttl: ages are spread over ttl * (1 - jitter) to ttl * (1 + jitter)

    @property
    def any(self) -> bool:
        """Whether any limit is set."""
        return any(limit is not None for limit in (self.ttl, self.max_requests, self.max_memory))

    def expires_at(self, started_at: float, random: float) -> float:
        """When an interpreter that started then is too old; `random` in [0, 1)."""
        if self.ttl is None:
            return float("inf")
        return started_at + self.ttl * (1 - self.jitter + 2 * self.jitter * random)

    def exceeded(self, now: float, expires_at: float, requests: int, memory: int | None) -> Reason | None:
        """The first limit that is reached; `memory` None: nobody could read it."""
        if self.max_requests is not None and requests >= self.max_requests:
            return Reason.MAX_REQUESTS
        if self.max_memory is not None and memory is not None and memory >= self.max_memory:
            return Reason.MAX_MEMORY
        return Reason.TTL if now >= expires_at else None


class Permits(Generic[K]):
    """Who may be recycling now."""

    def __init__(self, valid: float) -> None:
        self._valid = valid
        self._held: dict[K, float] = {}  # until when

    def __len__(self) -> int:
        return len(self._held)

    def ask(self, key: K, workers: int, now: float) -> bool:
        """Whether `key`, one of `workers`, may begin; asked again by its holder it is granted anew."""
        self._held = {held: until for held, until in self._held.items() if until > now}
        if key not in self._held and len(self._held) >= max(1, workers // SHARE):
            return False
        self._held[key] = now + self._valid
        return True

    def give_back(self, key: K) -> None:
        """It is done, or it is gone. Safe to repeat."""
        self._held.pop(key, None)
