"""What goes to the host as frames on a socket: by the thread that has it, or by a thread of its own.

Rules:
- Order is the order in which items are put.
- A command's thread writes its own reply, and with it what other commands have ready, if nobody else writes:
  waking a thread for it costs more than the write. It never waits for the host. What the socket does not take
  at once is the writing thread's.
- Streams, and whatever else is put, are written by the writing thread: `fill` of a stream takes its lock.
- An exception that another thread or a signal handler raises may stop a command's thread between any two
  steps here. So each step that counts is one call into C or can be repeated, what was sent is noted at what
  is sent, and the lock knows its thread: `recover` frees it, and the writing thread goes on where the other
  one stopped.
"""

from __future__ import annotations

import _socket as socket  # frames.py says why
import contextlib
import sys
import threading
from collections import deque
from queue import SimpleQueue

from snakepit_bridge._pb import interpreter_pb2 as pb
from snakepit_bridge.lifeline import forks
from snakepit_bridge.server.answers import Answer
from snakepit_bridge.server.framing import pack
from snakepit_bridge.server.outgoing import FRAME_SIZE, fill

FROM_INTERPRETER = 4  # the kind of a frame that holds a message


class Part:
    """Bytes on their way: frames, and how much of them each `send` has taken."""

    __slots__ = ("data", "sent")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sent: list = []

    def rest(self):
        """What is still to be sent."""
        return self.data if not self.sent else memoryview(self.data)[sum(self.sent) :]


_END = Part(b"")


class Writer:
    """Writes to one connected socket."""

    def __init__(self, connection) -> None:
        self.epoch = None  # of the host: it goes into each reply
        self.is_closed = False  # nothing is written any more
        self._socket = connection
        self._items: deque = deque()
        self.queue = self._items.append  # one call into C; `write` follows
        self._lock = threading.RLock()
        self._wake: SimpleQueue = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="snakepit-writer", daemon=True)

    def start(self) -> None:
        """Starts the writing thread. Raises RuntimeError where there is none left."""
        self._thread.start()

    def put(self, item) -> None:
        """Has the writing thread write it."""
        if self.is_closed:
            return
        self._items.append(item)
        self._wake.put(None)

    def write(self) -> None:
        """Writes what waits in this thread, unless another one writes: then that does. Never waits."""
        lock, items = self._lock, self._items
        if forks.is_child or self.is_closed:
            items.clear()
            return
        while items and lock.acquire(False):
            try:
                if not self._push():
                    self._wake.put(None)
                    return
            finally:
                lock.release()

    def recover(self) -> None:
        """An exception has come while this thread wrote: the writing thread goes on."""
        while self._lock._is_owned():
            self._lock.release()
        self._wake.put(None)

    def close(self) -> None:
        """Ends the connection after what was put. Safe to repeat."""
        self.put(_END)

    def abort(self) -> None:
        """Ends the connection now: what the host has not taken is lost. Safe to repeat."""
        self.is_closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # who reads, and who writes, comes to the end
        self._wake.put(None)

    def detach(self) -> int:
        """The descriptor, when nobody writes to it any more."""
        with self._lock:
            return self._socket.detach()

    def join(self, seconds: float) -> None:
        """Waits for the end of the writing thread, if it was started."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    # ---- with the lock held ------------------------------------------------------------------------------

    def _push(self) -> bool:
        """Sends answers without waiting; False when something is left for the writing thread."""
        items = self._items
        try:
            while items:
                head = items[0]
                if type(head) is Answer:
                    items[0] = head = self._written(head)
                elif type(head) is not Part or head is _END or self.is_closed:
                    return False
                left = head.rest()
                if left:
                    head.sent.extend(map(self._socket.send, (left,), (socket.MSG_DONTWAIT,)))
                else:
                    items.popleft()
        except Exception:  # noqa: BLE001 - a full socket, a host that is gone, an answer that cannot be written
            return False  # the writing thread meets it, too, and does what is to be done
        return True

    def _written(self, answer: Answer) -> Part:
        frame = pb.FromInterpreter()
        answer.fill(frame, self.epoch)
        return Part(pack(FROM_INTERPRETER, frame.SerializeToString()))

    def _work(self) -> None:
        while not self.is_closed:
            self._wake.get()
            while self._items and not self.is_closed:
                with self._lock:
                    self._write_all()
        with self._lock:
            self._items.clear()

    def _write_all(self) -> None:
        items = self._items
        try:
            while items:
                part = items[0]
                if part is _END:
                    self.abort()
                    return
                if type(part) is not Part:
                    part = self._gathered()
                    items.appendleft(part)
                self._socket.sendall(part.rest())
                items.popleft()
        except OSError:  # the host is gone: whoever reads hears of it, too
            self.abort()
        except Exception as error:  # noqa: BLE001 - a message that cannot be written: more than 2 GiB, say
            if not self.is_closed:
                print(f"snakepit_bridge: a message cannot be sent: {error!r}", file=sys.stderr)
            self.abort()

    def _gathered(self) -> Part:
        """What waits from here on, as one message."""
        items, frame, size = self._items, pb.FromInterpreter(), 0
        while items and type(items[0]) is not Part and size < FRAME_SIZE:
            size += fill(frame, items.popleft(), self.epoch)
        return Part(pack(FROM_INTERPRETER, frame.SerializeToString()))
