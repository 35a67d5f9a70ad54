"""The worker's end of the lanes: requests of callers on this node come in over a private unix socket, in this
actor's own event loop, and are served as those that come by Ray.

- Who connects is of our user, and says the secret of the worker table first.
- The end of a connection means that its caller has died: its commands are cancelled. So a connection of a
  caller that keeps to the rules is never ended from here.
- What another worker has moved here goes on without it: that one, when it is back, asks what became of it.
- There is exactly one answer for each request. One that is too large goes by Ray: it is kept until the same
  request comes that way. The answer of a stream comes after its parts (flow.py).
- A caller that does not read is not read from. What it has sent already is bounded by the queue's limit.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, Protocol, cast

from snakepit_ray.errors import RequestCancelled, SnakepitError
from snakepit_ray.port.messages import Delegated, Refused
from snakepit_ray.process import lanes
from snakepit_ray.process.sockets import peer_user
from snakepit_ray.wire import frames, lane
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire._pb import lane_pb2
from snakepit_ray.wire.codec import BatchEnvelope
from snakepit_ray.worker.flow import Flow, Keeps

HELLO_SECONDS = 5.0
UNREAD_BYTES = 1024 * 1024  # of answers that a caller may leave unread before it is not read from
UNSENT_SECONDS = 0.01  # between two looks at what is left
BACKLOG = 128


class Serves(Keeps, Protocol):
    """What serves the requests, whichever way they come. It keeps an answer, or the error instead, under the
    id of its request, which comes by Ray next."""

    async def call(self, request: pb.Request, values: tuple[Any, ...]) -> Any:
        """Runs one request."""

    async def batch(self, requests: list[pb.Request], values: tuple[Any, ...]) -> BatchEnvelope:
        """Runs the items of some requests, which are one batch."""

    def stream(self, request: pb.Request, values: tuple[Any, ...]) -> AsyncGenerator[Any]:
        """Runs one request whose command yields: its chunks as Parts."""


class LaneServer:
    """The lane of one worker actor. `counted` is told of each call that came by it; `translate` makes one of
    our errors of one of Ray's."""

    def __init__(
        self,
        serves: Serves,
        pool: str,
        threshold: int,
        counted: Callable[[int], None],
        translate: Callable[[BaseException], SnakepitError | None] = lambda error: None,
    ) -> None:
        self.serves = serves
        self.pool = pool
        self.threshold = threshold
        self.counted = counted
        self.translate = translate
        self.secret = secrets.token_bytes(lane.SECRET_BYTES)
        self.callers: set[Caller] = set()
        self.moved: set[asyncio.Task[Any]] = set()  # what serves requests that other workers have moved here
        self._directory: lanes.LaneDirectory | None = None
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

    def open(self, node_id: str, base: lanes.Base = None) -> lane.Lane:
        """Makes the socket: whoever connects from now on is served when `serve` has been called. Raises
        OSError and ConfigError where there can be none."""
        self._directory = directory = lanes.make(base)
        self._socket = listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.bind(directory.path)
            os.chmod(directory.path, 0o600)
            listening.listen(BACKLOG)
        except OSError:
            self.close()
            raise
        return lane.Lane(node_id, directory.path, self.secret)

    async def serve(self) -> None:
        """Serves whoever connects, in the running loop. To be called in an empty context: Ray takes what is
        called in a request's context for that request's child."""
        if self._socket is not None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(lambda: Caller(self), sock=self._socket)

    async def until_sent(self, timeout: float) -> bool:
        """Waits until the sockets have taken whatever was answered; whether that was within `timeout`
        seconds. What a socket has taken arrives also when this process ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while any(caller.unsent for caller in self.callers):
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(UNSENT_SECONDS)  # a transport says when little is left, not when nothing is
        return True

    def close(self) -> None:
        """Takes no new caller, and removes the socket. Safe to repeat."""
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        if self._directory is not None:
            self._directory.remove()


class Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: LaneServer) -> None:
        self._server = server
        self._reader = frames.FrameReader(lane.FRAME_LIMIT)
        self._is_known = False
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._flows: dict[str, Flow] = {}
        self._transport: asyncio.Transport | None = None
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        if not is_of_our_user(transport.get_extra_info("socket")):
            transport.abort()
            return
        transport.set_write_buffer_limits(high=UNREAD_BYTES)
        self._server.callers.add(self)
        self._patience = asyncio.get_running_loop().call_later(HELLO_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        try:
            for kind, payload in self._reader.feed(data):
                self._take(kind, payload)
        except (frames.FrameError, ValueError):
            self.abort()

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.callers.discard(self)
        if self._patience is not None:
            self._patience.cancel()
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            if task not in self._server.moved:
                task.cancel()

    @property
    def under_way(self) -> int:
        """Requests of this caller that have no answer yet."""
        return len(self._tasks)

    @property
    def unsent(self) -> int:
        """Bytes of answers that the socket has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """Ends the connection: its caller takes this worker for dead."""
        if self._transport is not None:
            self._transport.abort()

    # ---- in -----------------------------------------------------------------------------------------------

    def _take(self, kind: int, payload: bytes) -> None:
        """One frame. Raises ValueError for what breaks the rules."""
        if not self._is_known:
            self._meet(kind, payload)
        elif kind == lane.CALL:
            request = lane.parsed(pb.Request, payload)
            self._begin(request, self._server.serves.call(request, ()))
            self._server.counted(request.batch.count or 1)
        elif kind == lane.MOVED:
            request = lane.parsed(pb.Request, payload)
            serving = self._begin(request, self._server.serves.call(request, ()), is_moved=True)
            self._server.moved.add(serving)
            serving.add_done_callback(self._server.moved.discard)
        elif kind == lane.BATCH:
            requests = list(lane.parsed(lane_pb2.LaneBatch, payload).requests)
            count = sum(request.batch.count for request in requests)
            self._begin(requests[0] if count else pb.Request(), self._server.serves.batch(requests, ()))
            self._server.counted(count)
        elif kind == lane.STREAM:
            self._stream(lane.parsed(pb.Request, payload))
        elif kind == lane.TAKEN:
            taken = lane.parsed(lane_pb2.LaneTaken, payload)
            if (flow := self._flows.get(taken.id)) is not None:
                flow.taken(taken.parts)
        elif kind == lane.CANCEL:
            task = self._tasks.get(lane.parsed(pb.Cancel, payload).id)
            if task is not None:
                task.cancel()
        else:
            raise ValueError(f"there is no frame of kind {kind}")

    def _meet(self, kind: int, payload: bytes) -> None:
        """The first frame. Raises ValueError for a caller that may not come in."""
        if kind != lane.HELLO:
            raise ValueError("a caller's first frame is its hello")
        if not hmac.compare_digest(lane.parsed(lane_pb2.LaneHello, payload).secret, self._server.secret):
            raise ValueError("that is another secret")
        if self._patience is not None:
            self._patience.cancel()
        self._is_known = True

    def _stream(self, request: pb.Request) -> None:
        server = self._server
        flow = Flow(request.id, self._write, server.serves, server.threshold)
        self._begin(request, flow.run(server.serves.stream(request, ())), is_stream=True)
        server.counted(1)
        self._flows[request.id] = flow

    def _begin(
        self,
        request: pb.Request,
        serving: Coroutine[Any, Any, Any],
        *,
        is_moved: bool = False,
        is_stream: bool = False,
    ) -> asyncio.Task[Any]:
        is_new = bool(request.id) and request.id not in self._tasks
        is_of_its_kind = (request.stream, request.pack) == (is_stream, is_stream)
        if not is_new or not is_of_its_kind or bool(request.options.hops) != is_moved:
            serving.close()
            raise ValueError("that is no request for a lane")
        task = asyncio.ensure_future(serving)
        self._tasks[request.id] = task
        task.add_done_callback(partial(self._ended, request))
        return task

    # ---- out ----------------------------------------------------------------------------------------------

    def _write(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def _ended(self, request: pb.Request, task: asyncio.Task[Any]) -> None:
        self._flows.pop(request.id, None)
        # Its error is heard of, also where nobody is there any more.
        error = None if task.cancelled() else task.exception()
        if self._tasks.pop(request.id, None) is None:
            return
        if task.cancelled():
            error = RequestCancelled.because(f"the caller cancelled it (pool {self._server.pool!r})")
        elif error is not None:
            error = self._server.translate(error) or error
        answer = None if error is not None else task.result()
        try:
            packed = self._packed(request, answer, error)
        except Exception as broken:  # noqa: BLE001 - whatever it is, its caller waits for an answer
            packed = lane.error_answer(request.id, broken)
        self._write(frames.pack(lane.ANSWER, packed))

    def _packed(self, request: pb.Request, answer: Any, error: BaseException | None) -> bytes:
        request_id = request.id
        if isinstance(answer, Refused):
            return lane.refused(request_id)
        value, free = answer if isinstance(answer, Delegated) else (answer, False)
        failed = value if isinstance(value, SnakepitError) else error
        if failed is not None:
            packed = lane.error_answer(request_id, failed, free=free)
        elif request.stream:
            packed = lane.ended(request_id)
        elif lane.fits(value, self._server.threshold):
            packed = lane.value_answer(request_id, value, free=free)
        else:
            packed = b""
        if packed and len(packed) <= lane.FRAME_LIMIT:
            return packed
        self._server.serves.keep(request_id, (answer, error if isinstance(error, Exception) else None))
        return lane.by_ray(request_id)


def is_of_our_user(connection: Any) -> bool:
    """Whether the process at the other end of a socket runs as our user; not where it is gone already."""
    try:
        return peer_user(connection) == os.geteuid()
    except OSError:
        return False
