"""An endless stream of calls runs through a pool, in chunks that follow the time that items take.

- core/work/divider.py says what is sent next. Here it is drawn, sent, waited for and handed out.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from snakepit_ray.client import answers
from snakepit_ray.client.drawing import Failed, Item, Source, fitting
from snakepit_ray.client.given import check_counts, check_items
from snakepit_ray.client.sender import Sender, Sent, is_unbegun
from snakepit_ray.config import CallOptions
from snakepit_ray.core.work.batch_size import MOST, SourceSize
from snakepit_ray.core.work.divider import Chunk, Divider, Rules
from snakepit_ray.errors import NotNow, PoolClosed
from snakepit_ray.telemetry.trace_context import current
from snakepit_ray.wire.codec import BatchOutcome

LOOK_SECONDS = 0.005  # between two looks at a source that is waited for while answers are, too
LONGEST_TURN = 0.1  # seconds: a consumer that pauses once is not taken for one that is always slow
UNDELIVERED = 8  # chunks for each slot that are drawn and not handed out, in order, at most


class _ChunkSent(NamedTuple):
    """A chunk that is under way."""

    chunk: Chunk[Item]
    sent: Sent


class _Done(NamedTuple):
    """The results of some items, and the errors of those that failed by index."""

    values: list[Any]
    failed: dict[int, BaseException]


class MapRun:
    """One `pool.map`. `clock` is time.monotonic, which its deadlines are of."""

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_counts(in_flight=in_flight, chunk_size=chunk_size)
        check_items(items)
        self._sender = sender
        self._command = command
        self._source = Source(items, sender.drawer(command), draws_ahead=in_flight is None, clock=clock)
        self._options = options
        self._trace = current()
        self._with_info = options.merge(info=True)
        self._ordered = ordered
        self._in_flight = in_flight
        self._return_exceptions = return_exceptions
        self._clock = clock
        self._sizing = SourceSize(chunk_size, in_flight)
        rules = Rules(in_order=bool(options.session), gather_seconds=LOOK_SECONDS)
        self._divider: Divider[Item] = Divider(self._sizing, rules, fitting)
        self._drawn = self._handed = 0
        self._under_way: dict[Any, _ChunkSent] = {}
        self._done: dict[int, _Done] = {}
        self._next = 0
        self._caller_seconds = 0.0  # between two chunks, without what was waited for answers: smoothed
        self._last_sent, self._waited = clock(), 0.0

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
            self._divider.stop()
            self._source.close()
            for trip in self._under_way.values():
                self._sender.cancel(trip.sent)
                self._sender.ended(trip.sent)

    def _wait(self) -> bool:
        """Waits until something has changed; False when nothing can come any more."""
        if self._under_way:
            self._collect(LOOK_SECONDS if self._wants_items() else None)
        elif not self._source.is_over and (room := self._room(self._slots())) > 0:
            self._take(self._source.wait(1.0, room))
        else:
            return bool(self._divider.waiting or self._done)
        return True

    def _wants_items(self) -> bool:
        """Whether a slot stands empty because the source has not brought its items."""
        slots = self._slots()
        return self._divider.wants(slots, self._clock()) and self._may_draw(slots)

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

    def _slots(self) -> int:
        """The slots that are worth using. A session's are those of its worker."""
        slots = self._sender.slots_for(self._options)
        if self._options.session:
            return slots
        policy = self._sizing.policy
        drawing = self._source.item_seconds * policy.size  # beside this thread
        return policy.spread(slots, max(self._caller_seconds, drawing))

    def _send_more(self) -> None:
        while self._divider.has_place(slots := self._slots(), now := self._clock()):
            full = self._divider.size(slots)
            if self._divider.waiting < full and (room := self._room(slots)) > 0:
                self._take(self._source.take(min(MOST, room)))
            fills = self._divider.waiting < full and self._may_draw(slots)
            chunk = self._divider.next(slots, now, fills=fills)
            if chunk is None:
                return
            self._send(chunk)

    def _room(self, slots: int) -> int:
        """How many items may be drawn now."""
        undelivered = len(self._under_way) + len(self._done)
        if undelivered >= UNDELIVERED * self._sender.slots_for(self._options):
            return 0
        full = self._divider.size(slots)
        return full if self._in_flight is None else min(full, self._in_flight - (self._drawn - self._handed))

    def _may_draw(self, slots: int) -> bool:
        return not self._source.is_over and self._room(slots) > 0

    def _take(self, items: list[Item]) -> None:
        self._drawn += len(items)
        self._divider.add(items, self._clock())

    def _send(self, chunk: Chunk[Item]) -> None:
        items = chunk.items
        try:
            sent = self._sent(items, chunk.to)
        except PoolClosed:
            raise
        except Exception as error:  # noqa: BLE001 - whatever cannot be sent is the item's failure
            if len(items) > 1:
                self._divider.halved(chunk, self._clock())
                return
            self._divider.ended(chunk, self._clock())
            self._done[chunk.number] = _Done([None], {0: error})
        else:
            self._under_way[sent.ref] = _ChunkSent(chunk, sent)
            self._has_sent()

    def _sent(self, items: Sequence[Any], to: str | None) -> Sent:
        if len(items) > 1:
            return self._sender.some(
                self._command, items, self._options, patient=True, prefer=to, traces=(self._trace,)
            )
        if isinstance(items[0], Failed):
            raise items[0].error
        return self._sender.one(self._command, items[0], self._with_info, patient=True, trace=self._trace)

    def _has_sent(self) -> None:
        """Takes down what this thread has spent since the last chunk: on drawing, sending, decoding, and in
        the consumer's own code.
        """
        now = self._clock()
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
        oldest = self._under_way[refs[0]].sent
        bound = oldest.left if timeout is None else min(timeout, oldest.left)
        began = self._clock()
        ready = answers.wait(refs, min(bound, 1.0))
        self._waited += self._clock() - began
        if not ready and oldest.left <= 0:
            self._sender.cancel(oldest)
            self._failed(self._gone(refs[0]), self._sender.too_late(oldest))
        for ref in ready:
            self._ended(ref, self._gone(ref))

    def _gone(self, ref: Any) -> _ChunkSent:
        trip = self._under_way.pop(ref)
        self._sender.ended(trip.sent)
        return trip

    def _ended(self, ref: Any, trip: _ChunkSent) -> None:
        try:
            answer = answers.get(ref)
        except Exception as error:  # noqa: BLE001 - user code among it: a runtime's process_response
            self._failed(trip, self._sender.our(error, trip.sent))
            return
        (chunk, sent), now = trip, self._clock()
        if not isinstance(answer, BatchOutcome):
            self._divider.ended(chunk, now, seconds=answer.ran_s, by=sent.worker_id)
            self._done[chunk.number] = _Done([answer if self._options.info else answer.value], {})
            return
        count = len(answer.values)
        moved = answer.nbytes + sent.nbytes * count // len(chunk.items)
        left = chunk.items[count:]
        self._divider.ended(chunk, now, left=left, seconds=answer.ran, nbytes=moved, by=sent.worker_id)
        self._done[chunk.number] = _Done(answer.values, dict(answer.failed))

    def _failed(self, trip: _ChunkSent, error: BaseException) -> None:
        chunk, now = trip.chunk, self._clock()
        if is_unbegun(error):
            self._divider.ended(chunk, now, left=chunk.items)
        elif isinstance(error, NotNow) and self._under_way:
            # Where nothing is under way it is others who fill the pool. No budget would end that wait: an
            # item's counts from its sending.
            self._divider.refused(chunk, now)
        else:
            # How long such items take is not known. Taken for long, fewer of them fail together.
            self._divider.ended(chunk, now, seconds=now - chunk.at)
            failed = dict.fromkeys(range(len(chunk.items)), error)
            self._done[chunk.number] = _Done([None] * len(chunk.items), failed)
