"""How the worker that a batch came to spreads it over the pool.

Rules:
- It runs as many small batches. Each is a request like any other: it waits here and moves to a worker that is
  free.
- Their size follows the time that items take (core/work/batch_size.py). What one gives back is sent again.
- The batches of a session go one after the other.
- Every item ends with one result or one error.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from snakepit_ray.core.work.batch_size import SHARE, BatchSize
from snakepit_ray.errors import DeadlineExceeded, NotNow, SnakepitError
from snakepit_ray.supervisor.accounts import Account
from snakepit_ray.supervisor.outcomes import Tally
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope, BatchPart, nbytes
from snakepit_ray.wire.replies import batch_of, failed_part

FIRST_SIZE = 256  # of the first batches, at most: what takes long in them is given back
AGAIN_SECONDS = 0.02
Run = Callable[[pb.Request], Awaitable[Any]]


class _Range(NamedTuple):
    """Items of one of the requests that the batch came as."""

    source: int
    first: int
    size: int


class BatchRun:
    """One batch: `sources` are the requests that its items came in, `run` runs a request anywhere in the
    pool, `account` is told what became of each part."""

    def __init__(self, sources: list[pb.Request], slots: int, run: Run, account: Account) -> None:
        self._sources = sources
        self._run = run
        self._account = account
        total = sum(source.batch.count for source in sources)
        self._slots = 1 if sources[0].session else slots
        self._size = BatchSize(start=min(FIRST_SIZE, total // (4 * self._slots)))
        self._left = deque(_Range(n, 0, source.batch.count) for n, source in enumerate(sources))
        self._began = time.monotonic()
        self._budget = sources[0].budget_ms / 1000
        self._parts: dict[_Range, BatchPart] = {}
        self._under_way: dict[asyncio.Task[Any], tuple[_Range, pb.Request, float]] = {}
        self._refused = False  # nothing more gets in until something has ended

    async def run(self) -> BatchEnvelope:
        """Runs all items. Raises NotNow when none of them got in."""
        try:
            while self._left or self._under_way:
                while self._left and not self._refused and len(self._under_way) < self._at_once:
                    self._start(self._take())
                done, _ = await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    await self._ended(task)
        finally:
            await self._cancel()
        return batch_of([self._parts[key] for key in sorted(self._parts)], self._sources[0])

    @property
    def _at_once(self) -> int:
        in_session = bool(self._sources[0].session)
        return 1 if in_session else self._size.ahead * self._slots

    def _take(self) -> _Range:
        """The items that go next."""
        source, first, count = self._left.popleft()
        if self._sources[source].args.buffers:  # they go along whole, whatever part of the items goes
            return _Range(source, first, count)
        # Near the end the rest is shared out: nobody is to be the last by a whole chunk.
        size = max(1, min(self._size.size, -(-(count + sum(r.size for r in self._left)) // self._slots)))
        if count > size:
            self._left.appendleft(_Range(source, first + size, count - size))
        return _Range(source, first, min(count, size))

    def _start(self, items: _Range) -> None:
        source = self._sources[items.source]
        request = pb.Request()
        request.CopyFrom(source)
        # The same id only for the same items: a batch that comes again may be divided in another way.
        request.id = f"{self._sources[0].id}/{items.source}.{items.first}+{items.size}"
        request.batch.first, request.batch.count = items.first, items.size
        request.batch.share_ms = int(SHARE * 1000)
        left = self._budget
        if not source.options.default_budget:  # it is the caller's, for the whole batch
            left -= time.monotonic() - self._began
        request.budget_ms = max(1, int(left * 1000))
        if self._parts:
            request.options.queue_ms = (
                request.budget_ms
            )  # the batch is in: its own items are what it waits for
        task: asyncio.Task[Any] = asyncio.ensure_future(self._one(request, left))
        self._under_way[task] = (items, request, time.monotonic())

    async def _one(self, request: pb.Request, left: float) -> Any:
        if left <= 0:
            raise DeadlineExceeded.after(self._budget, "waiting", request.command)
        return await self._run(request)

    async def _ended(self, task: asyncio.Task[Any]) -> None:
        items, request, began = self._under_way.pop(task)
        told = ""
        try:
            (part,) = task.result().parts
        except NotNow:
            if not self._parts and not self._under_way:
                raise
            self._left.appendleft(items)
            self._refused = bool(self._under_way)
            if not self._under_way:
                await asyncio.sleep(AGAIN_SECONDS)
            return
        except SnakepitError as error:
            part, told = failed_part(items.size, error), type(error).__name__
        else:
            self._size.observe(part.size, part.ran, len(part.json) + sum(map(nbytes, part.buffers)))
        self._refused = False
        self._parts[items] = part
        self._account.ended(request, began, Tally(part.size, len(part.failures)), told)
        if part.size < items.size:
            rest = _Range(items.source, items.first + part.size, items.size - part.size)
            self._left.appendleft(rest)

    async def _cancel(self) -> None:
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
