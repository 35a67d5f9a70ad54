"""Calls that are awaited at the same time go out together.

- The calls of one turn of the event loop to one command with the same options go as one batch to each slot. A
  lone call goes as it is. core/work/divider.py says how they are divided.
- A call's arguments are encoded when the call is made. What an interpreter gives back goes again in that
  form.
- Each call has its own outcome. A call that is cancelled takes nothing from the others: what they share is
  sent in nobody's context, so that Ray takes it for the child of no task of the user's.
- A call ends when its deadline passes, or when the Ray session is over, whatever becomes of its worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from snakepit_ray.client.drawing import fitting
from snakepit_ray.client.lanes import Waits
from snakepit_ray.client.sender import Sender, Sent, awaited, is_unbegun, may_block
from snakepit_ray.config import CallOptions
from snakepit_ray.core.work.batch_size import BurstSize
from snakepit_ray.core.work.divider import Chunk, Divider, Rules
from snakepit_ray.errors import DeadlineExceeded, PoolClosed, SnakepitError
from snakepit_ray.port import ray_port
from snakepit_ray.telemetry.trace_context import current
from snakepit_ray.wire import chains
from snakepit_ray.wire.codec import BatchOutcome
from snakepit_ray.wire.requests import Drawn

HOLD_SECONDS = 0.05  # that a call waits here for a slot to come near; then it waits at a worker, as any other
MOST_LANES = 256  # commands and options whose pace is remembered


class Coalescer:
    """The awaited calls of one pool handle. `clock` is time.monotonic, as that of the event loop."""

    def __init__(self, sender: Sender, clock: Callable[[], float] = time.monotonic) -> None:
        self._sender = sender
        self._clock = clock
        self._loops: weakref.WeakKeyDictionary[Any, dict[Any, _Lane]] = weakref.WeakKeyDictionary()

    async def call(self, command: str, args: Mapping[str, Any] | None, options: CallOptions) -> Any:
        """The value. Raises one of our errors. Cancelling it cancels the command, if no other needs it. That
        the pool is open is looked at once for all calls that go together."""
        drawn = self._sender.draw(command, {} if args is None else args)
        call = self._lane(command, options).add(drawn)
        try:
            return await call.future
        except asyncio.CancelledError:
            call.cancelled()
            raise

    def _lane(self, command: str, options: CallOptions) -> _Lane:
        loop = asyncio.get_running_loop()
        lanes = self._loops.get(loop)
        if lanes is None:
            lanes = self._loops[loop] = {}
        inside = chains.inside()  # code of a tool: its calls carry its chain, and go with no others
        key = command, options, inside
        lane = lanes.get(key)
        if lane is None:
            while len(lanes) >= MOST_LANES:
                del lanes[next(iter(lanes))]
            lane = lanes[key] = _Lane(self._sender, command, options, self._clock, inside)
        return lane


class _Call:
    """One awaited call."""

    __slots__ = ("began", "drawn", "future", "trace", "trip")

    def __init__(self, drawn: Drawn, future: asyncio.Future[Any], began: float) -> None:
        self.drawn = drawn
        self.future = future
        self.began = began
        self.trace = current()  # of its caller: what is sent is in nobody's context
        self.trip: _Trip | None = None

    def cancelled(self) -> None:
        """Nobody waits for it any more."""
        if self.trip is not None:
            self.trip.left()

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Trip:
    """Calls that are under way together."""

    __slots__ = ("_sender", "chunk", "sent", "waiting")

    def __init__(self, chunk: Chunk[_Call], sent: Sent, sender: Sender) -> None:
        self.chunk = chunk
        self.sent = sent
        self.waiting = len(chunk.items)
        self._sender = sender
        for call in chunk.items:
            call.trip = self

    def left(self) -> None:
        """One of its callers is gone; the last one takes it along."""
        self.waiting -= 1
        if not self.waiting:
            self._sender.cancel(self.sent)


class _Lane:
    """The calls of one command with the same options on one event loop, and of a tool those that it makes."""

    def __init__(
        self,
        sender: Sender,
        command: str,
        options: CallOptions,
        clock: Callable[[], float],
        inside: chains.Inside | None,
    ) -> None:
        self._inside = inside
        self._sender = sender
        self._command = command
        self._options = options
        self._clock = clock
        self._with_info = options.merge(info=True)
        fails_fast = sender.fails_fast(options)  # each call asks for a slot itself, and at once
        rules = Rules(in_order=bool(options.session), hold_seconds=0.0 if fails_fast else HOLD_SECONDS)
        self._sizing = BurstSize()
        self._divider: Divider[_Call] = Divider(self._sizing, rules, _one if fails_fast else _fitting)
        self._gathered: list[_Call] = []  # in this turn of the loop
        self._leaving = False  # a flush is scheduled
        self._hold: asyncio.TimerHandle | None = None
        self._trips: set[asyncio.Task[None]] = set()

    def add(self, drawn: Drawn) -> _Call:
        """A call that goes with those of the same turn of the loop."""
        loop = asyncio.get_running_loop()
        call = _Call(drawn, loop.create_future(), self._clock())
        self._gathered.append(call)
        self._leave_soon(loop)
        return call

    def _leave_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._leaving:
            self._leaving = True
            loop.call_soon(self._leave, context=contextvars.Context())

    def _leave(self) -> None:
        """Sends what has gathered. While what is under way fills the slots it would only wait there: it
        gathers more company here, for a moment."""
        self._leaving = False
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
        gathered, self._gathered = self._gathered, []
        self._divider.add(gathered, self._clock())
        slots = self._slots()
        while (chunk := self._divider.next(slots, self._clock())) is not None:
            self._send(chunk)
        if self._divider.waiting:
            loop, left = asyncio.get_running_loop(), self._divider.wakes_at(slots) - self._clock()
            self._hold = loop.call_later(max(0.0, left), self._leave, context=contextvars.Context())

    def _slots(self) -> int:
        """The slots that are worth using. A session's are those of its worker."""
        slots = self._sender.slots_for(self._options)
        return slots if self._options.session else self._sizing.spread(slots)

    def _send(self, chunk: Chunk[_Call]) -> None:
        calls = [call for call in chunk.items if not call.future.done()]
        if not calls:
            self._divider.ended(chunk, self._clock())
            return
        if len(calls) < len(chunk.items):  # the others were cancelled
            chunk = chunk.having(calls)
        try:
            with chains.entered(self._inside):
                sent = self._sent(calls, chunk.to)
        except Exception as error:  # noqa: BLE001 - whatever cannot be sent is the call's failure
            if len(calls) > 1 and not isinstance(error, PoolClosed):
                self._divider.halved(chunk, self._clock())
                return
            for call in calls:
                call.fail(error)
            self._divider.ended(chunk, self._clock())
            return
        task = asyncio.ensure_future(self._travel(_Trip(chunk, sent, self._sender)))
        self._trips.add(task)
        task.add_done_callback(self._trips.discard)

    def _sent(self, calls: list[_Call], to: str | None) -> Sent:
        self._sender.check_open()
        options = self._with_info if len(calls) == 1 else self._options
        if options.timeout is not None:  # its whole budget: also what it has waited here, and earlier trips
            left = options.timeout - (self._clock() - min(call.began for call in calls))
            if left <= 0:
                raise DeadlineExceeded.after(options.timeout, "waiting", self._command)
            options = options.merge(timeout=left)
        if len(calls) == 1:
            return self._sender.one(
                self._command, calls[0].drawn, options, trace=calls[0].trace, waits=Waits.LOOP
            )
        traces = [call.trace for call in calls]
        drawn = [call.drawn for call in calls]
        return self._sender.some(self._command, drawn, options, prefer=to, traces=traces, waits=Waits.LOOP)

    async def _travel(self, trip: _Trip) -> None:
        sent = trip.sent
        answer = asyncio.ensure_future(awaited(sent.ref))
        loop = asyncio.get_running_loop()
        ticket = self._sender.arm(sent, lambda is_over: _tell(loop, self._gave_up, trip, answer, is_over))
        left: Sequence[_Call] = ()
        seconds: float | None = None  # of a trip that failed: a lone call's failure says nothing of its time
        try:
            value = await answer
            left, seconds = self._arrived(trip.chunk.items, value)
        except (ray_port.RayError, SnakepitError) as error:
            left = await self._lost(trip, error)
        except asyncio.CancelledError:  # it has expired, or the loop ends
            self._sender.cancel(sent)
            if not all(call.future.done() for call in trip.chunk.items):
                raise
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._failed(trip, error)
        finally:
            ticket.disarm()
            self._sender.ended(sent)
            by = None if seconds is None else sent.worker_id
            self._divider.ended(trip.chunk, self._clock(), left=left, seconds=seconds, by=by)
            if self._divider.waiting:
                self._leave_soon(loop)

    async def _lost(self, trip: _Trip, error: Exception) -> Sequence[_Call]:
        """What is to go again of a trip that has no answer."""
        blocks = may_block(error)
        ours = (
            await asyncio.to_thread(self._sender.our, error, trip.sent)
            if blocks
            else self._sender.our(error, trip.sent)
        )
        if is_unbegun(ours):
            return trip.chunk.items
        self._failed(trip, ours)
        return ()

    def _gave_up(self, trip: _Trip, answer: asyncio.Future[Any], is_over: bool) -> None:
        self._failed(trip, self._sender.gave_up(trip.sent, is_over))
        answer.cancel()

    def _failed(self, trip: _Trip, error: BaseException) -> None:
        for call in trip.chunk.items:
            call.fail(error)

    def _arrived(self, calls: Sequence[_Call], answer: Any) -> tuple[Sequence[_Call], float]:
        """Each call has its outcome, but for those that were given back: these, and what the others took."""
        if isinstance(answer, BatchOutcome):
            values, seconds = answer.values, answer.ran
            for index, error in answer.failed:
                calls[index].fail(error)
        else:
            values, seconds = [answer if self._options.info else answer.value], answer.ran_s
        for call, value in zip(calls, values, strict=False):
            if not call.future.done():
                call.future.set_result(value)
        return calls[len(values) :], seconds


def _one(calls: Sequence[_Call]) -> int:
    return 1


def _fitting(calls: Sequence[_Call]) -> int:
    return fitting([call.drawn for call in calls])


def _tell(loop: asyncio.AbstractEventLoop, call: Any, *args: Any) -> None:
    """From another thread; nobody waits in a loop that is closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)
