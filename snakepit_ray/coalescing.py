"""Knows how calls that are awaited at the same time go out together.

Rules: the calls of one turn of the event loop to one command with the same options go as one batch to each
slot; a lone call goes as it is; a command known to be slow is not coalesced, and what an interpreter gives
back goes again; each call has its own outcome, and who is cancelled takes nothing from the others."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Mapping
from typing import Any

import ray

from snakepit_ray.actors import ray_port
from snakepit_ray.codec import BatchOutcome
from snakepit_ray.config import CallOptions
from snakepit_ray.core.batch_size import BurstSize
from snakepit_ray.errors import DeadlineExceeded, PoolClosed
from snakepit_ray.sending import Sender

HOLD_SECONDS = 0.05  # that a call waits here for a slot to come near; then it waits at a worker, as any other
MOST_LANES = 256  # commands and options whose pace is remembered


class Coalescer:
    """The awaited calls of one pool handle."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._loops: weakref.WeakKeyDictionary[Any, dict[Any, _Lane]] = weakref.WeakKeyDictionary()

    async def call(self, command: str, args: Mapping[str, Any] | None, options: CallOptions) -> Any:
        """The value. Raises one of our errors. Cancelling it cancels the command, if no other needs it."""
        call = self._lane(command, options).add(dict(args) if type(args) is dict else args)
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

    __slots__ = ("args", "began", "future", "trip")

    def __init__(self, args: Any, future: asyncio.Future[Any]) -> None:
        self.args = args
        self.future = future
        self.began = time.monotonic()
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

    __slots__ = ("calls", "ref", "waiting")

    def __init__(self, calls: list[_Call], ref: Any) -> None:
        self.calls = calls
        self.ref = ref
        self.waiting = len(calls)
        for call in calls:
            call.trip = self

    def left(self) -> None:
        """One of its callers is gone; the last one takes it along."""
        self.waiting -= 1
        if not self.waiting:
            ray.cancel(self.ref)


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

    def add(self, args: Any) -> _Call:
        """A call that goes with those of the same turn of the loop."""
        loop = asyncio.get_running_loop()
        call = _Call(args, loop.create_future())
        self._pending.append(call)
        self._leave_soon(loop)
        return call

    def _leave_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._leaving:
            self._leaving = True
            loop.call_soon(self._leave)

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
            self._send(calls[begin : begin + size])
        if self._pending:
            self._hold = asyncio.get_running_loop().call_later(HOLD_SECONDS, self._leave, False)

    def _send(self, calls: list[_Call]) -> None:
        try:
            options, ref = self._sent(calls)
        except Exception as error:  # noqa: BLE001 - a runtime's hook may raise anything: it is the call's failure
            if len(calls) > 1 and not isinstance(error, PoolClosed):
                half = len(calls) // 2  # one of them cannot be sent, or cannot be sent with others
                self._send(calls[:half])
                self._send(calls[half:])
                return
            for call in calls:
                call.fail(error)
            return
        self._out += 1
        task = asyncio.ensure_future(self._travel(_Trip(calls, ref), options))
        self._trips.add(task)
        task.add_done_callback(self._trips.discard)

    def _sent(self, calls: list[_Call]) -> tuple[CallOptions, Any]:
        options = self._with_info if len(calls) == 1 else self._options
        if options.timeout is not None:  # its whole budget: also what it has waited here, and earlier trips
            left = options.timeout - (time.monotonic() - min(call.began for call in calls))
            if left <= 0:
                raise DeadlineExceeded.after(options.timeout, "waiting", self._command)
            options = options.merge(timeout=left)
        if len(calls) == 1:
            return options, self._sender.one(self._command, calls[0].args, options)
        return options, self._sender.some(
            self._command, [{} if call.args is None else call.args for call in calls], options
        )[0]

    async def _travel(self, trip: _Trip, options: CallOptions) -> None:
        try:
            answer = await trip.ref
        except ray_port.RayError as error:
            for call in trip.calls:
                call.fail(self._sender.our(error, options.timeout))
        except asyncio.CancelledError:  # the loop ends
            ray.cancel(trip.ref)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            for call in trip.calls:
                call.fail(error)
        else:
            self._arrived(trip.calls, answer)
        finally:
            self._out -= 1
            if self._pending:
                self._leave_soon(asyncio.get_running_loop())

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
