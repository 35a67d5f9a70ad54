"""Every request is counted here, once, where it first arrived, when it has its outcome.

- ok + errors + cancelled = requests. A batch counts each of its items, as its parts end; what is left when
  the batch itself ends, refused or cancelled, is counted with that.
- Items of a batch that an interpreter gave back, or that were not begun when it died, are not counted: they
  come again in another part.
- `request.executed` and `request.cancelled` are emitted with the same numbers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, MutableSequence
from typing import Any

from snakepit_ray.errors import RequestCancelled, SnakepitError, WorkerCrashed
from snakepit_ray.supervisor.outcomes import Done, Relayed, Tally, tally_of
from snakepit_ray.supervisor.story import Story
from snakepit_ray.telemetry import listening
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope


def _counter(place: int) -> Any:
    def get(counters: Counters) -> int:
        return int(counters._words[place])

    def put(counters: Counters, number: int) -> None:
        counters._words[place] = number

    return property(get, put)


class Counters:
    """What this worker has done. `requests` are those that have their outcome: a value, an error, or they
    were cancelled. `restarts` are interpreters, and worker actors, that came after a loss. `by_lane` are
    calls that came over a lane.

    `words` is where the numbers are: memory that outlives this process goes on counting in the next one."""

    SIZE = 9

    def __init__(self, words: MutableSequence[int] | memoryview | None = None) -> None:
        self._words: Any = [0] * self.SIZE if words is None else words

    requests: int = _counter(0)
    errors: int = _counter(1)
    cancelled: int = _counter(2)
    queue_timeouts: int = _counter(3)
    saturated: int = _counter(4)
    delegated: int = _counter(5)
    recycled: int = _counter(6)
    restarts: int = _counter(7)
    by_lane: int = _counter(8)

    def count(self, items: int, failed: int = 0, cancelled: int = 0) -> None:
        """So many requests have their outcome."""
        self._words[0] += items
        self._words[1] += failed
        self._words[2] += cancelled


class Account:
    """The account of one request of `size` calls, open until the block around it ends. `is_` says what the
    request came to; what the block raises is its outcome else."""

    __slots__ = ("_accounts", "_began", "_request", "size", "tally")

    def __init__(self, accounts: Accounts, request: pb.Request, size: int, tally: Tally | None) -> None:
        self.size = size  # calls that have no outcome yet
        self.tally = tally  # what an end without an error counts for; None: nothing
        self._accounts = accounts
        self._request = request
        self._began = accounts.clock()

    def is_(self, outcome: object) -> None:
        """The outcome: Done, Relayed, an envelope. Anything else is one value."""
        if isinstance(outcome, Done):
            self.tally = tally_of(outcome.answer.reply, self.size)
        elif isinstance(outcome, Relayed):
            self.is_(outcome.value)
        elif isinstance(outcome, BatchEnvelope):
            self.tally = Tally(outcome.count, sum(len(part.failures) for part in outcome.parts))
        elif isinstance(outcome, SnakepitError):
            self.tally = Tally(self.size, self.size)

    def ended(self, part: pb.Request, began: float, tally: Tally, error: str = "") -> None:
        """Some calls of a batch, which went as `part`, have their outcomes."""
        self.size -= tally.items
        self._accounts.ended(part, began, tally, error)

    def __enter__(self) -> Account:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            if self.tally is not None:
                self._accounts.ended(self._request, self._began, self.tally)
        elif isinstance(error, (RequestCancelled, asyncio.CancelledError, GeneratorExit)):
            self._accounts.cancelled(self._request, self._began, self.size)
        elif isinstance(error, SnakepitError):
            begun = error.begun if isinstance(error, WorkerCrashed) else None
            failed = begun or self.size
            tally = Tally(failed, failed)
            self._accounts.ended(self._request, self._began, tally, type(error).__name__)


class Accounts:
    """The accounts of one worker's requests."""

    def __init__(self, counters: Counters, story: Story, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._counters = counters
        self._story = story

    def opened(self, request: pb.Request) -> Account:
        """While it is open the request has no outcome. A request that another worker has sent here is counted
        there."""
        size = request.batch.count or 1
        return Account(self, request, size, Tally(size, 0))

    def divided(self, request: pb.Request, size: int) -> Account:
        """Around a batch of `size` items whose first request this is, and that runs in parts. What the block
        raises is the outcome of the items that have none."""
        return Account(self, request, size, None)

    def ended(self, request: pb.Request, began: float, tally: Tally, error: str = "") -> None:
        """Counts what `tally` says, unless another worker does."""
        if request.options.hops:
            return
        self._counters.count(tally.items, tally.failed)
        if listening["request.executed"]:
            self._story.executed(request, began, tally, error)

    def cancelled(self, request: pb.Request, began: float, items: int) -> None:
        """Its caller wants so many calls of it no more."""
        if request.options.hops:
            return
        self._counters.count(items, cancelled=items)
        self._story.cancelled(request, began, items)
