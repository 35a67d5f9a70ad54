"""One connection of this process to a worker's lane: requests go out, answers come in.

- A blocking caller's answers are read by one thread for each worker (ThreadLink), a task's by its own event
  loop (LoopLink).
- Its end means that the worker's process has died. Then what has no answer goes again by Ray, except streams.
- Whoever reads never waits for a taker of a stream: what was not taken is bounded by the stream's credit.
- A child that was forked lets go of the descriptors, and ends nothing of its parent's.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import select
import socket
import threading
import weakref

from snakepit_ray.client.answers import Answer
from snakepit_ray.client.inbox import Inbox
from snakepit_ray.client.outbox import Outbox
from snakepit_ray.process.lanes import NoLane
from snakepit_ray.wire import frames, lane, lane_parts
from snakepit_ray.wire._pb import lane_pb2

CHUNK_BYTES = 256 * 1024


def shut(connection: socket.socket) -> None:
    """Ends a connection: whoever reads it sees that. For any thread; safe to repeat."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class Link:
    """One connection, whoever reads it."""

    def __init__(self, connection: socket.socket, secret: bytes) -> None:
        self.closed = False
        self._socket = connection
        self._outbox = Outbox(connection)
        self._reader = frames.FrameReader(lane.FRAME_LIMIT)
        self._answers: dict[str, Answer | Inbox] = {}
        _links.add(self)
        self._outbox.put(lane.hello(secret))

    @property
    def under_way(self) -> int:
        """Requests that have no answer yet."""
        return len(self._answers)

    def send(self, answer: Answer) -> bool:
        """Sends the request that `answer` is for; False where it cannot take this way."""
        # Where the end of the connection has taken it meanwhile it is on its way by Ray.
        return self._put(answer) or self._answers.pop(answer.call.request_id, None) is None

    def begin(self, inbox: Inbox) -> bool:
        """Sends the request of a stream; False where nothing of it was sent."""
        if self._put(inbox):
            return True
        self._answers.pop(inbox.call.request_id, None)
        return False

    def _put(self, receiver: Answer | Inbox) -> bool:
        call = receiver.call
        self._answers[call.request_id] = receiver
        if not self._outbox.put(frames.pack(call.kind, call.payload)):
            return False
        self._push()
        return True

    def cancel(self, request_id: str) -> None:
        """Nobody waits for that request any more."""
        if request_id in self._answers and self._outbox.put(lane.cancel(request_id), must=True):
            self._push()

    def took(self, request_id: str, parts: int) -> None:
        """So many parts of a stream were taken."""
        if request_id in self._answers and self._outbox.put(lane_parts.taken(request_id, parts), must=True):
            self._push()

    def drop(self, request_id: str) -> None:
        """Nobody takes anything of that stream any more. Safe to repeat, and for any thread in the midst of
        whatever it does: the garbage collector drops streams, too."""
        if self._answers.pop(request_id, None) is not None and not self.closed:
            self._outbox.later(lane.cancel(request_id))
            self._push_later()

    def close(self) -> None:
        """Ends the connection, as if the worker had ended it. For any thread; safe to repeat."""
        shut(self._socket)

    def abandon(self) -> None:
        """Lets go of the descriptor in a process that was forked from the one whose connection it is."""
        self.closed = True
        self._answers.clear()
        self._socket.close()

    def _push(self) -> None:
        """The outbox may have something that waits for the socket."""

    def _push_later(self) -> None:
        """As `_push`, for any thread, and without a lock."""

    def _received(self, data: bytes) -> None:
        """Raises ValueError for what no worker says."""
        try:
            for kind, payload in self._reader.feed(data):
                self._take(kind, payload)
        except frames.FrameError as error:
            raise ValueError(str(error)) from None

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == lane.ANSWER:
            answer = lane.parsed(lane_pb2.LaneAnswer, payload)
            if (receiver := self._answers.pop(answer.id, None)) is not None:
                receiver.arrived(answer)
        elif kind == lane.PART:
            chunks = lane.parsed(lane_pb2.LaneChunks, payload)
            if (receiver := self._answers.get(chunks.id)) is not None:
                receiver.part(chunks)
        else:
            raise ValueError(f"there is no frame of kind {kind}")

    def _ended(self) -> None:
        """The worker has died, or says what none says."""
        self.closed = True
        self._outbox.close()
        while self._answers:
            with contextlib.suppress(KeyError):
                self._answers.popitem()[1].lane_ended()
        self._socket.close()


class ThreadLink(Link):
    """One whose answers a thread of its own reads. Making it raises NoLane where there are no descriptors or
    no threads left."""

    def __init__(self, connection: socket.socket, secret: bytes, name: str) -> None:
        try:
            # Sockets, and no bare descriptors: what is closed a second time, in a child that was forked from
            # here, say, or written to too late, is nobody else's file.
            self._woken, self._wake = socket.socketpair()
        except OSError as error:
            raise NoLane(str(error)) from None
        self._wake.setblocking(False)
        super().__init__(connection, secret)
        try:
            threading.Thread(target=self._read, name=f"snakepit-lane-{name}", daemon=True).start()
        except RuntimeError as error:
            self._close_pair()
            raise NoLane(str(error)) from None

    def abandon(self) -> None:
        super().abandon()
        self._close_pair()

    def _push(self) -> None:
        if not self._outbox.is_empty:
            with contextlib.suppress(OSError):  # it is awake, or gone
                self._wake.send(b"w")

    _push_later = _push

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        try:
            while self._take_turn(poll):
                pass
        except (OSError, ValueError):  # the connection broke, or the worker says what none says
            pass
        finally:
            self._ended()
            self._close_pair()

    def _take_turn(self, poll: select.poll) -> bool:
        """Waits for what comes, or for room for what goes; False at the end of the connection."""
        writes = 0 if self._outbox.is_empty else select.POLLOUT
        poll.register(self._socket, select.POLLIN | writes)
        for descriptor, event in poll.poll():
            if descriptor == self._woken.fileno():
                self._woken.recv(4096)
            elif event & ~select.POLLOUT:
                data = self._socket.recv(CHUNK_BYTES)
                if not data:
                    return False
                self._received(data)
        if writes:
            self._outbox.flush()
        return True

    def _close_pair(self) -> None:
        for end in (self._woken, self._wake):
            end.close()


class LoopLink(Link):
    """One that belongs to an event loop: made, used and read in it."""

    def __init__(self, connection: socket.socket, secret: bytes) -> None:
        # Not the loop itself: it is the key of what holds this.
        self._loop = weakref.ref(asyncio.get_running_loop())
        self._descriptor = connection.fileno()
        self._is_writing = False
        super().__init__(connection, secret)
        weakref.finalize(self, connection.close)  # of a loop that ended without its links
        # In nobody's context: what goes again by Ray is no child of a task of the user's.
        contextvars.Context().run(asyncio.get_running_loop().add_reader, self._descriptor, self._readable)

    def _push(self) -> None:
        loop = self._loop()
        if loop is not None and not self._outbox.is_empty and not self._is_writing:
            self._is_writing = True
            contextvars.Context().run(loop.add_writer, self._descriptor, self._writable)

    def _push_later(self) -> None:
        loop = self._loop()
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._push)
        except RuntimeError:  # the loop is closed: nobody reads any more
            shut(self._socket)

    def _writable(self) -> None:
        loop = self._loop()
        if loop is not None and self._outbox.flush():
            self._is_writing = False
            loop.remove_writer(self._descriptor)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(CHUNK_BYTES)
            if data:
                self._received(data)
                return
        except BlockingIOError:
            return
        except (OSError, ValueError):
            pass
        self._end()

    def _end(self) -> None:
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._descriptor)
            loop.remove_writer(self._descriptor)
        self._ended()


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _begin_anew() -> None:
    global _links
    for link in list(_links):
        link.abandon()
    _links = weakref.WeakSet()


os.register_at_fork(after_in_child=_begin_anew)
