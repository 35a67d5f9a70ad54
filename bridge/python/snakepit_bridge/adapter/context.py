"""What a running command may ask about its request and of its host.

- One context per request, bound to the thread or task that runs it.
- A flag, never a signal, tells of a cancellation.
- A call to the host ends when the answer comes, the request is cancelled or the host is gone.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

from snakepit_bridge.adapter.host_errors import HostError
from snakepit_bridge.adapter.older import OlderSpelling
from snakepit_bridge.adapter.state_methods import StateMethods

_current: ContextVar = ContextVar("snakepit_context")


class Cancelled(BaseException):
    """The request was cancelled or its budget ended. No Exception: `except Exception` lets it through."""


class SessionContext(StateMethods, OlderSpelling):
    """One request as its command sees it: the parameter named `ctx`, or `snakepit_bridge.current()`. What it
    offers of the variables of its session is in StateMethods.
    """

    __slots__ = (
        "_cancelled",
        "_chain",
        "_event",
        "_link",
        "_outlet",
        "_started",
        "_variables",
        "attempt",
        "command",
        "deadline",
        "request_id",
        "session_id",
        "traceparent",
        "tracestate",
        "worker_id",
    )

    def __init__(
        self,
        session_id: str = "",
        request_id: str = "",
        command: str = "",
        *,
        attempt: int = 1,
        traceparent: str = "",
        tracestate: str = "",
        worker_id: str = "",
        deadline: float | None = None,
        link=None,
        chain=None,
    ) -> None:
        self.session_id = session_id
        self.request_id = request_id
        self.command = command
        self.attempt = attempt
        self.traceparent = traceparent  # W3C trace context of the caller, "" for none; in a batch the item's
        self.tracestate = tracestate
        self.worker_id = worker_id
        self.deadline = deadline
        self._link = link
        self._chain = chain  # of the request, for its calls to the host
        self._cancelled = False
        self._event = None
        self._outlet = None  # of a stream
        self._started = 0  # time.perf_counter_ns() when its command began
        self._variables = None  # made when they are first asked for

    @property
    def cancelled(self) -> bool:
        """Whether the caller has gone, the budget has ended or the interpreter is stopping."""
        return self._cancelled

    def raise_if_cancelled(self) -> None:
        """Raises Cancelled once the request is cancelled."""
        if self._cancelled:
            raise Cancelled(f"{self.command or 'the request'} was cancelled")

    def wait(self, seconds: float | None = None) -> bool:
        """Sleeps for `seconds` (None: for ever) or until the request is cancelled; whether it is."""
        if self._event is None:
            from threading import Event

            self._event = Event()
        # The event is there before the flag is read, and cancel() sets the flag before it looks for the
        # event.
        return self._cancelled or self._event.wait(seconds)

    def remaining(self) -> float | None:
        """Seconds left of the budget, 0.0 when it has ended; None without one."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - time.monotonic())

    def host(self, method: str, **args):
        """Asks the host and waits for its answer. Raises HostError, Cancelled. In async commands use `await
        ctx.ahost(...)`.
        """
        return self._linked().call(self, method, args)

    async def ahost(self, method: str, **args):
        """`host` for async commands."""
        return await self._linked().acall(self, method, args)

    def host_stream(self, method: str, **args):
        """Asks the host for a stream: an iterator of its values, each of which is waited for. Closing or
        dropping it cancels the stream. Raises HostError, Cancelled. In async commands use `async for value in
        ctx.ahost_stream(...)`.
        """
        return self._linked().stream(self, method, args)

    def ahost_stream(self, method: str, **args):
        """`host_stream` for async commands: an asynchronous iterator."""
        return self._linked().astream(self, method, args)

    def emit(self, event: str, measurements: dict | None = None, metadata: dict | None = None) -> None:
        """Sends a telemetry event to the host; does not wait for it."""
        args = {"event": event, "measurements": measurements or {}, "metadata": metadata or {}}
        self._linked().tell(self, "telemetry.emit", args)

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tells the consumer of a stream how far the command is; outside of a stream it does nothing. Never
        waits: of several reports that a slow consumer has no room for it gets the newest.
        """
        if self._outlet is not None:
            from snakepit_bridge.values.tags import Progress

            self._outlet.progress(Progress(done, total, message))

    def _cancel(self) -> None:
        self._cancelled = True
        if self._outlet is not None:
            self._outlet.stop()
        if self._event is not None:
            self._event.set()
        if self._link is not None:
            self._link.wake(self.request_id)

    def _linked(self):
        if self._link is None:
            raise HostError("this context belongs to no running request: there is no host to ask")
        return self._link

    def __repr__(self) -> str:
        state = "cancelled" if self._cancelled else "running"
        names = f"session={self.session_id!r} request={self.request_id!r}"
        return f"<SessionContext {self.command!r} {names} {state}>"


def current() -> SessionContext:
    """The context of the command that runs here. Raises LookupError outside of one (a thread that a command
    started has none).
    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError("no command runs in this thread or task: current() works inside commands") from None


def bind(context: SessionContext) -> None:
    """Makes `context` what `current()` gives in this thread or task."""
    _current.set(context)
