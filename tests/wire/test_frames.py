"""The framing: however the bytes are cut the same frames come out, and what is no frame is a typed error."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.wire import frames as host
from tests.bridge import harness  # puts the bridge on the path

from snakepit_bridge.server import framing as bridge  # isort: skip

assert harness
LIMIT = 1000
MUTATIONS = 2_000
FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8)
ENDS = pytest.mark.parametrize("end", [host, bridge], ids=["host", "bridge"])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces, cut at these places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def test_both_ends_have_the_same_code() -> None:
    assert Path(host.__file__).read_text() == Path(bridge.__file__).read_text()


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=20))
def test_any_cut_of_the_bytes_gives_the_same_frames(sent: list[tuple[int, bytes]], places: list[int]) -> None:
    for end in host, bridge:
        reader = end.FrameReader(LIMIT)
        data = b"".join(end.pack(kind, payload) for kind, payload in sent)
        assert [frame for part in cut(data, places) for frame in reader.feed(part)] == sent
        reader.end()


@ENDS
def test_one_byte_at_a_time(end: ModuleType) -> None:
    sent = [(1, b""), (2, b"x" * 300), (255, b"\0\1"), (0, b"")]
    data = b"".join(end.pack(kind, payload) for kind, payload in sent)
    reader = end.FrameReader(LIMIT)
    assert [frame for byte in data for frame in reader.feed(bytes([byte]))] == sent
    reader.end()


@ENDS
def test_a_payload_of_the_limit_is_taken_and_one_byte_more_is_not(end: ModuleType) -> None:
    assert end.FrameReader(LIMIT).feed(end.pack(1, bytes(LIMIT))) == [(1, bytes(LIMIT))]
    reader = end.FrameReader(LIMIT)
    with pytest.raises(end.FrameTooLong, match=r"kind 1 says 1,001 bytes, the limit is 1,000"):
        reader.feed(end.pack(1, bytes(LIMIT + 1))[:5])
    with pytest.raises(end.FrameTooLong):  # and nothing is read after it
        reader.feed(end.pack(1, b"fine"))


@ENDS
@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\x80\0\0\0", b"\x7f\xff\xff\xff"])
def test_huge_and_negative_lengths_are_refused_at_their_header(end: ModuleType, length: bytes) -> None:
    with pytest.raises(end.FrameTooLong):
        end.FrameReader(LIMIT).feed(b"\2" + length)


@ENDS
def test_a_stream_that_ends_in_a_frame_was_cut(end: ModuleType) -> None:
    for data, words in (b"\1\0", "2 bytes of 5"), (end.pack(1, b"four")[:-1], "1 bytes before the end"):
        reader = end.FrameReader(LIMIT)
        assert reader.feed(data) == []
        with pytest.raises(end.FrameCut, match=words):
            reader.end()


@ENDS
def test_what_cannot_be_sent_is_refused(end: ModuleType) -> None:
    with pytest.raises(end.FrameTooLong):
        end.header(1, end.LONGEST + 1)
    with pytest.raises(end.FrameTooLong):
        end.header(1, 2**40)


@given(st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=5))
def test_random_bytes_give_frames_or_a_typed_error_however_they_are_cut(
    data: bytes, places: list[int]
) -> None:
    for end in host, bridge:
        whole = outcome(end, [data])
        assert outcome(end, [bytes([byte]) for byte in data]).refused == whole.refused
        assert outcome(end, cut(data, places)).refused == whole.refused


class outcome:  # noqa: N801 - reads as a function
    """What a reader made of these parts: the frames, and whether it refused."""

    def __init__(self, end: ModuleType, parts: list[bytes]) -> None:
        reader = end.FrameReader(LIMIT)
        self.frames: list[tuple[int, bytes]] = []
        self.refused = False
        try:
            for part in parts:
                self.frames += reader.feed(part)
            reader.end()
        except end.FrameCut:
            pass
        except end.FrameTooLong:
            self.refused = True


def mutations(end: ModuleType, count: int, seed: int) -> None:
    chance = random.Random(seed)
    sent = [(chance.randrange(256), chance.randbytes(chance.randrange(60))) for _ in range(6)]
    whole = b"".join(end.pack(kind, payload) for kind, payload in sent)
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(data))
            what = chance.randrange(3)
            if what == 0:
                data[place] = chance.randrange(256)
            elif what == 1:
                del data[place : place + chance.randrange(1, 9)]
            else:
                data[place:place] = chance.randbytes(chance.randrange(1, 9))
        parts = cut(bytes(data), [chance.randrange(1000) for _ in range(4)])
        found = outcome(end, parts)
        assert all(len(payload) <= LIMIT for _, payload in found.frames)
        assert sum(5 + len(payload) for _, payload in found.frames) <= len(data)


@ENDS
def test_mutated_streams_give_frames_or_a_typed_error(end: ModuleType) -> None:
    mutations(end, MUTATIONS, 1)


@pytest.mark.slow
@ENDS
def test_many_mutated_streams_give_frames_or_a_typed_error(end: ModuleType) -> None:
    for seed in range(10):
        mutations(end, MUTATIONS, seed)
