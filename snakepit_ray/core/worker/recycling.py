"""When an interpreter is replaced on purpose, and how many interpreters of a pool may be replaced at once.

Rules:
- A limit that is not set never fires.
- Ages are spread by jitter, once for each interpreter, so that a pool that started together does not recycle
  together.
- Memory that could not be read fires nothing.
- At most a quarter of a pool, at least one worker, is being recycled at any moment. A permit whose holder is
  never heard of again ends by itself.
- An interpreter serves `max_requests` requests (`Countdown`). Each item of a batch is one. The bound gives
  way to availability where the permit or the start of the replacement takes too long."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

SHARE = 4  # one of so many workers may be recycling
ASK_SECONDS = 0.1  # at the limit, for the permit; a free permit is granted within milliseconds
HOLD_SECONDS = 0.9  # at the limit, for the replacement to come up
EARLIEST = 0.75  # of the limit: no replacement begins before so many requests were served
MARGIN = 1.5  # a replacement begins so many of its expected durations before the limit is reached
RECENT = 16  # answers that say how fast requests come


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


class Stage(Enum):
    """How far the replacement of the interpreter that serves has come."""

    DUE = "due"  # nobody was asked for the permit yet, or the answer is awaited for the first time
    DENIED = "denied"  # others recycle: the permit is asked for again and again
    STARTS = "starts"
    READY = "ready"  # it serves as soon as the limit is reached
    FAILED = "failed"  # it could not be started: the present interpreter serves on


class Countdown:
    """Counts the requests of one interpreter towards `max_requests`. Decides when its replacement begins, and
    whether another request may start in it.

    The replacement begins so early that it is ready when the limit is reached. If the limit comes first,
    requests wait until the replacement serves: at most ASK_SECONDS for the permit and HOLD_SECONDS for the
    start. So each interpreter serves `max_requests` requests, with two exceptions:

    - A start that takes longer than HOLD_SECONDS and was not foreseen holds nobody up; the present
      interpreter serves on until the replacement is ready.
    - Only a quarter of a pool may recycle at once, and a worker without a permit serves on. The bound
      therefore holds for all workers only if an interpreter takes at least SHARE times as long to serve
      `max_requests` requests as the next one takes to start and the old one to end.

    Of a batch that would pass the limit as many items begin as are left (`left`). The others are given back.

    Where requests become rare just before the limit, the replacement does not wait for it forever: then an
    interpreter serves fewer, at least EARLIEST of the limit.

    Without overlap no replacement begins early. The present interpreter stops as soon as the permit is
    granted, so the limit is exact unless the permit is late."""

    def __init__(self, limit: int, start_seconds: float, *, overlap: bool) -> None:
        """`start_seconds`: how long a start takes, as the last one did. `overlap`: whether the
        replacement is made ready while the present interpreter serves."""
        self.limit = limit
        self._start_seconds = start_seconds
        self._overlap = overlap
        self._answers: deque[tuple[float, int]] = deque(maxlen=RECENT)  # when, and how many were served
        self._stage = Stage.DUE
        self._ready_by = float("inf")
        self._held_until: float | None = None  # of this stage; None: nobody was held up in it

    @property
    def served(self) -> int:
        """Requests that the interpreter has answered."""
        return self._answers[-1][1] if self._answers else 0

    def observe(self, now: float, served: int) -> None:
        """The interpreter has answered `served` requests altogether."""
        if served != self.served:
            self._answers.append((now, served))

    def advance(self, stage: Stage, now: float) -> None:
        """The replacement has come to `stage`."""
        if self._stage is not Stage.FAILED:  # once is enough: nobody waits for one that may fail again
            self._stage, self._held_until, self._ready_by = stage, None, now + self._start_seconds

    def is_due(self) -> bool:
        """Whether the replacement is to begin now."""
        left = self.limit - self.served
        if left <= 0:
            return True
        if not self._overlap or self.served < EARLIEST * self.limit or len(self._answers) < 2:
            return False
        (since, before), (until, served) = self._answers[0], self._answers[-1]
        seconds_each = (until - since) / (served - before)
        return left * seconds_each <= MARGIN * self._start_seconds

    def is_reached(self, occupied: int) -> bool:
        """Whether the limit is reached when the `occupied` requests that are in the interpreter are
        answered."""
        return self.left(occupied) == 0

    def left(self, occupied: int) -> int:
        """Requests that may still begin beside those `occupied`; 0: the limit is reached."""
        return max(0, self.limit - self.served - occupied)

    def held_until(self, now: float) -> float:
        """At the limit: until when no further request starts, unless the stage changes. A time that is not
        after `now`: one may start."""
        if self._held_until is None:
            self._held_until = now + self._patience(now)
        return self._held_until

    def _patience(self, now: float) -> float:
        if self._stage is Stage.DUE:
            return ASK_SECONDS
        is_soon = not self._overlap or self._ready_by - now <= HOLD_SECONDS
        is_coming = self._stage is Stage.READY or (self._stage is Stage.STARTS and is_soon)
        return HOLD_SECONDS if is_coming else 0.0


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
