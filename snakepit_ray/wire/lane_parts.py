"""What a stream says over a lane before its answer: its chunks, as parts, and how many of them were taken.

- A chunk is not decoded on its way.
- A part is divided, between its pieces, into frames that a lane takes. A piece that is too large for any, or
  has a buffer above the threshold, is a part by itself, which Ray fetches.
- AHEAD_PARTS bounds what is under way: the worker sends that many parts, and one more for each that its
  caller has taken.
"""

from __future__ import annotations

from collections.abc import Iterator

from snakepit_ray.wire import frames
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire._pb import lane_pb2
from snakepit_ray.wire.codec import Part, Piece, nbytes
from snakepit_ray.wire.lane import LARGEST, MARGIN, PART, TAKEN, info_message, info_of

AHEAD_PARTS = 4
# Bytes of a part. An interpreter's pack of small chunks has up to LARGEST, and the last chunk beyond it.
MOST_BYTES = LARGEST + MARGIN // 2


def divided(part: Part, threshold: int) -> Iterator[tuple[Part, bool]]:
    """The parts that `part` goes as, in order, and whether each goes by the lane. `threshold`: bytes of the
    largest buffer that does."""
    pieces: list[Piece] = []
    size = 0
    for piece in part.pieces:
        fits, more = _fits(piece, threshold), len(piece.json) + sum(map(nbytes, piece.buffers))
        if pieces and (not fits or size + more > MOST_BYTES):
            yield _part_of(part, pieces), True
            pieces, size = [], 0
        if fits:
            pieces.append(piece)
            size += more
        else:
            yield _part_of(part, [piece]), False
    if pieces:
        yield _part_of(part, pieces), True


def _fits(piece: Piece, threshold: int) -> bool:
    sizes = [nbytes(buffer) for buffer in piece.buffers]
    return len(piece.json) + sum(sizes) <= MOST_BYTES and all(size <= threshold for size in sizes)


def _part_of(whole: Part, pieces: list[Piece]) -> Part:
    return Part(pieces, whole.info, whole.runtime, whole.command)


def chunks(request_id: str, part: Part) -> bytes:
    """The frame of a part."""
    pieces = [
        lane_pb2.LanePiece(json=piece.json, buffers=map(bytes, piece.buffers), packed=piece.packed)
        for piece in part.pieces
    ]
    return _frame(lane_pb2.LaneChunks(id=request_id, pieces=pieces, info=info_message(part.info)))


def kept(request_id: str, name: str) -> bytes:
    """The frame in the place of a part that Ray fetches, by that name."""
    return _frame(lane_pb2.LaneChunks(id=request_id, kept=name))


def _frame(message: lane_pb2.LaneChunks) -> bytes:
    return frames.pack(PART, message.SerializeToString())


def part_of(message: lane_pb2.LaneChunks, request: pb.Request) -> Part:
    """The part of a frame that answers `request`: as unpickling makes one of what comes by Ray."""
    pieces = [Piece(piece.json, list(piece.buffers), piece.packed) for piece in message.pieces]
    return Part(pieces, info_of(message), request.options.runtime, request.command)


def taken(request_id: str, parts: int) -> bytes:
    """The frame that says that so many more parts were taken."""
    return frames.pack(TAKEN, lane_pb2.LaneTaken(id=request_id, parts=parts).SerializeToString())
