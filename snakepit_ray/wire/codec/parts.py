"""How several chunks of a stream cross Ray in one object.

- The worker actor never decodes them.
- A part unpickles as itself, and its reader decodes.
- A chunk that cannot be decoded raises in its place, after those before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from snakepit_ray.wire.codec.decoding import decode_value, decode_values
from snakepit_ray.wire.codec.encoding import nbytes
from snakepit_ray.wire.codec.envelope import Envelope, Info, portable_buffers


class Piece(NamedTuple):
    """One chunk, or with `packed` the JSON array of that many."""

    json: bytes
    buffers: Sequence[Any] = ()
    packed: int = 0

    @property
    def chunks(self) -> int:
        """How many chunks these are."""
        return self.packed or 1

    @property
    def size(self) -> int:
        """Bytes of their JSON and buffers, without the brackets and commas of a pack."""
        if self.packed:
            return len(self.json) - self.packed - 1
        return len(self.json) + sum(map(nbytes, self.buffers))


class Part:
    """Chunks of one stream that follow each other."""

    __slots__ = ("command", "info", "pieces", "runtime")

    def __init__(
        self, pieces: Sequence[Piece], info: Info | None = None, runtime: str = "", command: str = ""
    ) -> None:
        self.pieces = pieces
        self.info = info
        self.runtime = runtime
        self.command = command

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        pieces = [(p.json, portable_buffers(p.buffers, protocol), p.packed) for p in self.pieces]
        return _part, (pieces, self.info, self.runtime, self.command)

    def values(self) -> Iterator[Any]:
        """The decoded values in order. Raises EncodingError, or what a Runtime's process_response raises."""
        finished = Envelope(b"", (), self.info, self.runtime, self.command).finished
        for piece in self.pieces:
            if not piece.packed:
                yield finished(decode_value(piece.json, piece.buffers, "chunk"))
                continue
            values, unreadable = decode_values(piece.json, (), piece.packed, "chunks")
            if not unreadable and self.info is None and not self.runtime:
                yield from values
                continue
            for index, value in enumerate(values):
                if index in unreadable:
                    raise unreadable[index]
                yield finished(value)


def _part(pieces: list[tuple[bytes, Any, int]], info: Info | None, runtime: str, command: str) -> Part:
    return Part([Piece(*piece) for piece in pieces], info, runtime, command)
