"""gRPC to one interpreter: one `Attach` stream that carries messages both ways, and unary calls for health
and shutdown.

Rules:
- One writer. grpc.aio allows one `write` at a time, so one task writes, and sends what has gathered meanwhile
  as one message.
- A caller that is cancelled never touches the stream itself, because grpc.aio cancels the whole call when a
  write is cancelled.
- grpc.aio raises several families of exceptions. `_speaking` translates all of them to InterpreterLost, so
  that nothing else here, and nobody above, has to list them.
- What has arrived is read, also after a write failed. grpc.aio takes such a call for done: `read` gives no
  more of it, and the core, which nobody tells, keeps it until all of it has been read. So the messages are
  iterated, which goes on to their end.

Channel and stream belong to one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import grpc
import grpc.aio

from snakepit_ray.process.awaiting import within
from snakepit_ray.rpc.client import InterpreterLost
from snakepit_ray.wire._pb import interpreter_pb2 as pb

SERVICE = "/snakepit.v1.Interpreter/"
SECRET_KEY = "snakepit-secret"
DRAIN_SECONDS = 1.0  # for reading what had arrived when a write failed
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}, grpc.health.v1

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


class GrpcWire:
    """A channel to one interpreter: both Wire and Services. It connects when it is first used."""

    def __init__(self, address: str, secret: str) -> None:
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
        self.outgoing = pb.ToInterpreter()
        self.is_writing = False
        self._is_broken = False  # a write has failed: the reader comes to the end of what had arrived
        self._reader: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: Callable[[str], None] | None = None

    async def open(
        self,
        hello: pb.Hello,
        timeout: float,
        receive: Callable[[pb.FromInterpreter], None],
        ended: Callable[[str], None],
    ) -> pb.Welcome:
        """Opens the stream and waits for the Welcome. Raises InterpreterLost."""
        self._receive, self._ended = receive, ended
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
        """Ends the stream and the channel. Safe to repeat."""
        if self._is_broken:
            await self._read_to_the_end()
        self._end("the connection was closed")
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(InterpreterLost), _speaking():
            await self._channel.close()

    # ---- one writer ---------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Sends `outgoing`, with whatever gathers until the write before it has ended."""
        if not self.is_writing:
            self.is_writing = True
            self._spawn(self._write())

    async def _write(self) -> None:
        try:
            while self.outgoing.ByteSize():
                frame, self.outgoing = self.outgoing, pb.ToInterpreter()
                await self._stream.write(frame)
        except Exception as error:  # noqa: BLE001 - the requests in a message that was not sent must hear of it
            if not self._is_broken:
                self._is_broken = True
                self._spawn(self._drain(_words(error)))
        finally:
            self.is_writing = False

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

    def _end(self, why: str) -> None:
        if self._ended is not None:
            self._ended(why)

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
