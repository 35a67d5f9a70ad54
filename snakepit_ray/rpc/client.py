"""What a worker asks of one interpreter, whatever carries it: requests and their answers, calls both ways,
health and the end.

- Every request gets exactly one answer: a Reply, or None when the connection ended. Calls of the interpreter
  to its host are served by host_calls.py.
- A wire carries messages: grpc_wire.py over an `Attach` stream, frames_wire.py over a socket of its own.
- Services are health and shutdown. They may travel beside the messages, over another connection.
- A callback that raises ends nothing but its own request.

A client belongs to one event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from snakepit_ray.rpc.host_calls import HostCalls, HostSide
from snakepit_ray.wire._pb import interpreter_pb2 as pb

Answer = Callable[[pb.Reply | None], None]
TakeChunk = Callable[[pb.Chunk], None]

log = logging.getLogger("snakepit_ray.worker")


class InterpreterLost(Exception):
    """The interpreter cannot be reached: what was running has no answer. The text says what the connection
    said."""


class Wire(Protocol):
    """Carries messages to an interpreter and back."""

    outgoing: pb.ToInterpreter  # what the next message will hold

    def flush(self) -> None:
        """Sends `outgoing`, now or as soon as the connection takes more."""

    @property
    def is_writing(self) -> bool:
        """Whether something of what was given is not with the operating system yet."""

    async def open(
        self,
        hello: pb.Hello,
        timeout: float,
        receive: Callable[[pb.FromInterpreter], None],
        ended: Callable[[str], None],
    ) -> pb.Welcome:
        """Connects and waits for the Welcome, at most `timeout` seconds. From then on `receive` gets every
        message, and `ended` the reason once nothing comes any more. Raises InterpreterLost."""

    async def close(self) -> None:
        """Ends the connection; what had arrived is received first. Safe to repeat."""


class Services(Protocol):
    """Asks an interpreter for what is no request."""

    async def healthy(self, timeout: float) -> bool:
        """Whether it says within `timeout` seconds that it serves."""

    async def shutdown(self, grace: float, timeout: float) -> bool:
        """Asks it to end; whether it agreed within `timeout` seconds. False after `close`, too."""

    async def close(self) -> None:
        """Ends the connection. Safe to repeat."""


class InterpreterClient:
    """Calls to one interpreter. `connect` first. `lost` is done when the connection has ended, `leaving` when
    the interpreter has said that it begins nothing any more."""

    def __init__(self, wire: Wire, services: Services, host: HostSide) -> None:
        """`services` may be the `wire` itself."""
        self._wire = wire
        self._services = services
        self._released = host.cargo.released
        self.host_calls = HostCalls(host, self._reply)
        self._answers: dict[str, Answer] = {}
        self._streams: dict[str, TakeChunk] = {}
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self.leaving: asyncio.Future[None] = loop.create_future()

    async def connect(self, hello: pb.Hello, timeout: float) -> pb.Welcome:
        """Opens the connection and waits for the Welcome, at most `timeout` seconds. Raises
        InterpreterLost."""
        return await self._wire.open(hello, timeout, self._receive, self._end)

    @property
    def is_writing(self) -> bool:
        """Whether something that was sent has not left yet."""
        return self._wire.is_writing

    def request(self, request: pb.Request, answer: Answer, on_chunk: TakeChunk | None = None) -> None:
        """Sends `request`; `answer` is called once, with its Reply, or with None when the connection ended
        first. Of a stream, `on_chunk` is called with each Chunk before that.

        A callback instead of a future: it runs in the turn of the event loop that read the message.
        """
        if self.lost.done():
            answer(None)
            return
        wire = self._wire
        wire.outgoing.requests.append(request)  # first: it may fail, and then nothing waits for an answer
        self._answers[request.id] = answer
        if on_chunk is not None:
            self._streams[request.id] = on_chunk
        wire.flush()

    def cancel(self, request_id: str, reason: pb.Cancel.Reason) -> None:
        """Tells the interpreter to stop the command, and stops what the command asks of us; its Reply still
        comes."""
        if reason != pb.Cancel.RECALL:  # which is for a command that has not begun
            self.host_calls.cancel_request(request_id)
        self._wire.outgoing.cancels.append(pb.Cancel(id=request_id, reason=reason))
        self._wire.flush()

    def grant(self, request_id: str, chunks: int, size: int) -> None:
        """Lets a stream send so many chunks and bytes more."""
        self._wire.outgoing.credits.append(pb.Credit(id=request_id, chunks=chunks, bytes=size))
        self._wire.flush()

    def release(self, segment_id: str) -> None:
        """Nobody looks at this result segment any more."""
        self._wire.outgoing.released.append(segment_id)
        self._wire.flush()

    def trim(self) -> None:
        """Free result segments can give their memory back."""
        self._wire.outgoing.trim = True
        self._wire.flush()

    async def healthy(self, timeout: float) -> bool:
        """Whether the interpreter says within `timeout` seconds that it serves."""
        return await self._services.healthy(timeout)

    async def shutdown(self, grace: float, timeout: float) -> bool:
        """Asks the interpreter to end; whether it agreed within `timeout` seconds. False after `close`,
        too."""
        return await self._services.shutdown(grace, timeout)

    async def close(self) -> None:
        """Ends the connection; what has no answer yet gets None. Safe to repeat."""
        await self._wire.close()
        self._end("the connection was closed")
        await self._services.close()

    def leave(self) -> None:
        """The interpreter begins nothing any more, whoever noticed it. Safe to repeat."""
        if not self.leaving.done():
            self.leaving.set_result(None)

    # ---- what comes ---------------------------------------------------------------------------------------

    def _receive(self, frame: pb.FromInterpreter) -> None:
        if frame.leaving:
            self.leave()
        for chunk in frame.chunks:  # before the replies: that of a stream is the last thing said about it
            on_chunk = self._streams.get(chunk.id)
            if on_chunk is not None:
                self._tell(on_chunk, chunk)
        for reply in frame.replies:
            self._streams.pop(reply.id, None)
            answer = self._answers.pop(reply.id, None)
            if answer is not None:
                try:  # `_tell`, without a call for each reply
                    answer(reply)
                except Exception:
                    log.exception("the reply to request %s could not be handed on", reply.id)
        if frame.released:
            self._tell(self._released, frame.released)
        if frame.host_calls or frame.host_credits or frame.host_cancels:
            self._tell(self.host_calls.receive, frame)

    def _tell(self, listener: Callable[[Any], None], what: Any) -> None:
        try:
            listener(what)
        except Exception:
            log.exception("an answer of the interpreter could not be handed on")

    def _reply(self, reply: pb.HostReply) -> None:
        self._wire.outgoing.host_replies.append(reply)
        self._wire.flush()

    def _end(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)
        self.host_calls.close()
        self._streams.clear()
        unanswered, self._answers = self._answers, {}
        for answer in unanswered.values():
            self._tell(answer, None)
