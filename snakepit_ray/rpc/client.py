"""The connection to one interpreter: one `Attach` stream for calls both ways, and unary calls for health and
shutdown.

Rules:
- Every request gets exactly one answer: a Reply, or None when the stream ended. Calls of the interpreter to
  its host are served by host_calls.py.
- One writer. grpc.aio allows one `write` at a time, so one task writes, and sends what has gathered meanwhile
  as one frame.
- A caller that is cancelled never touches the stream itself, because grpc.aio cancels the whole call when a
  write is cancelled.
- grpc.aio raises several families of exceptions. `_speaking` translates all of them to InterpreterLost, so
  that nothing else here, and nobody above, has to list them.
- What has arrived is read, also after a write failed. grpc.aio takes such a call for done: `read` gives no
  more of it, and the core, which nobody tells, keeps it until all of it has been read. So the frames are
  iterated, which goes on to their end.
- A callback that raises ends nothing but its own request.

Channel and stream belong to one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import grpc
import grpc.aio

from snakepit_ray.process.awaiting import within
from snakepit_ray.rpc.host_calls import HostCalls, HostSide
from snakepit_ray.wire._pb import interpreter_pb2 as pb

SERVICE = "/snakepit.v1.Interpreter/"
SECRET_KEY = "snakepit-secret"
DRAIN_SECONDS = 1.0  # for reading what had arrived when a write failed
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}, grpc.health.v1

Answer = Callable[[pb.Reply | None], None]
TakeChunk = Callable[[pb.Chunk], None]


log = logging.getLogger("snakepit_ray.worker")


class InterpreterLost(Exception):
    """The interpreter cannot be reached: what was running has no answer. The text says what gRPC said."""


# A call that failed; a channel or call that is used after its end (BaseError and, of a stream,
# InvalidStateError).
_FAMILIES = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)


@contextlib.contextmanager
def _speaking() -> Iterator[None]:
    """Whatever gRPC raises inside is InterpreterLost outside."""
    try:
        yield
    except _FAMILIES as error:
        raise InterpreterLost(_words(error)) from error


class InterpreterClient:
    """Calls to one interpreter. `connect` first. `lost` is done when the stream has ended, `leaving` when the
    interpreter has said that it begins nothing any more."""

    def __init__(self, address: str, secret: str, host: HostSide) -> None:
        self._channel = grpc.aio.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", -1),  # the limits are ours: max_message_size
                ("grpc.max_send_message_length", -1),
                ("grpc.enable_http_proxy", 0),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_retries", 0),
                ("grpc.http2.bdp_probe", 0),  # a unix socket has no bandwidth to find out
                ("grpc.default_authority", "localhost"),
            ],
        )
        self._metadata = ((SECRET_KEY, secret),)
        self._released = host.cargo.released
        self.host_calls = HostCalls(host, self._reply)
        self._answers: dict[str, Answer] = {}
        self._streams: dict[str, TakeChunk] = {}
        self._outgoing = pb.ToInterpreter()
        self._writing = False
        self._is_broken = False  # a write has failed: the reader comes to the end of what had arrived
        self._reader: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self.leaving: asyncio.Future[None] = loop.create_future()

    async def connect(self, hello: pb.Hello, timeout: float) -> pb.Welcome:
        """Opens the stream and waits for the Welcome, at most `timeout` seconds. Raises InterpreterLost."""
        self._stream = self._channel.stream_stream(
            SERVICE + "Attach",
            request_serializer=pb.ToInterpreter.SerializeToString,
            response_deserializer=pb.FromInterpreter.FromString,
        )(metadata=self._metadata, wait_for_ready=True)
        self._frames = self._stream.__aiter__()
        try:
            first = await within(timeout, self._greet(hello))
        except (InterpreterLost, asyncio.TimeoutError) as error:
            raise InterpreterLost(f"no Welcome within {timeout:g} s: {_words(error)}") from error
        if first is None:
            raise InterpreterLost("the interpreter closed the stream before its Welcome")
        self._reader = self._spawn(self._read())
        welcome: pb.Welcome = first.welcome
        return welcome

    async def _greet(self, hello: pb.Hello) -> Any:
        with _speaking():
            await self._stream.write(pb.ToInterpreter(hello=hello))
            return await anext(self._frames, None)

    def request(self, request: pb.Request, answer: Answer, on_chunk: TakeChunk | None = None) -> None:
        """Sends `request`; `answer` is called once, with its Reply, or with None when the stream ended first.
        Of a stream, `on_chunk` is called with each Chunk before that.

        A callback instead of a future: it runs in the turn of the event loop that read the frame.
        """
        if self.lost.done():
            answer(None)
            return
        self._outgoing.requests.append(
            request
        )  # first, because it may fail: nothing waits for an answer then
        self._answers[request.id] = answer
        if on_chunk is not None:
            self._streams[request.id] = on_chunk
        self._flush()

    def cancel(self, request_id: str, reason: pb.Cancel.Reason) -> None:
        """Tells the interpreter to stop the command, and stops what the command asks of us; its Reply still
        comes."""
        if reason != pb.Cancel.RECALL:  # which is for a command that has not begun
            self.host_calls.cancel_request(request_id)
        self._outgoing.cancels.append(pb.Cancel(id=request_id, reason=reason))
        self._flush()

    def grant(self, request_id: str, chunks: int, size: int) -> None:
        """Lets a stream send so many chunks and bytes more."""
        self._outgoing.credits.append(pb.Credit(id=request_id, chunks=chunks, bytes=size))
        self._flush()

    def release(self, segment_id: str) -> None:
        """Nobody looks at this result segment any more."""
        self._outgoing.released.append(segment_id)
        self._flush()

    def trim(self) -> None:
        """Free result segments can give their memory back."""
        self._outgoing.trim = True
        self._flush()

    async def healthy(self, timeout: float) -> bool:
        """Whether grpc.health.v1 says SERVING within `timeout` seconds."""
        try:
            with _speaking():
                check = self._channel.unary_unary("/grpc.health.v1.Health/Check")
                return bool(await check(b"", metadata=self._metadata, timeout=timeout) == SERVING)
        except InterpreterLost:
            return False

    async def shutdown(self, grace: float, timeout: float) -> bool:
        """Asks the interpreter to end; whether it agreed within `timeout` seconds. False after `close`,
        too."""
        asked = pb.ShutdownRequest(grace_ms=int(grace * 1000))
        try:
            with _speaking():
                call = self._channel.unary_unary(
                    SERVICE + "Shutdown",
                    request_serializer=pb.ShutdownRequest.SerializeToString,
                    response_deserializer=pb.ShutdownReply.FromString,
                )
                await call(asked, metadata=self._metadata, timeout=timeout)
        except InterpreterLost:
            return False
        return True

    async def close(self) -> None:
        """Ends the stream and the channel; what has no answer yet gets None. Safe to repeat."""
        if self._is_broken:
            await self._read_to_the_end()
        self._end("the connection was closed")
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(InterpreterLost), _speaking():
            await self._channel.close()

    def leave(self) -> None:
        """The interpreter begins nothing any more, whoever noticed it. Safe to repeat."""
        if not self.leaving.done():
            self.leaving.set_result(None)

    # ---- one writer ---------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if not self._writing:
            self._writing = True
            self._spawn(self._write())

    async def _write(self) -> None:
        try:
            while self._outgoing.ByteSize():
                frame, self._outgoing = self._outgoing, pb.ToInterpreter()
                await self._stream.write(frame)
        except Exception as error:  # noqa: BLE001 - the requests in a frame that was not sent must hear of it
            if not self._is_broken:
                self._is_broken = True
                self._spawn(self._drain(_words(error)))
        finally:
            self._writing = False

    async def _drain(self, why: str) -> None:
        """A write has failed: the stream ends when all that had arrived is read."""
        await self._read_to_the_end()
        self._end(why)

    async def _read_to_the_end(self) -> None:
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=DRAIN_SECONDS)

    # ---- one reader ---------------------------------------------------------------------------------------

    async def _read(self) -> None:
        why = "the interpreter closed the stream"
        try:
            with _speaking():
                async for frame in self._frames:
                    self._receive(frame)
        except Exception as error:  # noqa: BLE001 - a reader that dies ends its stream, and says why
            why = _words(error)
        finally:
            self._end(why)

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
        self._outgoing.host_replies.append(reply)
        self._flush()

    def _end(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)
        self.host_calls.close()
        self._streams.clear()
        unanswered, self._answers = self._answers, {}
        for answer in unanswered.values():
            self._tell(answer, None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _words(error: BaseException) -> str:
    if isinstance(error, InterpreterLost):
        return str(error)
    details = getattr(error, "details", None)
    text = details() if callable(details) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
