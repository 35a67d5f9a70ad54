"""Payload messages: their JSON, and where the bytes of their buffers are, in the message or in shared memory.

- What lies in the shared memory is looked at there.
- Only what must be `bytes` is copied out.
"""

from __future__ import annotations

from snakepit_bridge.values.decoding import decode
from snakepit_bridge.values.failures import InvalidArguments
from snakepit_bridge.values.tags import Refused, as_bytes


class Placed:
    """A buffer of a result, in a range of the memory."""

    __slots__ = ("id", "offset", "size")

    def __init__(self, id: str, offset: int, size: int) -> None:
        self.id = id
        self.offset = offset
        self.size = size

    def __len__(self) -> int:
        return self.size


class Buffers:
    """The buffers of one payload by index. `arena` has the segments, and `release(id)` is told when one of
    them is not looked at any more.
    """

    __slots__ = ("_arena", "_places", "_release", "_views")

    def __init__(self, places, arena=None, release=None) -> None:
        self._places = places
        self._arena = arena
        self._release = release
        self._views: dict = {}  # a segment is not released between two looks of the same decoding

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int):
        place = self._places[index]
        kind = place.WhichOneof("place")
        if kind == "inline":
            return place.inline
        if kind == "segment" and self._arena is not None:
            if index not in self._views:
                self._views[index] = self._arena.view(place.segment, self._release)
            return self._views[index]
        raise Refused(f"cannot decode buffer {index}: it is {kind or 'nowhere'}, not in the message")


def segment_ids(places) -> list[str]:
    """The segments that some buffers are in, each once."""
    return list({place.segment.id: None for place in places if place.WhichOneof("place") == "segment"})


def fill_payload(message, payload) -> int:
    """Writes (JSON, buffers) into a Payload message; how many bytes of it that was."""
    data, buffers = payload
    message.json = data
    size = len(data)
    for buffer in buffers:
        if type(buffer) is Placed:
            segment = message.buffers.add().segment
            segment.id, segment.offset, segment.size = buffer.id, buffer.offset, buffer.size
            size += 64
        else:
            message.buffers.add(inline=as_bytes(buffer))
            size += len(buffer)
    return size + 64


def arguments(request, look) -> dict:
    """The keyword arguments of a request; `look(places)` gives the Buffers of a payload. Raises
    InvalidArguments.
    """
    payload = request.args
    args = decode(payload.json, look(payload.buffers)) if payload.json else {}
    for ref in request.refs:
        root = f"args[{ref.name!r}]" if ref.name else "args"
        value = decode(ref.value.json, look(ref.value.buffers), root=root)
        if ref.name:
            args[ref.name] = value
        else:
            args = value
    if type(args) is not dict:
        raise InvalidArguments(
            f"{request.command}: the arguments must be an object, got {type(args).__name__}"
        )
    return args
