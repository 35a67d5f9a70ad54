"""Knows how an endless stream of calls runs through a pool: in chunks that follow the time that items take.

Rules: a chunk is formed when a slot is near and not before, so that a slow worker holds no share of the work;
what an interpreter gives back, and what cannot be sent together, goes out again in smaller chunks; an item's
error is its own; whatever the consumer does, no more is under way than the slots need."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import ray

from snakepit_ray.actors import ray_port
from snakepit_ray.codec import BatchOutcome
from snakepit_ray.config import CallOptions
from snakepit_ray.core.batch_size import BatchSize
from snakepit_ray.errors import ConfigError, DeadlineExceeded, NotNow, PoolClosed
from snakepit_ray.sending import Sender

ANSWER_MARGIN = 5.0  # for an answer to travel, beyond the request's own budget
DRAWING_SECONDS = 0.010  # a chunk of a slow source is sent with what there is
UNDELIVERED = 8  # chunks for each slot that are drawn and not handed out, in order, at most


class _Chunk(NamedTuple):
    """Items from number `start` on; `sent` (time.monotonic()) and `nbytes` of those that are under way."""

    start: int
    items: list[Any]
    sent: float = 0.0
    nbytes: int = 0


class _Done(NamedTuple):
    """The results of some items, and the errors of those that failed by index."""

    values: list[Any]
    failed: dict[int, BaseException]


class MapRun:
    """One `pool.map`."""

    def __init__(
        self,
        sender: Sender,
        command: str,
        items: Iterable[Any],
        options: CallOptions,
        *,
        ordered: bool,
        in_flight: int | None,
        chunk_size: int | None,
        return_exceptions: bool,
    ) -> None:
        for name, given in (("in_flight", in_flight), ("chunk_size", chunk_size)):
            if given is not None and given < 1:
                raise ConfigError(f"{name}: got {given}, expected at least 1")
        self._sender = sender
        self._command = command
        self._items = iter(items)
        self._options = options
        self._with_info = options.merge(info=True)
        self._ordered = ordered
        self._in_flight = in_flight
        self._chunk_size = chunk_size
        self._return_exceptions = return_exceptions
        self._size = BatchSize()
        self._exhausted = False
        self._drawn = self._handed = 0
        self._again: deque[_Chunk] = deque()  # to be sent before anything new is drawn
        self._under_way: dict[Any, _Chunk] = {}
        self._done: dict[int, _Done] = {}
        self._next = 0

    def run(self) -> Iterator[Any]:
        """The results."""
        try:
            while True:
                self._send_more()
                done = self._take_done()
                if done is not None:
                    yield from self._handed_out(done)
                    self._handed += len(done.values)
                    self._collect(wait=False)
                elif self._under_way:
                    self._collect(wait=True)
                else:
                    return
        finally:
            for ref in self._under_way:
                ray.cancel(ref)

    def _take_done(self) -> _Done | None:
        key = self._next if self._ordered else next(iter(self._done), -1)
        done = self._done.pop(key, None)
        if done is not None:
            self._next += len(done.values)
        return done

    def _handed_out(self, done: _Done) -> Iterator[Any]:
        if not done.failed:
            yield from done.values
        elif self._return_exceptions:
            yield from (done.failed.get(index, value) for index, value in enumerate(done.values))
        else:
            first = min(done.failed)
            yield from done.values[:first]
            raise done.failed[first]

    # ---- out ----------------------------------------------------------------------------------------------

    def _send_more(self) -> None:
        slots = self._sender.slots_for(self._options)
        while len(self._under_way) < self._sender.at_once(self._options, self._size.ahead):
            if len(self._under_way) + len(self._done) >= UNDELIVERED * slots and not self._again:
                return
            chunk = self._next_chunk(slots)
            if chunk is None:
                return
            self._send(chunk)

    def _next_chunk(self, slots: int) -> _Chunk | None:
        size = self._chunk_size or self._size.size
        if self._again:
            chunk = self._again.popleft()
            if len(chunk.items) > size:
                self._again.appendleft(_Chunk(chunk.start + size, chunk.items[size:]))
            return _Chunk(chunk.start, chunk.items[:size])
        if self._in_flight is not None:
            room = self._in_flight - (self._drawn - self._handed)
            size = min(size, room, max(1, self._in_flight // (self._size.ahead * slots)))
        items = self._draw(size)
        if not items:
            return None
        self._drawn += len(items)
        return _Chunk(self._drawn - len(items), items)

    def _draw(self, most: int) -> list[Any]:
        """Up to `most` items of the source; fewer when it takes its time."""
        items: list[Any] = []
        ends_at = time.monotonic() + DRAWING_SECONDS
        while len(items) < most and not self._exhausted:
            wanted = min(most - len(items), len(items) + 1)
            before = len(items)
            items.extend(islice(self._items, wanted))
            self._exhausted = len(items) < before + wanted
            if time.monotonic() > ends_at:
                break
        return items

    def _send(self, chunk: _Chunk) -> None:
        start, items = chunk.start, chunk.items
        try:
            if len(items) == 1:
                ref, nbytes = self._sender.one(self._command, items[0], self._with_info, patient=True), 0
            else:
                ref, nbytes = self._sender.some(self._command, items, self._options, patient=True)
        except PoolClosed:
            raise
        except Exception as error:  # noqa: BLE001 - a runtime's hook may raise anything: it is the item's failure
            if len(items) == 1:
                self._done[start] = _Done([None], {0: error})
            else:  # one of them cannot be sent, or cannot be sent with others
                half = len(items) // 2
                self._again.extendleft((_Chunk(start + half, items[half:]), _Chunk(start, items[:half])))
        else:
            self._under_way[ref] = _Chunk(start, items, time.monotonic(), nbytes)

    # ---- in -----------------------------------------------------------------------------------------------

    def _collect(self, wait: bool) -> None:
        """Takes what has ended; with `wait` at least one chunk."""
        refs = list(self._under_way)
        if not refs:
            return
        ready, _ = ray.wait(refs, num_returns=1, timeout=self._patience() if wait else 0)
        if not ready and wait:
            self._overdue(refs[0])
        for ref in ready:
            self._ended(ref, self._under_way.pop(ref))

    def _patience(self) -> float | None:
        """Without a timeout of the caller's own the command may have a longer one than the pool."""
        if self._options.timeout is None:
            return None
        oldest = next(iter(self._under_way.values())).sent
        return max(0.0, oldest + self._options.timeout + ANSWER_MARGIN - time.monotonic())

    def _overdue(self, ref: Any) -> None:
        ray.cancel(ref)
        error = DeadlineExceeded.after(self._options.timeout or 0.0, "running", self._command)
        self._failed(self._under_way.pop(ref), error)

    def _ended(self, ref: Any, chunk: _Chunk) -> None:
        try:
            answer = ray.get(ref)
        except ray_port.RayError as error:
            self._failed(chunk, self._sender.our(error, self._options.timeout))
            return
        if not isinstance(answer, BatchOutcome):
            self._size.observe(1, answer.ran_s)
            value = answer if self._options.info else answer.value
            self._done[chunk.start] = _Done([value], {})
            return
        count = len(answer.values)
        self._size.observe(count, answer.ran, answer.nbytes + chunk.nbytes * count // len(chunk.items))
        self._done[chunk.start] = _Done(answer.values, dict(answer.failed))
        if count < len(chunk.items):
            self._again.appendleft(_Chunk(chunk.start + count, chunk.items[count:]))

    def _failed(self, chunk: _Chunk, error: BaseException) -> None:
        if isinstance(error, NotNow) and self._under_way:
            self._again.appendleft(_Chunk(chunk.start, chunk.items))  # the queue is full: after the others
            return
        self._size.observe(len(chunk.items), time.monotonic() - chunk.sent)
        failed = dict.fromkeys(range(len(chunk.items)), error)
        self._done[chunk.start] = _Done([None] * len(chunk.items), failed)
