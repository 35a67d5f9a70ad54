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
from contextlib import contextmanager

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.codec import BatchEnvelope
from snakepit_ray.errors import RequestCancelled, SnakepitError, WorkerCrashed
from snakepit_ray.supervisor.outcomes import Counters, Done, Relayed, Tally
from snakepit_ray.supervisor.story import Story


class Account:
    """The account of one request; `is_` says what it came to."""

    def __init__(self, request: pb.Request) -> None:
        self.size = request.batch.count or 1
        self.tally = Tally(self.size, 0)

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


class BatchAccount:
    """The account of a batch that runs in parts. `left` of its items have no outcome yet."""

    def __init__(self, accounts: Accounts, size: int) -> None:
        self._accounts = accounts
        self.left = size

    def ended(self, part: pb.Request, began: float, tally: Tally, error: str = "") -> None:
        """Some of the items that went as `part` have their outcomes."""
        self.left -= tally.items
        self._accounts.ended(part, began, tally, error)


class Accounts:
    """The accounts of one worker's requests."""

    def __init__(self, counters: Counters, story: Story) -> None:
        self._counters = counters
        self._story = story

    @contextmanager
    def opened(self, request: pb.Request) -> Iterator[Account]:
        """While it is open the request has no outcome. What the block raises is its outcome, else what the
        account was told. A request that another worker has sent here is counted there."""
        account, began = Account(request), time.monotonic()
        try:
            yield account
        except RequestCancelled:
            self._cancelled(request, began, account.size)
            raise
        except SnakepitError as error:
            begun = error.begun if isinstance(error, WorkerCrashed) else None
            failed = begun or account.size
            self.ended(request, began, Tally(failed, failed), type(error).__name__)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._cancelled(request, began, account.size)
            raise
        else:
            self.ended(request, began, account.tally)

    @contextmanager
    def divided(self, request: pb.Request, size: int) -> Iterator[BatchAccount]:
        """Around a batch of `size` items whose first request this is. What the block raises is the outcome of
        the items that have none."""
        account, began = BatchAccount(self, size), time.monotonic()
        try:
            yield account
        except (RequestCancelled, asyncio.CancelledError):
            self._cancelled(request, began, account.left)
            raise
        except SnakepitError as error:
            self.ended(request, began, Tally(account.left, account.left), type(error).__name__)
            raise

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
