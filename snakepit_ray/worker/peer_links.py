"""The lanes of one worker to other workers of its node: requests that it moves there go by them, and what
those come to comes back.

- A lane is used where both workers are on one node. Whatever stands in the way, the request goes by Ray.
- The end of a connection means that the other worker's process has died (LaneEnded). What becomes of the
  requests that were there is decided by whoever sent them, as after a death that Ray tells of.
- No request's context is entered here: what Ray is asked for then would be that request's child.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

from snakepit_ray.core.work.large_commands import LargeCommands
from snakepit_ray.port import ray_port
from snakepit_ray.process.lanes import NoLane, connect
from snakepit_ray.wire import frames, lane
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire._pb import lane_pb2

# The answer to a request that was moved; None where it was not sent after all. It may be LaneEnded.
Moved: TypeAlias = "asyncio.Future[lane_pb2.LaneAnswer | None]"
MOST_LINKS = 128  # descriptors that the lanes to other workers may take: the others are reached by Ray


class LaneEnded(Exception):
    """The connection ended before the answer: the other worker's process has died."""


class Peer(NamedTuple):
    """Another worker: its actor, and its lane where it has one."""

    actor: Any
    lane: lane.Lane | None = None


class PeerLinks:
    """The lanes of a worker on node `node_id`. `sent` counts the requests that went by them."""

    def __init__(self, node_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.sent = 0
        self._node_id = node_id
        self._clock = clock
        self._links: dict[str, PeerLink] = {}  # by the socket's path
        self._large = LargeCommands()

    async def run(
        self, to: lane.Lane | None, request: pb.Request, blob: bytes, kind: int = lane.MOVED
    ) -> lane_pb2.LaneAnswer | None:
        """Has the worker at the other end of a lane run `request`, which is `blob` serialized: its answer,
        None where the request, or only its answer, must go by Ray. Cancelled, it cancels the command. Raises
        LaneEnded. `kind`: of the frame; lane.CALL for a request of this worker's own."""
        if to is None or to.node_id != self._node_id or len(blob) > lane.LARGEST:
            return None
        if self._large.has(request.command, self._clock()):
            return None
        link = self._link(to)
        if link is None or (answer := link.send(request.id, blob, kind)) is None:
            return None
        self.sent += 1
        try:
            message = await answer
        except asyncio.CancelledError:
            link.cancel(request.id)
            raise
        if message is not None and message.by_ray:
            self._large.add(request.command, self._clock())
            return None
        return message

    def close(self) -> None:
        """Ends every connection: this worker is done."""
        for link in self._links.values():
            link.close()

    def _link(self, to: lane.Lane) -> PeerLink | None:
        link = self._links.get(to.path)
        if link is not None and not link.closed:
            return link
        for path in [path for path, old in self._links.items() if old.closed]:
            del self._links[path]
        if len(self._links) >= MOST_LINKS:
            return None
        try:
            connection = connect(to.path)
        except NoLane:
            return None
        made = self._links[to.path] = PeerLink(to.secret)
        loop = asyncio.get_running_loop()
        opening = loop.create_unix_connection(lambda: made, sock=connection)
        made.opening = ray_port.unowned_task(opening)
        made.opening.add_done_callback(made.opened)
        return made


class PeerLink(asyncio.Protocol):
    """One connection to another worker."""

    def __init__(self, secret: bytes) -> None:
        self.closed = False
        self.opening: asyncio.Task[Any] | None = None
        self._first = [lane.hello(secret)]  # what is sent before the transport is there
        self._reader = frames.FrameReader(lane.FRAME_LIMIT)
        # Requests without an answer. One that was cancelled stays until that comes: its id is known there.
        self._answers: dict[str, Moved] = {}
        self._transport: asyncio.Transport | None = None
        self._is_full = False

    def send(self, request_id: str, blob: bytes, kind: int = lane.MOVED) -> Moved | None:
        """Sends a request that is moved, or one of `kind`. None where it cannot take this way now."""
        if self.closed or self._is_full or request_id in self._answers:
            return None
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        self._write(frames.pack(kind, blob))
        return answer

    def cancel(self, request_id: str) -> None:
        """Nobody waits for that request any more."""
        if request_id in self._answers and not self.closed:
            self._write(lane.cancel(request_id))

    def close(self) -> None:
        """Ends the connection. Safe to repeat."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def opened(self, opening: asyncio.Task[Any]) -> None:
        """The transport is there, or there can be none: then nothing was sent, and all goes by Ray."""
        if opening.cancelled() or opening.exception() is not None:
            self.closed = True
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_result(None)
            self._answers.clear()

    def _write(self, frame: bytes) -> None:
        if self._transport is None:
            self._first.append(frame)
        else:
            self._transport.write(frame)

    # ---- asyncio.Protocol ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        if self.closed:
            transport.abort()
            return
        transport.write(b"".join(self._first))
        self._first.clear()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False

    def data_received(self, data: bytes) -> None:
        try:
            for kind, payload in self._reader.feed(data):
                if kind != lane.ANSWER:
                    raise ValueError(f"there is no frame of kind {kind}")
                message = lane.parsed(lane_pb2.LaneAnswer, payload)
                answer = self._answers.pop(message.id, None)
                if answer is not None and not answer.done():
                    answer.set_result(message)
        except (frames.FrameError, ValueError):
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(LaneEnded("the connection ended"))
