"""The calls that commands make to their host: which wait for an answer, and what ends the waiting.

- Every call ends exactly once: with its answer, with Cancelled when its request is cancelled, or with
  HostError when the host is gone.
- A waiting thread never blocks the reader or the event loop.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from functools import partial

from snakepit_bridge.adapter.context import Cancelled, HostError
from snakepit_bridge.server.payloads import Buffers, fill_payload
from snakepit_bridge.values.decoding import decode
from snakepit_bridge.values.encoding import encode


class HostCalls:
    """The calls of one attachment; `send` queues an item for the host."""

    def __init__(self, send, max_message_size: int) -> None:
        self._send = send
        self._limit = max_message_size
        self._ids = itertools.count(1)
        self._waiting: dict[str, _Waiter] = {}
        self._lost = ""

    def call(self, context, method: str, args: dict):
        """The host's answer; blocks this thread, which must not be the event loop's."""
        if _in_event_loop():
            raise RuntimeError(
                f"ctx.host({method!r}) would block the event loop: async commands `await ctx.ahost(...)`"
            )
        waiter = _Waiter(context.request_id)
        done = threading.Event()
        waiter.notify = done.set
        self._start(waiter, context, method, args)
        done.wait()
        return waiter.result()

    async def acall(self, context, method: str, args: dict):
        """The host's answer, awaited."""
        import asyncio

        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        waiter = _Waiter(context.request_id)
        waiter.notify = lambda: loop.call_soon_threadsafe(done.set)
        self._start(waiter, context, method, args)
        try:
            await done.wait()
        finally:
            self._waiting.pop(waiter.id, None)
        return waiter.result()

    def tell(self, context, method: str, args: dict) -> None:
        """A call whose answer nobody waits for; a failure is said on stderr."""
        waiter = _Waiter(context.request_id)
        waiter.notify = lambda: waiter.complain(method)
        self._start(waiter, context, method, args)

    def answer(self, reply) -> None:
        """Takes a HostReply; one that nobody waits for any more is dropped."""
        waiter = self._waiting.pop(reply.id, None)
        if waiter is not None:
            waiter.end(reply)

    def wake(self, request_id: str) -> None:
        """Ends the calls of a request that was cancelled."""
        for waiter in list(self._waiting.values()):
            if waiter.request_id == request_id and self._waiting.pop(waiter.id, None) is not None:
                waiter.end(Cancelled("the request was cancelled while it waited for the host"))

    def lose(self, why: str) -> None:
        """Ends every call, now and later: there is no host."""
        self._lost = why
        for waiter in list(self._waiting.values()):
            if self._waiting.pop(waiter.id, None) is not None:
                waiter.end(HostError(why))

    def _start(self, waiter: _Waiter, context, method: str, args: dict) -> None:
        if not isinstance(method, str):
            raise TypeError(f"the method of a call to the host must be a string, got {method!r:.100}")
        payload = encode(args, root="args")
        size = len(payload[0]) + sum(map(len, payload[1]))
        if size > self._limit:
            raise HostError(
                f"{method}: {size:,} bytes of arguments, the limit is {self._limit:,} (max_message_size)"
            )
        context.raise_if_cancelled()
        waiter.id = str(next(self._ids))
        self._waiting[waiter.id] = waiter
        self._send(Call(waiter.id, context, method, payload, partial(self._fail, waiter)))
        # Looked at after the entry is there: whoever set either either saw the entry or is seen here.
        if self._lost:
            self.lose(self._lost)
        if context.cancelled:
            self.wake(context.request_id)

    def _fail(self, waiter: _Waiter, error: BaseException) -> None:
        if self._waiting.pop(waiter.id, None) is not None:
            waiter.end(error)


class _Waiter:
    """Someone who waits for one answer; `notify` is called once it is there."""

    __slots__ = ("id", "notify", "outcome", "request_id")

    def __init__(self, request_id: str) -> None:
        self.id = ""
        self.request_id = request_id
        self.notify = None
        self.outcome = None

    def end(self, outcome) -> None:
        self.outcome = outcome
        self.notify()

    def result(self):
        """The value that came, or raises what came instead."""
        reply = self.outcome
        if isinstance(reply, BaseException):
            raise reply
        if reply.WhichOneof("outcome") == "failure":
            failure = reply.failure
            details = json.loads(failure.details_json) if failure.details_json else {}
            raise HostError(failure.message, failure.kind, failure.type, details)
        return decode(reply.value.json, Buffers(reply.value.buffers), root="reply")

    def complain(self, method: str) -> None:
        """Says on stderr that a call without an audience failed; a host that has gone needs no words."""
        reply = self.outcome
        if not isinstance(reply, BaseException) and reply.WhichOneof("outcome") == "failure":
            print(f"snakepit_bridge: {method} failed at the host: {reply.failure.message}", file=sys.stderr)


class Call:
    """A HostCall on its way out."""

    __slots__ = ("fail", "id", "method", "payload", "request_id", "session")

    def __init__(self, id: str, context, method: str, payload, fail) -> None:
        self.id = id
        self.request_id = context.request_id
        self.session = context.session_id
        self.method = method
        self.payload = payload
        self.fail = fail  # fail(error) ends the waiting

    def fill(self, frame, epoch) -> int:
        """Adds the call to `frame`; about how many bytes that was."""
        call = frame.host_calls.add(
            id=self.id, request_id=self.request_id, method=self.method, session=self.session
        )
        return fill_payload(call.args, self.payload)

    def spoil(self, error: BaseException, frame, epoch) -> int:
        """`fill` failed: the command that called is told."""
        self.fail(HostError(f"{self.method!r:.100} cannot be called: {error}"))
        return 0


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio.events")
    return asyncio is not None and asyncio._get_running_loop() is not None
