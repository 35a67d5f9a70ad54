"""Frames to one interpreter over a private unix socket: messages both ways, and pings, descriptions and the
end (bridge/README.md section 3, "Frames").

Rules:
- What is given is written at once when the socket takes it. What gathers in the rest of that turn of the
  event loop is one frame more. While the socket is full everything gathers in one message, so a peer that
  does not read makes no queue of copies.
- What has arrived is received, also after a write failed: asyncio reads no more of such a connection, so the
  rest is read here.
- Bytes that are no frames, or frames that are no messages, end the connection.
- The socket must be this user's, and so must the process that serves it."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import stat
from collections.abc import Callable

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from snakepit_ray.process.awaiting import within
from snakepit_ray.process.sockets import peer_user
from snakepit_ray.rpc.client import InterpreterLost
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.frames import LONGEST, FrameError, FrameReader, header, pack

# Kinds of frames. Those of the host are odd, those of an interpreter even.
SECRET, REFUSED = 1, 2
TO_INTERPRETER, FROM_INTERPRETER = 3, 4
PING, PONG = 5, 6
DESCRIBE, DESCRIPTION = 7, 8
SHUTDOWN, SHUTTING_DOWN = 9, 10

SERVING = 1  # first byte of a PONG, as in grpc.health.v1
APART = 64 * 1024  # bytes of a payload above which its header is written on its own, without a copy of both
READ_SIZE = 256 * 1024


class FramesWire(asyncio.Protocol):
    """A connection to one interpreter: both Wire and Services."""

    def __init__(self, path: str, secret: str) -> None:
        self._path = path
        self._secret = secret
        self.outgoing = pb.ToInterpreter()
        self._reader = FrameReader(LONGEST)
        self._is_paused = False
        self._is_turn = (
            False  # something was written in this turn of the loop; what gathers follows at its end
        )
        self._is_over = False
        self._refused = ""  # what a REFUSED said
        self._numbers = itertools.count(1)
        self._pings: dict[bytes, asyncio.Future[bool]] = {}
        self._agreed: asyncio.Future[bool] | None = None
        self._welcome: asyncio.Future[pb.Welcome]
        self._socket: socket.socket
        self._transport: asyncio.Transport

    async def open(
        self,
        hello: pb.Hello,
        timeout: float,
        receive: Callable[[pb.FromInterpreter], None],
        ended: Callable[[str], None],
    ) -> pb.Welcome:
        """Connects and waits for the Welcome. Raises InterpreterLost."""
        self._receive, self._ended = receive, ended
        self._loop = asyncio.get_running_loop()
        self._welcome = self._loop.create_future()
        try:
            return await within(timeout, self._greet(hello))
        except (OSError, asyncio.TimeoutError, InterpreterLost) as error:
            said = str(error) or type(error).__name__
            raise InterpreterLost(f"no Welcome within {timeout:g} s: {said}") from error

    async def _greet(self, hello: pb.Hello) -> pb.Welcome:
        self._socket = await _connected(self._path)
        try:
            self._transport, _ = await self._loop.create_connection(lambda: self, sock=self._socket)
        except BaseException:
            self._socket.close()
            raise
        message = pb.ToInterpreter(hello=hello).SerializeToString()
        self._transport.write(pack(SECRET, self._secret.encode()) + pack(TO_INTERPRETER, message))
        return await self._welcome

    async def healthy(self, timeout: float) -> bool:
        """Whether a ping is answered with SERVING within `timeout` seconds."""
        if self._is_over:
            return False
        token = b"%d" % next(self._numbers)
        self._pings[token] = answered = self._loop.create_future()
        self._transport.write(pack(PING, token))
        try:
            return await within(timeout, answered)
        except asyncio.TimeoutError:
            return False
        finally:
            self._pings.pop(token, None)

    async def shutdown(self, grace: float, timeout: float) -> bool:
        """Asks the interpreter to end; whether it agreed within `timeout` seconds. False after `close`,
        too."""
        if self._is_over:
            return False
        agreed = self._agreed = self._agreed or self._loop.create_future()
        asked = pb.ShutdownRequest(grace_ms=int(grace * 1000))
        self._transport.write(pack(SHUTDOWN, asked.SerializeToString()))
        await asyncio.wait([agreed], timeout=timeout)
        return agreed.done() and agreed.result()

    async def close(self) -> None:
        """Ends the connection. Safe to repeat."""
        if hasattr(self, "_transport"):
            self._break("the connection was closed")

    # ---- out ----------------------------------------------------------------------------------------------

    @property
    def is_writing(self) -> bool:
        """Whether something of what was given is not with the operating system yet."""
        return not self._is_over and (
            self._is_turn or self._is_paused or self._transport.get_write_buffer_size() > 0
        )

    def flush(self) -> None:
        """Writes `outgoing` now, or at the end of this turn of the loop when it has written in it before."""
        if self._is_turn:
            return
        self._is_turn = True
        self._loop.call_soon(self._turn_over)
        self._write()

    def _turn_over(self) -> None:
        self._is_turn = False
        if self.outgoing.ByteSize():
            self._write()

    def _write(self) -> None:
        if self._is_over:
            self.outgoing.Clear()
            return
        if self._is_paused:
            return
        message, self.outgoing = self.outgoing, pb.ToInterpreter()
        try:
            payload = message.SerializeToString()
            if not payload:
                return
            if len(payload) < APART:
                self._transport.write(pack(TO_INTERPRETER, payload))
            else:
                self._transport.write(header(TO_INTERPRETER, len(payload)))
                self._transport.write(payload)
        except Exception as error:  # noqa: BLE001 - the requests in a message that was not sent must hear of it
            self._break(f"a message cannot be sent: {type(error).__name__}: {error}")

    def pause_writing(self) -> None:
        """The socket takes no more."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The socket takes more."""
        self._is_paused = False
        self._write()

    # ---- in -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        take = self._receive if self._welcome.done() else self._greeted
        try:
            for kind, payload in self._reader.feed(data):
                if kind == FROM_INTERPRETER:
                    take(pb.FromInterpreter.FromString(payload))
                else:
                    self._answered(kind, payload)
        except (FrameError, DecodeError) as error:
            self._break(f"the interpreter sent what is no frame: {type(error).__name__}: {error}")

    def _greeted(self, message: pb.FromInterpreter) -> None:
        if not self._welcome.done():
            if not message.HasField("welcome"):
                raise FrameError("the first message holds no Welcome")
            self._welcome.set_result(message.welcome)
        self._receive(message)

    def _answered(self, kind: int, payload: bytes) -> None:
        if kind == PONG:
            ping = self._pings.pop(payload[1:], None)
            if ping is not None and not ping.done():
                ping.set_result(payload[:1] == bytes((SERVING,)))
        elif kind == SHUTTING_DOWN:
            if self._agreed is not None and not self._agreed.done():
                self._agreed.set_result(True)
        elif kind == REFUSED:
            self._refused = f"the interpreter refused: {pb.Failure.FromString(payload).message}"
        else:
            raise FrameError(f"an interpreter sends no frame of kind {kind}")

    # ---- the end ------------------------------------------------------------------------------------------

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing can be written any more. What had arrived is received first."""
        if not self._is_over:
            self._read_to_the_end()
            said = f"{type(error).__name__}: {error}" if error else "the interpreter closed the connection"
            self._over(self._refused or said)

    def _read_to_the_end(self) -> None:
        """asyncio reads no more once a write has failed."""
        try:
            while not self._is_over and (data := self._socket.recv(READ_SIZE)):
                self.data_received(data)
        except OSError:  # nothing is left, or the socket is closed
            pass

    def _break(self, why: str) -> None:
        """This side ends the connection."""
        if not self._is_over:
            self._over(why)
        self._transport.abort()

    def _over(self, why: str) -> None:
        self._is_over = True
        if not self._welcome.done():
            self._welcome.set_exception(InterpreterLost(why))
            self._welcome.exception()  # heard: nobody may wait for it any more
        for waiting in (*self._pings.values(), *([self._agreed] if self._agreed is not None else [])):
            if not waiting.done():
                waiting.set_result(False)
        self._ended(why)


async def _connected(path: str) -> socket.socket:
    """A socket that is connected to `path`. Raises InterpreterLost when it is not this user's, OSError."""
    found = os.lstat(path)
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise InterpreterLost(f"{path} is no socket of user {os.geteuid()}: somebody else put it there")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, path)
        _require_own_user(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_own_user(connection: socket.socket, path: str) -> None:
    user = peer_user(connection)
    if user != os.geteuid():
        raise InterpreterLost(f"{path} is served by user {user}, not by user {os.geteuid()}")
