"""Frames over a private unix socket: for a host that wants requests beside gRPC, or without it.

Rules:
- The first frame of a connection holds the secret. Until then nothing but a short frame is read, and only for
  so long. Whoever connects must have this process's user.
- Each connection has one thread that reads. Nothing that it does waits for the host or for a command, so a
  ping is answered while commands run.
- What is no frame or no message ends its connection with a frame that says why.
- The end of a connection ends its attachment.
"""

from __future__ import annotations

import _socket as socket  # `socket` itself would be half a megabyte and 3 ms of each start
import contextlib
import os
import struct
import threading
import time

from snakepit_bridge.lifeline import forks
from snakepit_bridge.server.framing import HEADER, LONGEST, FrameError, FrameReader, pack
from snakepit_bridge.server.messages import pb
from snakepit_bridge.server.secret import same
from snakepit_bridge.server.writer import Part, Writer
from snakepit_bridge.values.failures import INTERNAL, ProtocolMismatch

# Kinds of frames. Those of the host are odd, those of an interpreter even.
SECRET, REFUSED = 1, 2
TO_INTERPRETER = 3
PING, PONG = 5, 6
DESCRIBE, DESCRIPTION = 7, 8
SHUTDOWN, SHUTTING_DOWN = 9, 10

SERVING, NOT_SERVING = b"\1", b"\2"  # as in grpc.health.v1
FIRST_SIZE = 4096  # bytes of the longest secret
FIRST_SECONDS = 10.0  # for the secret to come
PING_SIZE = 64  # bytes
READ_SIZE = 64 * 1024
BACKLOG = 16
STOP_SECONDS = 0.5  # for what was answered to be delivered
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))


def start(dispatcher, ready_line: bytes, on_shutdown) -> FramesServer:
    """Serves on the frames' socket of `dispatcher.config`; `on_shutdown(grace)` is called by a SHUTDOWN.
    Raises OSError, also where something lies at the socket's path: it is not ours.
    """
    path = dispatcher.config.frames
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.settimeout(None)  # whatever an adapter has made the default
    try:
        _bind(listener, path)
        os.chmod(path, 0o600)  # its directory is 0700 already
        listener.listen(BACKLOG)
        running = FramesServer(dispatcher, ready_line, on_shutdown, listener)
        threading.Thread(target=running.accept, name="snakepit-frames", daemon=True).start()
    except BaseException:
        listener.close()
        raise
    forks.keep(listener.fileno())
    return running


def _bind(listener, path: str) -> None:
    try:
        listener.bind(path)
    except OSError as error:
        raise OSError(f"cannot serve frames on {path}: {error.strerror or error}") from error


class FramesServer:
    """A socket that is served."""

    def __init__(self, dispatcher, ready_line: bytes, on_shutdown, listener) -> None:
        self.dispatcher = dispatcher
        self.ready_line = ready_line
        self.on_shutdown = on_shutdown
        self._listener = listener
        self._leaving = threading.Event()
        self._connections: set[_Connection] = set()

    def accept(self) -> None:
        """The thread that takes connections."""
        while True:
            try:
                descriptor, _ = self._listener._accept()
                connection = socket.socket(fileno=descriptor)
            except OSError:  # closed; where descriptors have run out a host that comes now is not served
                if self._leaving.is_set() or self._listener.fileno() < 0:
                    return
                self._leaving.wait(0.05)
                continue
            if not _is_own_user(connection):
                connection.close()
                continue
            one = _Connection(self, connection)
            try:
                threading.Thread(target=one.serve, name="snakepit-reader", daemon=True).start()
            except RuntimeError:  # no thread is left
                connection.close()

    def status(self) -> bytes:
        """What a PONG says."""
        serves = self.dispatcher.is_alive() and not self._leaving.is_set()
        return SERVING if serves else NOT_SERVING

    def leave(self) -> None:
        """Pings are answered with NOT_SERVING from now on."""
        self._leaving.set()

    def stop(self) -> None:
        """Ends every connection, and the socket with them; what has been answered is delivered first."""
        self._leaving.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # `accept` ends
        with contextlib.suppress(OSError):
            os.unlink(self.dispatcher.config.frames)
        for one in list(self._connections):
            one.writer.close()
        for one in list(self._connections):
            one.writer.join(STOP_SECONDS)

    def opened(self, one: _Connection) -> None:
        """It has given the secret."""
        self._connections.add(one)

    def closed(self, one: _Connection) -> None:
        """It has ended."""
        self._connections.discard(one)


class _Connection:
    """One host's connection, from its secret to its end."""

    def __init__(self, running: FramesServer, connection) -> None:
        self._running = running
        self._dispatcher = running.dispatcher
        self._socket = connection
        self._reader = FrameReader(LONGEST)
        self._attachment = None
        self.writer = Writer(connection)

    def serve(self) -> None:
        """The thread that reads."""
        forks.keep(self._socket.fileno())
        try:
            if self._is_let_in():
                self._read()
        finally:
            self._end()

    def _is_let_in(self) -> bool:
        """Takes the secret."""
        try:
            kind, secret = self._first_frame(time.monotonic() + FIRST_SECONDS)
            if kind != SECRET or not same(secret, self._dispatcher.config.secret.encode()):
                raise FrameError("the secret is missing or wrong")
            self._socket.settimeout(None)
            self.writer.start()
            self._running.opened(self)
            return True
        except FrameError as error:
            self._say_why(error)
        except (OSError, RuntimeError):  # it came too late, it has gone, or no thread is left
            pass
        return False

    def _first_frame(self, until: float) -> tuple:
        kind, size = HEADER.unpack(self._exactly(HEADER.size, until))
        if size > FIRST_SIZE:
            raise FrameError(f"the first frame says {size:,} bytes, the limit is {FIRST_SIZE:,}")
        return kind, self._exactly(size, until)

    def _exactly(self, size: int, until: float) -> bytes:
        data = b""
        while len(data) < size:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionError("it has gone")
            data += part
        return data

    def _say_why(self, error: Exception) -> None:
        """To somebody who is not let in: nobody waits for him."""
        with contextlib.suppress(OSError):
            self._socket.send(_refusal(error), socket.MSG_DONTWAIT)

    def _read(self) -> None:
        try:
            while True:
                data = self._socket.recv(READ_SIZE)
                if not data or not self._take(self._reader.feed(data)):
                    return
        except FrameError as error:
            self._refuse(error)
        except OSError:
            pass

    def _take(self, frames: list) -> bool:
        """Whether to read on."""
        for kind, payload in frames:
            try:
                self._receive(kind, payload)
            except (FrameError, ProtocolMismatch) as error:
                self._refuse(error)
                return False
        return True

    def _receive(self, kind: int, payload: bytes) -> None:
        if kind == TO_INTERPRETER:
            message = _parsed(pb.ToInterpreter, payload)
            if self._attachment is not None:
                self._attachment.receive(message)
            else:
                self._attachment = self._dispatcher.attach(message, self.writer)
        elif kind == PING and len(payload) <= PING_SIZE:
            self._answer(PONG, self._running.status() + payload)
        elif kind == DESCRIBE:
            running = self._dispatcher.running()
            description = pb.Description(ready_json=self._running.ready_line, running=running)
            self._answer(DESCRIPTION, description.SerializeToString())
        elif kind == SHUTDOWN:
            asked = _parsed(pb.ShutdownRequest, payload)
            self._dispatcher.refuse()  # before the answer to this, which says that it is so
            self._answer(SHUTTING_DOWN, pb.ShutdownReply().SerializeToString())
            self._running.on_shutdown(asked.grace_ms / 1000)
        else:
            raise FrameError(f"a host sends no frame of kind {kind} and {len(payload):,} bytes here")

    def _answer(self, kind: int, payload: bytes) -> None:
        self.writer.put(Part(pack(kind, payload)))

    def _refuse(self, error: Exception) -> None:
        self.writer.put(Part(_refusal(error)))

    def _end(self) -> None:
        """After what was put is written, or cannot be."""
        if self._attachment is not None:
            self._attachment.close()
        self.writer.close()
        self.writer.join(STOP_SECONDS)
        self.writer.abort()  # the host does not read: what it was to get is lost
        self.writer.join(STOP_SECONDS)
        self._running.closed(self)
        forks.close(self.writer.detach())


def _parsed(kind, payload: bytes):
    try:
        return kind.FromString(payload)
    except Exception as error:  # protobuf's DecodeError, which lies elsewhere in each of its versions
        raise FrameError(f"a frame holds no {kind.DESCRIPTOR.name}: {error}") from error


def _refusal(error: Exception) -> bytes:
    failure = pb.Failure(kind=INTERNAL, type=type(error).__name__, message=str(error), language="python")
    return pack(REFUSED, failure.SerializeToString())


def _is_own_user(connection) -> bool:
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # not Linux: the directory, which nobody else may enter, has to do
        return True
    _, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return user == os.geteuid()
