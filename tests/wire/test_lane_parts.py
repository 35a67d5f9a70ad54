"""What a stream says over a lane: the chunks arrive as they would by Ray, whatever their sizes."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.wire import frames, lane, lane_parts
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire._pb import lane_pb2
from snakepit_ray.wire.codec import Part, Piece, encode_value
from tests.wire.test_lane import INFO, json_values, vars_of

REQUEST = pb.Request(id="r-1", command="rows")
THRESHOLD = 100
sizes = st.sampled_from(
    [1, 10, 1000, lane.LARGEST // 3, lane.LARGEST, lane_parts.MOST_BYTES, 2 * lane.LARGEST]
)
shapes = st.tuples(sizes, st.lists(st.sampled_from([0, 1, THRESHOLD, THRESHOLD + 1]), max_size=3))


def message_of(frame: bytes, kind: int = lane.PART) -> Any:
    ((came, payload),) = frames.FrameReader(lane.FRAME_LIMIT).feed(frame)
    assert came == kind
    return lane.parsed(lane_pb2.LaneChunks if kind == lane.PART else lane_pb2.LaneTaken, payload)


def carried(part: Part) -> Part:
    return lane_parts.part_of(message_of(lane_parts.chunks(REQUEST.id, part)), REQUEST)


@given(st.lists(json_values, min_size=1, max_size=5), st.booleans(), st.booleans())
def test_chunks_are_those_that_ray_would_bring(values: list[Any], packed: bool, with_info: bool) -> None:
    if packed:
        pieces = [Piece(encode_value(values, root="chunks").json, (), len(values))]
    else:
        pieces = [Piece(*encode_value(value, root="chunk")[:2]) for value in values]
    part = Part(pieces, INFO if with_info else None, "", "rows")
    came, by_ray = list(carried(part).values()), list(pickle.loads(pickle.dumps(part)).values())
    if with_info:
        assert {reply.way for reply in came} == {"lane"}
        came, by_ray = [{**vars_of(one), "way": ""} for one in came], [vars_of(one) for one in by_ray]
        by_ray = [{**one, "way": ""} for one in by_ray]
    assert came == by_ray


def test_arrays_are_those_that_ray_would_bring() -> None:
    numpy = pytest.importorskip("numpy")
    chunk = encode_value({"a": numpy.arange(7)}, root="chunk")
    (value,) = carried(Part([Piece(chunk.json, chunk.buffers)])).values()
    assert value["a"].tolist() == list(range(7))


@given(st.lists(shapes, max_size=6))
def test_a_part_is_divided_into_frames_and_loses_nothing(shapes: list[tuple[int, list[int]]]) -> None:
    pieces = [Piece(b"x" * size, [b"y" * more for more in buffers], 0) for size, buffers in shapes]
    divided = list(lane_parts.divided(Part(pieces, INFO, "runtime", "rows"), THRESHOLD))
    assert [piece for part, _ in divided for piece in part.pieces] == pieces
    for part, fits in divided:
        assert (part.info, part.runtime, part.command) == (INFO, "runtime", "rows")
        large = [
            piece
            for piece in part.pieces
            if piece.size > lane_parts.MOST_BYTES or any(len(one) > THRESHOLD for one in piece.buffers)
        ]
        assert part.pieces == large if not fits else not large
        if fits:  # the longest id that a request has
            message_of(lane_parts.chunks("i" * 1024, part))


def test_packs_of_small_chunks_are_never_too_large() -> None:
    """An interpreter ends a pack when it has LARGEST bytes: the last chunk is beyond it."""
    pack = Piece(b"x" * (lane.LARGEST + 10_000), (), 200)
    assert [fits for _, fits in lane_parts.divided(Part([pack, pack]), THRESHOLD)] == [True, True]


@given(st.text(max_size=50), st.integers(0, 2**32 - 1))
def test_what_was_taken_arrives(name: str, parts: int) -> None:
    message = message_of(lane_parts.taken(name, parts), lane.TAKEN)
    assert (message.id, message.parts) == (name, parts)


def test_what_is_kept_says_its_name_alone() -> None:
    message = message_of(lane_parts.kept("r-1", "r-1#0"))
    assert (message.id, message.kept, len(message.pieces)) == ("r-1", "r-1#0", 0)


@given(st.binary(max_size=200))
def test_a_payload_that_is_no_part_is_a_value_error(payload: bytes) -> None:
    for kind in (lane_pb2.LaneChunks, lane_pb2.LaneTaken):
        with contextlib.suppress(ValueError):
            assert isinstance(lane.parsed(kind, payload), kind)


def test_the_end_of_a_stream_is_an_answer_without_an_error() -> None:
    answer = lane.parsed(lane_pb2.LaneAnswer, lane.ended("r-1"))
    assert (answer.id, answer.WhichOneof("outcome"), lane.error_of(answer)) == ("r-1", "ended", None)
