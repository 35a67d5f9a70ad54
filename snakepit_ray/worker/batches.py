"""How the worker that a batch came to spreads it over the pool.

Rules:
- It runs as many small batches. Each is a request like any other: it waits here and moves to a worker that is
  free.
- core/work/divider.py says how it is divided, and what goes again.
- The batches of a session go one after the other.
- Every item ends with one result or one error.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from itertools import accumulate
from typing import Any, NamedTuple

from snakepit_ray.core.work.batch_size import SHARE, WholeSize
from snakepit_ray.core.work.divider import Chunk, Divider, Rules
from snakepit_ray.core.work.request_ids import PartId
from snakepit_ray.errors import DeadlineExceeded, NotNow, SnakepitError
from snakepit_ray.supervisor.accounts import Account
from snakepit_ray.supervisor.outcomes import Tally
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope, BatchPart, nbytes
from snakepit_ray.wire.replies import batch_of, failed_part

Run = Callable[[pb.Request], Awaitable[Any]]


class _Trip(NamedTuple):
    """A chunk that is under way as a request."""

    chunk: Chunk[int]
    request: pb.Request


class BatchRun:
    """One batch: `sources` are the requests that its items came in, `run` runs a request anywhere in the
    pool, `account` is told what became of each part. `clock` is time.monotonic, which the account's times are
    of."""

    def __init__(
        self,
        sources: list[pb.Request],
        slots: int,
        run: Run,
        account: Account,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = sources
        self._run = run
        self._account = account
        self._clock = clock
        # A session's are ordered: what a part gives back goes before the next part, whatever slots there are.
        self._slots = 1 if sources[0].session else slots
        self._begins = [0, *accumulate(source.batch.count for source in sources)]  # the first item of each
        self._began = clock()
        self._budget = sources[0].budget_ms / 1000
        self._parts: dict[int, BatchPart] = {}  # by the number of the first item
        self._under_way: dict[asyncio.Task[Any], _Trip] = {}
        largest = max(source.batch.count for source in sources)
        self._sizing = WholeSize(self._begins[-1], self._slots, largest)
        self._divider = self._divided()

    def _divided(self) -> Divider[int]:
        rules = Rules(in_order=bool(self._sources[0].session))
        divider: Divider[int] = Divider(self._sizing, rules)
        for begin, source in zip(self._begins, self._sources, strict=False):
            # Its buffers go along whole, whatever part of the items goes.
            is_whole = bool(source.args.buffers)
            divider.add_apart(range(begin, begin + source.batch.count), self._began, is_whole=is_whole)
        divider.close()
        return divider

    async def run(self) -> BatchEnvelope:
        """Runs all items. Raises NotNow when none of them got in."""
        try:
            while not self._divider.is_finished:
                slots = self._sizing.spread(self._slots)
                while (chunk := self._divider.next(slots, self._clock())) is not None:
                    self._start(chunk)
                if self._under_way:
                    await self._some_end()
                else:  # others fill the pool
                    await asyncio.sleep(max(0.0, self._divider.wakes_at(slots) - self._clock()))
        finally:
            self._divider.stop()
            await self._cancel()
        return batch_of([self._parts[key] for key in sorted(self._parts)], self._sources[0])

    def _start(self, chunk: Chunk[int]) -> None:
        request = self._request(chunk)
        left = self._budget
        if not request.options.default_budget:  # it is the caller's, for the whole batch
            left -= self._clock() - self._began
        request.budget_ms = max(1, int(left * 1000))
        if self._parts:  # the batch is in: its own items are what it waits for
            request.options.queue_ms = request.budget_ms
        task: asyncio.Task[Any] = asyncio.ensure_future(self._one(request, left))
        self._under_way[task] = _Trip(chunk, request)

    def _request(self, chunk: Chunk[int]) -> pb.Request:
        """The request for some items of one source."""
        number = bisect_right(self._begins, chunk.number) - 1
        first, size = chunk.number - self._begins[number], len(chunk.items)
        request = pb.Request()
        request.CopyFrom(self._sources[number])
        request.id = str(PartId(self._sources[0].id, number, first, size))
        request.batch.first, request.batch.count = first, size
        request.batch.share_ms = int(SHARE * 1000)
        return request

    async def _one(self, request: pb.Request, left: float) -> Any:
        if left <= 0:
            raise DeadlineExceeded.after(self._budget, "waiting", request.command)
        return await self._run(request)

    async def _some_end(self) -> None:
        done, _ = await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            self._ended(task, *self._under_way.pop(task))

    def _ended(self, task: asyncio.Task[Any], chunk: Chunk[int], request: pb.Request) -> None:
        now, size, result = self._clock(), len(chunk.items), ""
        try:
            (part,) = task.result().parts
        except NotNow:
            if not self._parts and not self._under_way:
                raise
            self._divider.refused(chunk, now)
            return
        except SnakepitError as error:
            part, result = failed_part(size, error), type(error).__name__
            self._divider.ended(chunk, now, seconds=now - chunk.at)
        else:
            moved = len(part.json) + sum(map(nbytes, part.buffers))
            left = chunk.items[part.size :]
            self._divider.ended(chunk, now, left=left, seconds=part.ran, nbytes=moved)
        self._parts[chunk.number] = part
        self._account.ended(request, chunk.at, Tally(part.size, len(part.failures)), result)

    async def _cancel(self) -> None:
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
