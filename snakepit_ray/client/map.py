"""An endless stream of calls runs through a pool, in chunks that follow the time that items take.

- An item is encoded when it is drawn. What an interpreter gives back, and what cannot be sent together,
  goes out again from that form, in smaller chunks.
- A source that may wait is drawn in a thread of its own, so that what is done is handed out meanwhile, and
  may be what the source waits for. A list or a tuple is drawn where it is needed.
- A chunk is formed when a slot is near and not before, so that a slow worker holds no share of the work.
  It goes to the worker that has just answered, if any: work that few workers can do wakes no others.
- An item's error is its own. What was done before a source failed is handed out before its error.
- Whatever the consumer does, no more is under way than the slots need.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import ray

from snakepit_ray.client.drawing import Failed, Item, Source
from snakepit_ray.client.given import check_counts, check_items
from snakepit_ray.client.sender import Sender, Sent, is_unbegun
from snakepit_ray.config import CallOptions
from snakepit_ray.core.work.batch_size import MOST, MOST_BYTES, BatchSize
from snakepit_ray.errors import NotNow, PoolClosed
from snakepit_ray.port import ray_port
from snakepit_ray.telemetry.trace_context import current
from snakepit_ray.wire.codec import BatchOutcome
from snakepit_ray.wire.requests import Drawn, drawn_bytes, drawn_refs

LOOK_SECONDS = 0.005  # between two looks at a source that is waited for while answers are, too
LONGEST_TURN = 0.1  # seconds: a consumer that pauses once is not taken for one that is always slow
UNDELIVERED = 8  # chunks for each slot that are drawn and not handed out, in order, at most


class _Chunk(NamedTuple):
    """Items from number `start` on; when they were sent (time.monotonic())."""

    start: int
    items: list[Drawn]
    sent: Sent | None = None
    sent_at: float = 0.0


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
        check_counts(in_flight=in_flight, chunk_size=chunk_size)
        check_items(items)
        self._sender = sender
        self._command = command
        self._source = Source(items, sender.drawer(command), draws_ahead=in_flight is None)
        self._options = options
        self._trace = current()
        self._with_info = options.merge(info=True)
        self._ordered = ordered
        self._in_flight = in_flight
        self._chunk_size = chunk_size
        self._return_exceptions = return_exceptions
        self._size = BatchSize()
        self._taken = self._handed = 0
        self._items: deque[Item] = deque()  # that are drawn, and go next
        self._again: deque[_Chunk] = deque()  # to be sent before anything new
        self._under_way: dict[Any, _Chunk] = {}
        self._done: dict[int, _Done] = {}
        self._next = 0
        self._free: list[str] = []  # workers that have just answered
        self._caller_seconds = 0.0  # between two chunks, without what was waited for answers: smoothed
        self._last_sent, self._waited = time.monotonic(), 0.0
        self._gathers_since: float | None = None  # when the first item of a chunk that is not full was there

    def run(self) -> Iterator[Any]:
        """The results."""
        try:
            while True:
                self._sender.check_open()
                self._send_more()
                done = self._take_done()
                if done is not None:
                    yield from self._handed_out(done)
                    self._handed += len(done.values)
                    self._collect(0.0)
                elif not self._wait():
                    if self._source.error is not None:
                        raise self._source.error
                    return
        finally:
            self._source.close()
            for chunk in self._under_way.values():
                if chunk.sent is not None:
                    self._sender.cancel(chunk.sent)
                    self._sender.ended(chunk.sent)

    def _wait(self) -> bool:
        """Waits until something has changed; False when nothing can come any more."""
        if self._under_way:
            self._collect(LOOK_SECONDS if self._wants_items() else None)
        elif not self._source.is_over and self._room() > 0:
            self._items.extend(self._source.wait(1.0, self._room()))
        else:
            return bool(self._again or self._items or self._done)
        return True

    def _wants_items(self) -> bool:
        """Whether a slot stands empty because the source has not brought its items."""
        idle = len(self._under_way) < self._most_under_way() and not self._again
        wants = self._gathers_since is not None or (not self._items and self._room() > 0)
        return idle and wants and not self._source.is_over

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

    def _most_under_way(self) -> int:
        slots = self._sender.slots_for(self._options)
        if self._options.session:
            return slots
        drawing = self._source.item_seconds * self._size.size  # beside this thread
        return self._size.ahead * self._size.spread(slots, max(self._caller_seconds, drawing))

    def _send_more(self) -> None:
        slots = self._sender.slots_for(self._options)
        while len(self._under_way) < self._most_under_way():
            if len(self._under_way) + len(self._done) >= UNDELIVERED * slots and not self._again:
                return
            chunk = self._next_chunk()
            if chunk is None:
                return
            if chunk.items:
                self._send(chunk)

    def _full(self) -> int:
        """How many items a chunk should have."""
        size = self._chunk_size or self._size.size
        if self._in_flight is None:
            return size
        slots = self._sender.slots_for(self._options)
        return min(size, max(1, self._in_flight // (self._size.ahead * slots)))

    def _room(self) -> int:
        """How many items may be drawn now."""
        if self._in_flight is None:
            return self._full()
        return min(self._full(), self._in_flight - (self._taken + len(self._items) - self._handed))

    def _gathers(self, size: int) -> bool:
        """Whether a chunk that is not full should wait for more items. Otherwise a pool with more slots than
        the source can fill would get all work in pieces. One that waits for nothing else goes at once.
        """
        more = len(self._items) < size and self._room() > 0 and not self._source.is_over
        now = time.monotonic()
        since = now if self._gathers_since is None else self._gathers_since
        waits = more and bool(self._under_way) and now - since < LOOK_SECONDS
        self._gathers_since = since if waits else None
        return waits

    def _next_chunk(self) -> _Chunk | None:
        """The items that go next; None where there are none now, no items where they have failed already."""
        size = self._full()
        if self._again:
            chunk = self._again.popleft()
            if len(chunk.items) > size:
                self._again.appendleft(_Chunk(chunk.start + size, chunk.items[size:]))
            return _Chunk(chunk.start, chunk.items[:size])
        if len(self._items) < size:
            self._items.extend(self._source.take(min(MOST, self._room())))
        if not self._items or self._gathers(size):
            return None
        return self._formed(size)

    def _formed(self, size: int) -> _Chunk:
        start, items, nbytes = self._taken, list[Drawn](), 0
        for item in islice(self._items, size):
            if type(item) is not dict:
                alone = isinstance(item, Failed) or bool(drawn_refs(item))
                if alone and items:
                    break
                if isinstance(item, Failed):
                    self._items.popleft()
                    self._taken += 1
                    self._done[start] = _Done([None], {0: item.error})
                    break
                nbytes += drawn_bytes(item)
                if alone or nbytes > MOST_BYTES:
                    items.append(item)
                    break
            items.append(item)
        for _ in items:
            self._items.popleft()
        self._taken += len(items)
        return _Chunk(start, items)

    def _send(self, chunk: _Chunk) -> None:
        start, items = chunk.start, chunk.items
        began = time.monotonic()
        try:
            if len(items) == 1:
                sent = self._sender.one(
                    self._command, items[0], self._with_info, patient=True, trace=self._trace
                )
            else:
                prefer = self._free.pop() if self._free else None
                sent = self._sender.some(
                    self._command, items, self._options, patient=True, prefer=prefer, traces=(self._trace,)
                )
        except PoolClosed:
            raise
        except Exception as error:  # noqa: BLE001 - whatever cannot be sent is the item's failure
            if len(items) == 1:
                self._done[start] = _Done([None], {0: error})
            else:  # one of them cannot be sent, or cannot be sent with others
                half = len(items) // 2
                self._again.extendleft((_Chunk(start + half, items[half:]), _Chunk(start, items[:half])))
        else:
            self._under_way[sent.ref] = _Chunk(start, items, sent, began)
            self._has_sent()

    def _has_sent(self) -> None:
        """Takes down what this thread has spent since the last chunk: on drawing, sending, decoding, and in
        the consumer's own code.
        """
        now = time.monotonic()
        spent = min(now - self._last_sent - self._waited, LONGEST_TURN)
        self._caller_seconds += (spent - self._caller_seconds) / 4
        self._last_sent, self._waited = now, 0.0

    # ---- in -----------------------------------------------------------------------------------------------

    def _collect(self, timeout: float | None) -> None:
        """Takes what has ended, after at most `timeout` seconds; None: as long as the oldest may take."""
        self._sender.check_open()  # Ray would start another session to wait in
        refs = list(self._under_way)
        if not refs:
            return
        oldest = next(iter(self._under_way.values())).sent
        assert oldest is not None
        bound = oldest.left if timeout is None else min(timeout, oldest.left)
        began = time.monotonic()
        ready, _ = ray.wait(refs, num_returns=1, timeout=min(bound, 1.0))
        self._waited += time.monotonic() - began
        if not ready and oldest.left <= 0:
            self._sender.cancel(oldest)
            self._failed(self._gone(refs[0]), self._sender.too_late(oldest))
        for ref in ready:
            self._ended(ref, self._gone(ref))

    def _gone(self, ref: Any) -> _Chunk:
        chunk = self._under_way.pop(ref)
        assert chunk.sent is not None
        self._sender.ended(chunk.sent)
        return chunk

    def _ended(self, ref: Any, chunk: _Chunk) -> None:
        assert chunk.sent is not None
        try:
            answer = ray.get(ref)
        except ray_port.RayError as error:
            self._failed(chunk, self._sender.our(error, chunk.sent))
            return
        self._free = [*self._free[-31:], chunk.sent.worker_id]
        if not isinstance(answer, BatchOutcome):
            self._size.observe(1, answer.ran_s)
            value = answer if self._options.info else answer.value
            self._done[chunk.start] = _Done([value], {})
            return
        count = len(answer.values)
        moved = answer.nbytes + chunk.sent.nbytes * count // len(chunk.items)
        self._size.observe(count, answer.ran, moved)
        self._done[chunk.start] = _Done(answer.values, dict(answer.failed))
        if count < len(chunk.items):
            self._again.appendleft(_Chunk(chunk.start + count, chunk.items[count:]))

    def _failed(self, chunk: _Chunk, error: BaseException) -> None:
        waits = isinstance(error, NotNow) and self._under_way  # the queue is full: after the others
        if waits or is_unbegun(error):
            self._again.appendleft(_Chunk(chunk.start, chunk.items))
            return
        self._size.observe(len(chunk.items), time.monotonic() - chunk.sent_at)
        failed = dict.fromkeys(range(len(chunk.items)), error)
        self._done[chunk.start] = _Done([None] * len(chunk.items), failed)
