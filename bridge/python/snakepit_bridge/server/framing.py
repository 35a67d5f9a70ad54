"""How messages are told apart on a byte stream: each is a frame of a kind, a length and a payload.

- Pure: bytes in, frames out. No socket, no thread and no event loop here.
- The same frames come out however the bytes were cut on their way.
- A length is checked before anything of its payload is kept. Memory is taken for what has arrived, not for
  what a header promises.
- After a violation nothing more is read: where the next frame begins is not known any more.

The format, and what the kinds mean between a worker and its interpreter: bridge/README.md section 3.
"""

from __future__ import annotations

import struct

HEADER = struct.Struct(">BI")  # the kind, and the bytes of the payload behind it; big-endian
LONGEST = 2**31 - 1  # bytes: a protobuf message cannot be longer


class FrameError(Exception):
    """The bytes are no frames. The text says what was read, and what is allowed."""


class FrameTooLong(FrameError):
    """A frame says that it is longer than the limit."""


class FrameCut(FrameError):
    """The stream ended in the midst of a frame."""


def pack(kind: int, payload: bytes) -> bytes:
    """One frame.

    Args:
        kind: what the payload is, 0 to 255.
        payload: at most LONGEST bytes.

    Raises FrameTooLong."""
    if len(payload) > LONGEST:
        raise _too_long(len(payload))
    return HEADER.pack(kind, len(payload)) + payload


def header(kind: int, size: int) -> bytes:
    """What stands before a payload of `size` bytes, for a sender that does not want to copy it. Raises
    FrameTooLong."""
    if size > LONGEST:
        raise _too_long(size)
    return HEADER.pack(kind, size)


def _too_long(size: int) -> FrameTooLong:
    return FrameTooLong(f"a frame of {size:,} bytes cannot be sent, at most {LONGEST:,} can")


class FrameReader:
    """Takes bytes as they arrive and gives the frames that are complete."""

    __slots__ = ("_broken", "_kind", "_left", "_parts", "_start", "limit")

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of the longest payload that is taken. It may be set between two calls of `feed`."""
        self.limit = limit
        self._start = b""  # of a header that is not complete
        self._kind = 0
        self._left = 0  # bytes that the payload in `_parts` lacks; 0: between two frames
        self._parts: list[bytes] = []
        self._broken: FrameError | None = None

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames, (kind, payload), that `data` completes.

        Raises FrameTooLong for a frame that is longer than the limit, now and in every later call. Frames
        before it, in the same call, are not given: a peer that breaks the rules is not believed."""
        if self._broken is not None:
            raise self._broken
        frames: list[tuple[int, bytes]] = []
        at = self._go_on(data, frames) if self._left else 0
        if self._start:
            data, at = self._start + data[at:], 0
            self._start = b""
        end = len(data)
        while end - at >= HEADER.size:
            kind, size = HEADER.unpack_from(data, at)
            if size > self.limit:
                raise self._refused(kind, size)
            begin = at + HEADER.size
            at = begin + size
            if at > end:
                self._kind, self._left, self._parts = kind, at - end, [data[begin:]]
                return frames
            frames.append((kind, data[begin:at]))
        self._start = data[at:]
        return frames

    def end(self) -> None:
        """The stream has ended. Raises FrameCut in the midst of a frame."""
        if self._left:
            raise FrameCut(f"the stream ended {self._left:,} bytes before the end of a frame")
        if self._start:
            raise FrameCut(f"the stream ended in a frame's header, {len(self._start)} bytes of {HEADER.size}")

    def _go_on(self, data: bytes, frames: list[tuple[int, bytes]]) -> int:
        """Adds to the payload that was begun; how many bytes of `data` belong to it."""
        part = data[: self._left]
        self._parts.append(part)
        self._left -= len(part)
        if not self._left:
            frames.append((self._kind, b"".join(self._parts)))
            self._parts = []
        return len(part)

    def _refused(self, kind: int, size: int) -> FrameError:
        self._broken = FrameTooLong(
            f"a frame of kind {kind} says {size:,} bytes, the limit is {self.limit:,}"
        )
        return self._broken
