"""Frames on their way into a socket that does not block.

- A caller's thread writes what the socket takes, and never waits: what is left goes when the socket takes
  more. A frame that would make MOST_BYTES of that is not taken, unless it is one that must not be lost.
- What the garbage collector has to say goes `later`, without a lock: it may come in the midst of `put`.
- An interrupt (Ctrl-C) in the midst of it leaves no half of a frame unknown: what the socket took is written
  down by the same call of C code that sends, and each step between two of them can be done twice.
"""

from __future__ import annotations

import socket
import threading
from collections import deque

MOST_BYTES = 1024 * 1024  # that wait for the socket


class Outbox:
    """The frames of one connection. Threads may share it."""

    def __init__(self, connection: socket.socket) -> None:
        self.closed = False
        self._send = connection.send
        self._lock = threading.Lock()
        self._frames: deque[tuple[int, bytes]] = deque()  # each with its end, in bytes since the beginning
        self._late: deque[bytes] = deque()
        self._sent = [0]  # bytes that the socket took: their sum is the place of the next

    def put(self, frame: bytes, *, must: bool = False) -> bool:
        """Sends a frame, or as much of it as the socket takes now. False where it was not taken. `must`:
        it is taken whatever waits. For small ones, of which there are few for each request."""
        # A lock of C, in a `with`: no interrupt comes between taking it and giving it back.
        with self._lock:
            if self.closed or (self._left() > MOST_BYTES and not must):
                return False
            self._append(frame)
            self._flush()
        return True

    def later(self, frame: bytes) -> None:
        """A frame for the next `flush`. For any thread, in the midst of whatever it does."""
        self._late.append(frame)

    def flush(self) -> bool:
        """Sends what the socket takes now; whether nothing is left."""
        with self._lock:
            while self._late and not self.closed:
                self._append(self._late[0])
                self._late.popleft()
            self._flush()
            return self.is_empty

    def close(self) -> None:
        """Takes nothing any more."""
        with self._lock:
            self.closed = True
            self._frames.clear()
            self._late.clear()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits for the socket."""
        return not self._frames and not self._late

    def _append(self, frame: bytes) -> None:
        end = self._frames[-1][0] if self._frames else sum(self._sent)
        self._frames.append((end + len(frame), frame))

    def _left(self) -> int:
        return self._frames[-1][0] - sum(self._sent) if self._frames else 0

    def _flush(self) -> None:
        while self._frames:
            self._sent = [sum(self._sent)]
            end, frame = self._frames[0]
            left = end - self._sent[0]
            if left <= 0:
                self._frames.popleft()
                continue
            try:
                self._sent.extend(map(self._send, (memoryview(frame)[len(frame) - left :],)))
            except BlockingIOError:
                return
            except OSError:  # the other end is gone: whoever reads sees it
                return
