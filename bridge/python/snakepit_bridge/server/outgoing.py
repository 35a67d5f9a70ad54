"""What an attachment has for its host, on its way to a transport: items that are written into messages.

- An item has `fill(frame, epoch)`, which adds it to a message, and `spoil`, for one that cannot be written.
- What waits together goes out as one message.
- `put` may be called anywhere, also by the garbage collector: it only queues.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue

from snakepit_bridge._pb import interpreter_pb2 as pb

# a message that holds so much goes out as it is: the limit of a message is for single payloads
FRAME_SIZE = 256 * 1024
_END = object()
_NOTHING = object()


class Queued:
    """For a transport that takes messages from an iterator: gRPC."""

    def __init__(self) -> None:
        self.epoch = None  # of the host: it goes into each reply
        self._items: SimpleQueue = SimpleQueue()
        self.put = self.queue = self._items.put

    def write(self) -> None:
        """gRPC's thread writes."""

    def recover(self) -> None:
        """Nothing is left half done here."""

    def close(self) -> None:
        """Ends `frames` after what was put. Safe to repeat."""
        self.put(_END)

    def frames(self):
        """The messages to send, until it is closed."""
        take, more = self._items.get, self._items.get_nowait
        item = take()
        while item is not _END:
            frame = pb.FromInterpreter()
            size = 0
            while item is not _END and item is not _NOTHING:
                size += fill(frame, item, self.epoch)
                try:
                    item = more() if size < FRAME_SIZE else _NOTHING
                except Empty:
                    item = _NOTHING
            yield frame
            if item is _NOTHING:
                item = take()


def fill(frame: pb.FromInterpreter, item, epoch) -> int:
    """Adds `item` to `frame`; about how many bytes that was. One that cannot be written ends alone, with a
    failure in its place.
    """
    counts = [(field, len(field)) for field in (frame.replies, frame.host_calls, frame.chunks)]
    try:
        return item.fill(frame, epoch)
    except Exception as error:  # noqa: BLE001 - protobuf refuses what is no text, or too large
        for field, count in counts:
            del field[count:]
        return item.spoil(error, frame, epoch)
