"""What goes to the host about its calls: the call, the end of the wish for it, and credit for its values."""

from __future__ import annotations

import time

from snakepit_bridge.server.payloads import fill_payload

CREDIT = 64  # values of a stream that the host may send before it hears of more
CREDIT_BYTES = 16 * 1024 * 1024


class Call:
    """A call to the host. `audience` is told its outcome: None once nobody wants to know. `calls` has them
    all.
    """

    __slots__ = (
        "_calls",
        "_context",
        "audience",
        "chain",
        "deadline",
        "id",
        "is_sent",
        "method",
        "payload",
        "request_id",
        "session",
        "stream",
        "traceparent",
        "tracestate",
    )

    def __init__(self, calls, id: str, context, method: str, payload: tuple) -> None:
        self._calls = calls
        self.id = id
        self._context = context
        self.request_id = context.request_id
        self.session = context.session_id
        self.deadline = context.deadline
        self.traceparent = context.traceparent  # now: the next item of a batch has another one
        self.tracestate = context.tracestate
        self.chain = context._chain
        self.method = method
        self.payload = payload
        self.stream = False  # several values are wanted
        self.audience = None
        self.is_sent = False  # the host has it, or gets it with the next frame

    def belong_to_nobody(self) -> None:
        """What becomes of its request is no matter to this call."""
        self.request_id, self.deadline = "", None

    def is_unwanted(self) -> bool:
        """Whether the request that it belongs to was cancelled."""
        return self.request_id != "" and self._context.cancelled

    def fill(self, frame, epoch) -> int:
        """Adds the call to `frame`; about how many bytes that was."""
        call = frame.host_calls.add(
            id=self.id, request_id=self.request_id, method=self.method, session=self.session
        )
        if self.deadline is not None:
            # Rounded up: the request's own deadline comes first, and the command hears of that.
            call.budget_ms = max(1, int((self.deadline - time.monotonic()) * 1000) + 1)
        if self.traceparent:
            call.traceparent = self.traceparent
            call.tracestate = self.tracestate
        if self.chain is not None:
            call.chain.CopyFrom(self.chain)
        if self.stream:
            call.stream, call.credit, call.credit_bytes = True, CREDIT, CREDIT_BYTES
        return fill_payload(call.args, self.payload)

    def spoil(self, error: BaseException, frame, epoch) -> int:
        """`fill` failed: the command that called is told."""
        self._calls.spoiled(self, error)
        return 0


class Dropped:
    """Nobody waits for a call any more."""

    __slots__ = ("id",)

    def __init__(self, id: str) -> None:
        self.id = id

    def fill(self, frame, epoch) -> int:
        """Adds it to `frame`."""
        frame.host_cancels.add(id=self.id)
        return len(self.id)

    def spoil(self, error: BaseException, frame, epoch) -> int:
        """Raises `error`: nothing in it depends on anybody's values."""
        raise error


class Granted:
    """The host may send so many more values of a stream."""

    __slots__ = ("bytes", "chunks", "id")

    def __init__(self, id: str, chunks: int, bytes: int) -> None:
        self.id = id
        self.chunks = chunks
        self.bytes = bytes

    def fill(self, frame, epoch) -> int:
        """Adds it to `frame`."""
        frame.host_credits.add(id=self.id, chunks=self.chunks, bytes=self.bytes)
        return len(self.id)

    def spoil(self, error: BaseException, frame, epoch) -> int:
        """Raises `error`: nothing in it depends on anybody's values."""
        raise error
