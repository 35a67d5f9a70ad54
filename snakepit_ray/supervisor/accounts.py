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
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from snakepit_ray.errors import RequestCancelled, SnakepitError, WorkerCrashed
from snakepit_ray.supervisor.outcomes import Counters, Done, Relayed, Tally
from snakepit_ray.supervisor.story import Story
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope

A = TypeVar("A", bound="Account")


class Account:
    """The account of one request of `size` calls; `is_` says what it came to. `tally` is what its end counts
    for."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tally: Tally | None = Tally(size, 0)

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


class BatchAccount(Account):
    """The account of a batch that runs in parts: `size` of its items have no outcome yet, and its end without
    an error counts for nothing."""

    def __init__(self, accounts: Accounts, size: int) -> None:
        super().__init__(size)
        self.tally = None
        self._accounts = accounts

    def ended(self, part: pb.Request, began: float, tally: Tally, error: str = "") -> None:
        """Some of the items, which went as `part`, have their outcomes."""
        self.size -= tally.items
        self._accounts.ended(part, began, tally, error)


class Accounts:
    """The accounts of one worker's requests."""

    def __init__(self, counters: Counters, story: Story) -> None:
        self._counters = counters
        self._story = story

    def opened(self, request: pb.Request) -> AbstractContextManager[Account]:
        """While it is open the request has no outcome. What the block raises is its outcome, else what the
        account was told. A request that another worker has sent here is counted there."""
        return self._until_its_end(request, Account(request.batch.count or 1))

    def divided(self, request: pb.Request, size: int) -> AbstractContextManager[BatchAccount]:
        """Around a batch of `size` items whose first request this is. What the block raises is the outcome of
        the items that have none."""
        return self._until_its_end(request, BatchAccount(self, size))

    @contextmanager
    def _until_its_end(self, request: pb.Request, account: A) -> Iterator[A]:
        began = time.monotonic()
        try:
            yield account
        except (RequestCancelled, asyncio.CancelledError, GeneratorExit):
            self._cancelled(request, began, account.size)
            raise
        except SnakepitError as error:
            begun = error.begun if isinstance(error, WorkerCrashed) else None
            failed = begun or account.size
            self.ended(request, began, Tally(failed, failed), type(error).__name__)
            raise
        if account.tally is not None:
            self.ended(request, began, account.tally)

    def ended(self, request: pb.Request, began: float, tally: Tally, error: str = "") -> None:
        """Counts what `tally` says, unless another worker does."""
        if request.options.hops:
            return
        self._counters.requests += tally.items
        self._counters.errors += tally.failed
        self._story.executed(request, began, tally, error)

    def _cancelled(self, request: pb.Request, began: float, items: int) -> None:
        if request.options.hops:
            return
        self._counters.requests += items
        self._counters.cancelled += items
        self._story.cancelled(request, began, items)


def tally_of(reply: pb.Reply, size: int) -> Tally:
    """What an interpreter's answer to a request of `size` calls counts for."""
    if reply.HasField("failure"):
        return Tally(size, size)
    return Tally(reply.items if size > 1 else 1, len(reply.failures))
