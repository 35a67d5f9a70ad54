"""Streams of values from the host: what has come and is not taken yet, and the credit for more.

- The host may send a window of values. Half a window that was taken is granted again.
- A consumer that leaves before the end, in whatever way, cancels the stream at the host.
- What has come and is never taken is released.
"""

from __future__ import annotations

import threading
from collections import deque

from snakepit_bridge.server.host_frames import CREDIT, CREDIT_BYTES, Granted
from snakepit_bridge.server.host_waiting import value_of


class Inflow:
    """What has come of one stream. `changed()` is called in the reader's thread when something has."""

    def __init__(self, calls, call) -> None:
        self.call = call
        self.changed = _nobody
        self._calls = calls
        self._come: deque = deque()  # of HostReply, at the end the error that ended it
        self._is_over = False
        self._taken = self._taken_bytes = 0  # since the last grant

    def take(self, reply) -> None:
        """A value, the end, or a failure."""
        self._come.append(reply)
        if self._is_over:  # the consumer left before this was there to be released
            self._release_all()
        self.changed()

    fail = take

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._come

    def next(self, stop: type):
        """The next value of those that have come. Raises `stop` at the end, and what ended the stream."""
        if self._is_over:
            raise stop
        reply = self._come.popleft()
        if isinstance(reply, BaseException):
            self._is_over = True
            raise reply
        outcome = reply.WhichOneof("outcome")
        self._is_over = outcome != "value"
        if outcome == "end":
            raise stop
        if outcome == "value":
            self._grant(reply.value)
        return value_of(reply, self._calls)

    def close(self) -> None:
        """Nobody takes any more."""
        if self._is_over:
            return
        self._is_over = True
        self._calls.abandon(self.call)
        self._release_all()

    def _release_all(self) -> None:
        while True:
            try:
                reply = self._come.popleft()
            except IndexError:
                return
            if not isinstance(reply, BaseException):
                self._calls.forget(reply)

    @property
    def is_over(self) -> bool:
        """Whether its end was taken."""
        return self._is_over

    def _grant(self, payload) -> None:
        self._taken += 1
        self._taken_bytes += len(payload.json) + sum(map(_size, payload.buffers))
        if self._taken >= CREDIT // 2 or self._taken_bytes >= CREDIT_BYTES // 2:
            self._calls.send(Granted(self.call.id, self._taken, self._taken_bytes))
            self._taken = self._taken_bytes = 0


class HostStream:
    """The host's values, one after the other; taking one blocks until it is there. Closing it, or dropping
    it, cancels the stream. Raises HostError where the host fails, Cancelled when the request is cancelled.
    """

    def __init__(self, inflow: Inflow) -> None:
        self._inflow = inflow
        self._come = threading.Event()
        inflow.changed = self._come.set

    def __iter__(self):
        return self

    def __next__(self):
        inflow = self._inflow
        while inflow.is_empty and not inflow.is_over:
            self._come.clear()
            if inflow.is_empty:  # else it came between the look and the clear
                self._come.wait()
        return inflow.next(StopIteration)

    def close(self) -> None:
        """Cancels the stream, if it has not ended. Safe to repeat."""
        self._inflow.close()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()

    __del__ = close


class AsyncHostStream:
    """HostStream for async commands: `async for value in ctx.ahost_stream(...)`."""

    def __init__(self, inflow: Inflow) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        come = asyncio.Event()
        self._inflow = inflow
        self._come = come
        inflow.changed = lambda: loop.call_soon_threadsafe(come.set)

    def __aiter__(self):
        return self

    async def __anext__(self):
        inflow = self._inflow
        while inflow.is_empty and not inflow.is_over:
            self._come.clear()
            if inflow.is_empty:
                await self._come.wait()
        return inflow.next(StopAsyncIteration)

    async def aclose(self) -> None:
        """Cancels the stream, if it has not ended. Safe to repeat."""
        self._inflow.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_) -> None:
        self._inflow.close()

    def __del__(self) -> None:
        self._inflow.close()


def _size(buffer) -> int:
    return buffer.segment.size if buffer.WhichOneof("place") == "segment" else len(buffer.inline)


def _nobody() -> None:
    """Nobody waits yet."""
