"""Knows where the bytes of a buffer are: in the message, or in a shared-memory segment.

Rule: a segment's bytes are copied out when they are asked for, so it can be released as soon as its payload
is decoded.
"""

from __future__ import annotations

import os

from snakepit_bridge.values import Refused


class Buffers:
    """The buffers of one payload by index."""

    __slots__ = ("_places",)

    def __init__(self, places) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> bytes:
        return read(self._places[index])


def segment_ids(places) -> list[str]:
    """The segments that some buffers are in, each once."""
    return list({place.segment.id: None for place in places if place.WhichOneof("place") == "segment"})


def read(place) -> bytes:
    """The bytes of one `Buffer` message."""
    if place.WhichOneof("place") != "segment":
        return place.inline
    segment = place.segment
    try:
        data = _read_range(segment.path, segment.offset, segment.size)
    except OSError as error:
        raise Refused(f"cannot decode the segment {segment.id!r}: {error}") from None
    if len(data) != segment.size:
        words = f"{segment.path} ends {segment.size - len(data)} bytes early"
        raise Refused(f"cannot decode the segment {segment.id!r}: {words}")
    return data


def _read_range(path: str, offset: int, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = min(size, max(0, os.fstat(descriptor).st_size - offset))  # before anything is allocated for it
        parts: list[bytes] = []
        while size > 0:
            part = os.pread(descriptor, size, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(descriptor)
