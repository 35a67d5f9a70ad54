"""The calls that commands make to their host: how many are under way, what ends each, who is told.

- Every call ends exactly once for the command: with its answer, with Cancelled when its request is cancelled,
  or with HostError when the host is gone.
- At most IN_FLIGHT are at the host. The others are held back here, in their order, until one of those ends.
- A call that nobody waits for any more is cancelled at the host. It counts until the host has ended it.
- Nothing here blocks the reader or an event loop. A command waits in its own thread, or awaits.
- A segment belongs to the call until the call is sent, then to the host. What an answer brought that nobody
  wants is released.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque

from snakepit_bridge.adapter.context import Cancelled, HostError
from snakepit_bridge.server.host_frames import Call, Dropped
from snakepit_bridge.server.host_waiting import Waiter
from snakepit_bridge.server.payloads import Placed, segment_ids
from snakepit_bridge.values.encoding import encode
from snakepit_bridge.values.failures import PAYLOAD_TOO_LARGE, PayloadTooLarge

IN_FLIGHT = 256


class HostCalls:
    """The calls of one attachment; `send` queues an item for the host, `look(places)` gives the Buffers of an
    answer, and `release(id)` says that a segment of it is not wanted any more.
    """

    def __init__(self, send, arena, look, release, max_message_size: int, copies=None) -> None:
        self.send = send
        self.copies = copies  # of what the host has answered about sessions
        self.look = look
        self._arena = arena
        self._release = release
        self._limit = max_message_size
        self._ids = itertools.count(1)
        self._calls: dict[str, Call] = {}  # that have not ended: at the host, or held back
        self._held: deque[Call] = deque()
        self._in_flight = 0
        self._lost = ""
        # Reentrant: a stream that the garbage collector ends may do so in the midst of any of this.
        self._lock = threading.RLock()

    # ---- what commands do --------------------------------------------------------------------------------

    def call(self, context, method: str, args: dict):
        """The host's answer; blocks this thread, which must not be the event loop's."""
        _refuse_in_event_loop("host", method)
        return self.wait(context, method, args)

    def wait(self, context, method: str, args: dict):
        """The host's answer; blocks this thread, and with it an event loop that runs here. The request's end
        ends the wait.
        """
        done = threading.Event()
        waiter = Waiter(self, done.set)
        call = self._start(self._made(context, method, args), waiter)
        try:
            done.wait()
        except BaseException:  # of a signal handler
            self._leave(call, waiter)
            raise
        return waiter.result()

    async def acall(self, context, method: str, args: dict):
        """The host's answer, awaited."""
        import asyncio

        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        waiter = Waiter(self, lambda: loop.call_soon_threadsafe(done.set))
        call = self._start(self._made(context, method, args), waiter)
        try:
            await done.wait()
        except BaseException:
            self._leave(call, waiter)
            raise
        return waiter.result()

    def tell(self, context, method: str, args: dict) -> None:
        """A call whose answer nobody waits for; a failure is said on stderr. It belongs to no request: what
        ends the command does not take it along.
        """
        waiter = Waiter(self, lambda: waiter.complain(method))
        call = self._made(context, method, args)
        call.belong_to_nobody()
        self._start(call, waiter)

    def stream(self, context, method: str, args: dict):
        """The host's values: a HostStream, which blocks the thread that takes one."""
        from snakepit_bridge.server.host_streams import HostStream, Inflow

        _refuse_in_event_loop("host_stream", method)
        return HostStream(self._begun(Inflow(self, self._made(context, method, args))))

    def astream(self, context, method: str, args: dict):
        """The host's values: an AsyncHostStream."""
        from snakepit_bridge.server.host_streams import AsyncHostStream, Inflow

        return AsyncHostStream(self._begun(Inflow(self, self._made(context, method, args))))

    def abandon(self, call: Call, error: BaseException | None = None) -> None:
        """Nobody waits for this call any more; `error` is what its audience is told, where it has one."""
        with self._lock:
            audience, call.audience = call.audience, None
            if audience is None or self._calls.get(call.id) is not call:
                return
            if call.is_sent:
                self.send(Dropped(call.id))
            else:  # `_send_next` passes over it
                del self._calls[call.id]
                self._free(call)
        if error is not None:
            audience.fail(error)

    # ---- what the attachment does ------------------------------------------------------------------------

    def answer(self, reply) -> None:
        """Takes a HostReply; what nobody waits for any more is released."""
        call = self._calls.get(reply.id)
        if call is None:
            self.forget(reply)
            return
        is_last = not call.stream or reply.WhichOneof("outcome") != "value"
        with self._lock:
            audience = call.audience
            if is_last:
                call.audience = None
                if self._calls.pop(call.id, None) is not None:
                    self._send_next()
        if audience is None:
            self.forget(reply)
        else:
            audience.take(reply)

    def wake(self, request_id: str) -> None:
        """Ends the calls of a request that was cancelled."""
        for call in list(self._calls.values()):
            if call.request_id == request_id:
                self.abandon(call, Cancelled("the request was cancelled while it waited for the host"))

    def lose(self, why: str) -> None:
        """Ends every call, now and later: there is no host."""
        self._lost = why
        with self._lock:
            calls = list(self._calls.values())
            self._calls.clear()
            self._held.clear()
        for call in calls:
            audience, call.audience = call.audience, None
            if not call.is_sent:
                self._free(call)
            if audience is not None:
                audience.fail(HostError(why))

    def forget(self, reply) -> None:
        """Releases the segments of an answer that nobody has looked at."""
        if reply.value.buffers:
            self._arena.forget(segment_ids(reply.value.buffers), self._release)

    def spoiled(self, call: Call, error: BaseException) -> None:
        """A call could not be written into its frame."""
        with self._lock:
            audience, call.audience = call.audience, None
            if self._calls.pop(call.id, None) is not None:
                self._free(call)
                self._send_next()
        if audience is not None:
            audience.fail(HostError(f"{call.method!r:.100} cannot be called: {error}"))

    # ---- inside ------------------------------------------------------------------------------------------

    def _made(self, context, method: str, args: dict) -> Call:
        if not isinstance(method, str):
            raise TypeError(f"the method of a call to the host must be a string, got {method!r:.100}")
        context.raise_if_cancelled()
        return Call(self, str(next(self._ids)), context, method, self._payload(method, args))

    def _start(self, call: Call, audience) -> Call:
        call.audience = audience
        with self._lock:
            self._calls[call.id] = call
            self._held.append(call)
            if self._in_flight < IN_FLIGHT:
                self._in_flight += 1
                self._send_next_held()
        # Looked at after the entry is there: whoever set either either saw the entry or is seen here.
        if self._lost:
            self.lose(self._lost)
        if call.is_unwanted():
            self.wake(call.request_id)
        return call

    def _begun(self, inflow):
        inflow.call.stream = True
        self._start(inflow.call, inflow)
        return inflow

    def _leave(self, call: Call, waiter: Waiter) -> None:
        self.abandon(call)
        waiter.leave()

    def _payload(self, method: str, args: dict) -> tuple:
        try:
            return self._arena.outgoing(f"{method}: the arguments", encode(args, root="args"), self._limit)
        except PayloadTooLarge as error:
            raise HostError(str(error), PAYLOAD_TOO_LARGE, type(error).__name__, error.details) from None

    def _send_next(self) -> None:
        """One at the host has ended: another one goes."""
        if not self._send_next_held():
            self._in_flight -= 1

    def _send_next_held(self) -> bool:
        while self._held:
            call = self._held.popleft()
            if call.audience is not None:
                call.is_sent = True
                self.send(call)
                return True
        return False

    def _free(self, call: Call) -> None:
        """The host has never heard of it: its buffers are ours."""
        self._arena.free([buffer.id for buffer in call.payload[1] if type(buffer) is Placed])


def _refuse_in_event_loop(name: str, method: str) -> None:
    asyncio = sys.modules.get("asyncio.events")
    if asyncio is None or asyncio._get_running_loop() is None:
        return
    instead = f"`await ctx.a{name}(...)`" if name == "host" else f"`async for value in ctx.a{name}(...)`"
    raise RuntimeError(f"ctx.{name}({method!r}) would block the event loop: async commands {instead}")
