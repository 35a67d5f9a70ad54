"""The calls of one interpreter to its host: a task each, with a deadline, a cancellation and credit.

- Each call gets exactly one end: a value, the end of its stream, or a failure.
- Payloads are opaque here. A handler is given bytes and buffers and gives bytes and buffers; who wants JSON
  reads it.
- A call ends when nobody in the interpreter waits for it, when its request is cancelled or out of time, and
  when the interpreter is gone. In each case the handler's task is cancelled.
- Buffers of a call are released when nothing looks at them any more. Buffers of an answer are the
  interpreter's once the answer is handed to the writer; no task is cancelled between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from snakepit_ray.errors import DeadlineExceeded, EncodingError, InvalidArguments, RequestCancelled
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded, nbytes
from snakepit_ray.wire.failures import failure_of
from snakepit_ray.wire.host_call import HostCall, HostHandler

IN_FLIGHT = 256  # bridge/README.md: a bridge holds back the next one
# After the budget of its request, for the interpreter to cancel a call itself. The command then hears that
# its request has ended, and not that a call of it has failed.
SILENT_SECONDS = 0.5
TURN = 64  # values of a stream after which a handler that never awaits lets others have a turn

log = logging.getLogger("snakepit_ray.worker")


class Cargo(Protocol):
    """Where the buffers of payloads are."""

    def views(self, payload: pb.Payload) -> Sequence[Any]:
        """The buffers of a payload that came. Raises EncodingError."""

    async def place(self, text: bytes, buffers: Sequence[Any]) -> pb.Payload:
        """A payload that can be sent. Raises PayloadTooLarge."""

    def released(self, ids: Iterable[str]) -> None:
        """The interpreter has finished with these segments."""


class HostSide(NamedTuple):
    """What an interpreter meets in its host: which worker it is, who answers calls, where buffers are."""

    worker_id: str
    handler: HostHandler
    cargo: Cargo


class _Running:
    """A call that has not ended: its task, and of a stream the credit that is left."""

    __slots__ = ("bytes", "call", "chunks", "more", "stopped", "task", "timer")

    def __init__(self, call: pb.HostCall) -> None:
        self.call = call
        self.task: asyncio.Task[pb.HostReply] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.stopped: pb.Failure | None = None  # why its task was cancelled
        self.chunks: float = call.credit
        self.bytes: float = call.credit_bytes or float("inf")
        self.more = asyncio.Event() if call.stream else None

    async def credit(self) -> None:
        """Waits until a value may be sent."""
        assert self.more is not None
        while self.chunks <= 0 or self.bytes <= 0:
            self.more.clear()
            await self.more.wait()

    def stop(self, kind: pb.Failure.Kind, why: str) -> None:
        """Cancels the handler; the first reason counts."""
        if self.stopped is None and self.task is not None:
            name = DeadlineExceeded.__name__ if kind == pb.Failure.DEADLINE else RequestCancelled.__name__
            self.stopped = pb.Failure(kind=kind, type=name, message=f"{self.call.method}: {why}")
            self.task.cancel()


class HostCalls:
    """Serves the calls of one interpreter; `send` hands a reply to the writer."""

    def __init__(self, host: HostSide, send: Callable[[pb.HostReply], None]) -> None:
        self._host = host
        self._send = send
        self._running: dict[str, _Running] = {}
        self._is_closed = False

    @property
    def in_flight(self) -> int:
        """How many calls have no end yet."""
        return len(self._running)

    def receive(self, frame: pb.FromInterpreter) -> None:
        """What a frame says of calls."""
        for call in frame.host_calls:
            self._begin(call)
        for credit in frame.host_credits:
            self._grant(credit)
        for cancel in frame.host_cancels:
            one = self._running.get(cancel.id)
            if one is not None:
                one.stop(pb.Failure.CANCELLED, "nobody waits for it any more")

    def cancel_request(self, request_id: str) -> None:
        """A request was cancelled: its calls are, too."""
        for one in self._running.values():
            if one.call.request_id == request_id:
                one.stop(pb.Failure.CANCELLED, "its request was cancelled")

    def close(self) -> None:
        """The interpreter is gone: every handler is cancelled, and nothing is sent. Safe to repeat."""
        self._is_closed = True
        for one in self._running.values():
            one.stop(pb.Failure.CANCELLED, "the interpreter is gone")

    def _begin(self, call: pb.HostCall) -> None:
        if self._is_closed:
            return
        try:
            opened = self._opened(call)  # where it goes no further nobody looks at its buffers: they go back
        except EncodingError as error:
            self._fail(call.id, failure_of(error))
            return
        if call.id in self._running:
            log.error("the interpreter sent the call %s of %r twice", call.id, call.method)
        elif len(self._running) >= IN_FLIGHT:
            self._fail(call.id, _too_many())
        else:
            self._start(_Running(call), opened)

    def _start(self, one: _Running, opened: HostCall) -> None:
        loop = asyncio.get_running_loop()
        self._running[one.call.id] = one
        one.task = loop.create_task(self._serve(one, opened))
        one.task.add_done_callback(lambda task: self._over(one, task))
        if one.call.budget_ms:
            why = "the budget of its request has ended"
            seconds = one.call.budget_ms / 1000 + SILENT_SECONDS
            one.timer = loop.call_later(seconds, one.stop, pb.Failure.DEADLINE, why)

    def _fail(self, call_id: str, failure: pb.Failure) -> None:
        self._send(pb.HostReply(id=call_id, failure=failure))

    def _grant(self, credit: pb.Credit) -> None:
        one = self._running.get(credit.id)
        if one is not None and one.more is not None:
            one.chunks += credit.chunks
            one.bytes += credit.bytes
            one.more.set()

    async def _serve(self, one: _Running, opened: HostCall) -> pb.HostReply:
        """The reply that ends a call."""
        try:
            answer = self._host.handler(opened)
            if isinstance(answer, AsyncIterator):
                return await self._stream(one, answer)
            value = await answer
            if not one.call.stream:
                return pb.HostReply(id=one.call.id, value=await self._placed(value))
            await self._put(one, value)
            return _end(one, 1)
        except (SystemExit, KeyboardInterrupt) as error:  # they would end the worker's loop
            raise RuntimeError(f"a handler raised {type(error).__name__}") from error

    def _opened(self, call: pb.HostCall) -> HostCall:
        host = self._host
        return HostCall(
            method=call.method,
            payload=Encoded(call.args.json, list(host.cargo.views(call.args)), []),
            worker_id=host.worker_id,
            request_id=call.request_id,
            session=call.session,
            deadline=time.monotonic() + call.budget_ms / 1000 if call.budget_ms else None,
            traceparent=call.traceparent,
            tracestate=call.tracestate,
            chain=call.chain if call.HasField("chain") else None,
            stream=call.stream,
        )

    async def _stream(self, one: _Running, values: AsyncIterator[Encoded]) -> pb.HostReply:
        sent = 0
        try:
            if not one.call.stream:
                raise InvalidArguments(f"{one.call.method} gives a stream: call it with host_stream")
            async for value in values:
                await self._put(one, value)
                sent += 1
                if not sent % TURN:
                    await asyncio.sleep(0)
        finally:
            close = getattr(values, "aclose", None)
            if close is not None:
                await close()
        return _end(one, sent)

    async def _put(self, one: _Running, value: Encoded) -> None:
        await one.credit()
        one.chunks -= 1
        one.bytes -= len(value.json) + sum(map(nbytes, value.buffers))
        self._send(pb.HostReply(id=one.call.id, value=await self._placed(value)))

    async def _placed(self, value: Encoded) -> pb.Payload:
        if not isinstance(value, Encoded):
            raise TypeError(f"a handler gives Encoded values (encode_value), got {type(value).__name__}")
        return await self._host.cargo.place(value.json, value.buffers)

    def _over(self, one: _Running, task: asyncio.Task[pb.HostReply]) -> None:
        del self._running[one.call.id]
        if one.timer is not None:
            one.timer.cancel()
        reply = _reply(one, task)
        one.task = None  # an error's traceback has `one`, and its task the error
        if not self._is_closed:
            self._send(reply)


def _too_many() -> pb.Failure:
    return pb.Failure(
        kind=pb.Failure.TOO_MANY_CALLS,
        type="TooManyCalls",
        message=f"{IN_FLIGHT} calls of this interpreter are in flight; a bridge holds back the next one",
        details_json=b'{"limit":%d}' % IN_FLIGHT,
    )


def _end(one: _Running, count: int) -> pb.HostReply:
    return pb.HostReply(id=one.call.id, end=pb.StreamEnd(chunks=count))


def _reply(one: _Running, task: asyncio.Task[pb.HostReply]) -> pb.HostReply:
    if task.cancelled():
        return pb.HostReply(id=one.call.id, failure=one.stopped or failure_of(asyncio.CancelledError()))
    error = task.exception()
    if error is None:
        return task.result()
    return pb.HostReply(id=one.call.id, failure=one.stopped or failure_of(error))
