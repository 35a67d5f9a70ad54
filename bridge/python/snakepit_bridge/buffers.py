"""Where the bytes of a buffer are: in the message, or in the memory that is shared with the host.

- What lies in the shared memory is looked at there.
- Only what must be `bytes` is copied out.
"""

from __future__ import annotations

from snakepit_bridge.values import Refused


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


def as_bytes(buffer) -> bytes:
    """Its bytes; itself where it is bytes."""
    return buffer if type(buffer) is bytes else bytes(buffer)


def segment_ids(places) -> list[str]:
    """The segments that some buffers are in, each once."""
    return list({place.segment.id: None for place in places if place.WhichOneof("place") == "segment"})
