"""Calls that are awaited at the same time go out together.

- The calls of one turn of the event loop to one command with the same options go as one batch to each slot. A
  lone call goes as it is.
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
from collections.abc import Mapping
from typing import Any

from snakepit_ray.client.sender import Sender, Sent, awaited, is_unbegun, may_block
from snakepit_ray.config import CallOptions
from snakepit_ray.core.work.batch_size import BurstSize
from snakepit_ray.errors import DeadlineExceeded, PoolClosed
from snakepit_ray.port import ray_port
from snakepit_ray.telemetry.trace_context import current
from snakepit_ray.wire.codec import BatchOutcome
from snakepit_ray.wire.requests import Drawn, drawn_refs

HOLD_SECONDS = 0.05  # that a call waits here for a slot to come near; then it waits at a worker, as any other
MOST_LANES = 256  # commands and options whose pace is remembered


class Coalescer:
    """The awaited calls of one pool handle."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
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
        key = command, options
        lane = lanes.get(key)
        if lane is None:
            while len(lanes) >= MOST_LANES:
                del lanes[next(iter(lanes))]
            lane = lanes[key] = _Lane(self._sender, command, options)
        return lane


class _Call:
    """One awaited call."""

    __slots__ = ("began", "drawn", "future", "trace", "trip")

    def __init__(self, drawn: Drawn, future: asyncio.Future[Any]) -> None:
        self.drawn = drawn
        self.future = future
        self.began = time.monotonic()
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

    __slots__ = ("_sender", "calls", "sent", "waiting")

    def __init__(self, calls: list[_Call], sent: Sent, sender: Sender) -> None:
        self.calls = calls
        self.sent = sent
        self.waiting = len(calls)
        self._sender = sender
        for call in calls:
            call.trip = self

    def left(self) -> None:
        """One of its callers is gone; the last one takes it along."""
        self.waiting -= 1
        if not self.waiting:
            self._sender.cancel(self.sent)


class _Lane:
    """The calls of one command with the same options on one event loop."""

    def __init__(self, sender: Sender, command: str, options: CallOptions) -> None:
        self._sender = sender
        self._command = command
        self._options = options
        self._with_info = options.merge(info=True)
        self._size = BurstSize()
        self._pending: list[_Call] = []
        self._leaving = False  # a flush is scheduled
        self._hold: asyncio.TimerHandle | None = None
        self._out = 0
        self._trips: set[asyncio.Task[None]] = set()

    def add(self, drawn: Drawn) -> _Call:
        """A call that goes with those of the same turn of the loop."""
        loop = asyncio.get_running_loop()
        call = _Call(drawn, loop.create_future())
        self._pending.append(call)
        self._leave_soon(loop)
        return call

    def _leave_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._leaving:
            self._leaving = True
            loop.call_soon(self._leave, context=contextvars.Context())

    def _leave(self, patient: bool = True) -> None:
        """Sends what has gathered. While what is under way fills the slots it would only wait there: it
        gathers more company here, for a moment."""
        self._leaving = False
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
        calls = [call for call in self._pending if not call.future.done()]
        slots = self._sender.slots_for(self._options)
        places = self._sender.at_once(self._options, 2) - self._out if patient else len(calls)
        size = self._size.size(len(calls), max(1, min(slots, places)))
        sent = max(0, places) * size
        self._pending = calls[sent:]
        for begin in range(0, min(sent, len(calls)), size):
            self._send_apart(calls[begin : begin + size])
        if self._pending:
            loop = asyncio.get_running_loop()
            self._hold = loop.call_later(HOLD_SECONDS, self._leave, False, context=contextvars.Context())

    def _send_apart(self, calls: list[_Call]) -> None:
        """Calls with refs go alone: Ray resolves the refs of one call."""
        alone = [call for call in calls if drawn_refs(call.drawn)]
        together = [call for call in calls if not drawn_refs(call.drawn)] if alone else calls
        for call in alone:
            self._send([call])
        if together:
            self._send(together)

    def _send(self, calls: list[_Call]) -> None:
        try:
            sent = self._sent(calls)
        except Exception as error:  # noqa: BLE001 - whatever cannot be sent is the call's failure
            if len(calls) > 1 and not isinstance(error, PoolClosed):
                half = len(calls) // 2  # one of them cannot be sent, or cannot be sent with others
                self._send(calls[:half])
                self._send(calls[half:])
                return
            for call in calls:
                call.fail(error)
            return
        self._out += 1
        task = asyncio.ensure_future(self._travel(_Trip(calls, sent, self._sender)))
        self._trips.add(task)
        task.add_done_callback(self._trips.discard)

    def _sent(self, calls: list[_Call]) -> Sent:
        self._sender.check_open()
        options = self._with_info if len(calls) == 1 else self._options
        if options.timeout is not None:  # its whole budget: also what it has waited here, and earlier trips
            left = options.timeout - (time.monotonic() - min(call.began for call in calls))
            if left <= 0:
                raise DeadlineExceeded.after(options.timeout, "waiting", self._command)
            options = options.merge(timeout=left)
        if len(calls) == 1:
            return self._sender.one(self._command, calls[0].drawn, options, trace=calls[0].trace)
        traces = [call.trace for call in calls]
        return self._sender.some(self._command, [call.drawn for call in calls], options, traces=traces)

    async def _travel(self, trip: _Trip) -> None:
        sent = trip.sent
        answer = asyncio.ensure_future(awaited(sent.ref))
        loop = asyncio.get_running_loop()
        ticket = self._sender.arm(sent, lambda is_over: _tell(loop, self._gave_up, trip, answer, is_over))
        try:
            value = await answer
        except ray_port.RayError as error:
            blocks = may_block(error)
            ours = (
                await asyncio.to_thread(self._sender.our, error, sent)
                if blocks
                else self._sender.our(error, sent)
            )
            if is_unbegun(ours):
                self._pending[:0] = [call for call in trip.calls if not call.future.done()]
            else:
                self._failed(trip, ours)
        except asyncio.CancelledError:  # it has expired, or the loop ends
            self._sender.cancel(sent)
            if not all(call.future.done() for call in trip.calls):
                raise
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._failed(trip, error)
        else:
            self._arrived(trip.calls, value)
        finally:
            ticket.disarm()
            self._sender.ended(sent)
            self._out -= 1
            if self._pending:
                self._leave_soon(loop)

    def _gave_up(self, trip: _Trip, answer: asyncio.Future[Any], is_over: bool) -> None:
        self._failed(trip, self._sender.gave_up(trip.sent, is_over))
        answer.cancel()

    def _failed(self, trip: _Trip, error: BaseException) -> None:
        for call in trip.calls:
            call.fail(error)

    def _arrived(self, calls: list[_Call], answer: Any) -> None:
        if not isinstance(answer, BatchOutcome):
            self._size.observe(1, answer.ran_s)
            values = [answer if self._options.info else answer.value]
        else:
            values = answer.values
            self._size.observe(len(values), answer.ran)
            for index, error in answer.failed:
                calls[index].fail(error)
        for call, value in zip(calls, values, strict=False):
            if not call.future.done():
                call.future.set_result(value)
        self._pending[:0] = calls[len(values) :]  # given back: they have waited longest


def _tell(loop: asyncio.AbstractEventLoop, call: Any, *args: Any) -> None:
    """From another thread; nobody waits in a loop that is closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)
