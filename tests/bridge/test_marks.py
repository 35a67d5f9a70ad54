"""What the bridge says that it has begun, in the memory that a host gives it for that."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.harness import BridgeProcess, CallFailed

WORDS = 8


@pytest.fixture
def marks() -> Iterator[tuple[Any, memoryview]]:
    """An attachment to a bridge that marks, and its words."""
    descriptor = os.memfd_create("snakepit-test-marks")
    os.ftruncate(descriptor, WORDS * 8)
    words = memoryview(mmap.mmap(descriptor, 0)).cast("Q")
    process = BridgeProcess("commands:Commands", inherited=(descriptor,), marks={"descriptor": descriptor})
    try:
        process.start()
        assert "marks" in process.ready["features"]
        stream = process.attach()
        yield stream, words
        stream.close()
    finally:
        process.stop()
        os.close(descriptor)


def test_a_word_says_how_many_calls_have_begun(marks: tuple[Any, memoryview]) -> None:
    stream, words = marks
    assert stream.result(stream.request("echo", {"value": 1}, mark=1)) == 1
    batch = stream.request(
        "echo", b'[{"value": 1}, {"value": 2}, {"nonsense": 3}]', mark=3, batch={"count": 3}
    )
    assert stream.reply(batch).items == 3
    assert stream.result(stream.request("echo", {"value": 2})) == 2
    assert list(words) == [1, 0, 3, 0, 0, 0, 0, 0]
    for nowhere in (WORDS + 1, 2**32 - 1):
        assert stream.result(stream.request("echo", {"value": 3}, mark=nowhere)) == 3
    with pytest.raises(CallFailed):
        stream.result(stream.request("nobody", mark=5))
    assert list(words) == [1, 0, 3, 0, 0, 0, 0, 0], "what is refused has not begun"


def test_what_waits_or_is_cancelled_before_it_begins_has_no_mark(marks: tuple[Any, memoryview]) -> None:
    stream, words = marks
    first = stream.request("wait_until_cancelled", mark=1)
    second = stream.request("echo", {"value": 2}, mark=2)
    third = stream.request("echo", {"value": 3}, mark=3)
    stream.cancel(third)
    with pytest.raises(CallFailed, match="CANCELLED"):
        stream.result(third)
    stream.until(lambda: words[0] == 1)
    assert list(words[:3]) == [1, 0, 0]
    stream.cancel(first)
    assert stream.result(second) == 2
    assert list(words[:3]) == [1, 1, 0]


def test_a_file_that_the_host_has_made_longer_is_mapped_anew() -> None:
    """Also one whose last word is not whole yet."""
    descriptor = os.memfd_create("snakepit-test-marks")
    os.ftruncate(descriptor, WORDS * 8 + 3)
    process = BridgeProcess("commands:Commands", inherited=(descriptor,), marks={"descriptor": descriptor})
    try:
        process.start()
        stream = process.attach()
        waits = stream.request("wait_until_cancelled", mark=2)
        stream.until(lambda: os.pread(descriptor, 8, 8) != bytes(8))
        os.ftruncate(descriptor, 1000 * WORDS * 8)
        words = memoryview(mmap.mmap(descriptor, 0)).cast("Q")
        stream.cancel(waits)
        for place in (WORDS, 1000 * WORDS - 1):
            assert stream.result(stream.request("echo", {"value": 1}, mark=place + 1)) == 1
            assert words[place] == 1
        assert stream.result(stream.request("echo", {"value": 1}, mark=1)) == 1
        assert (words[0], words[1]) == (1, 1)
        stream.close()
    finally:
        process.stop()
        os.close(descriptor)


# ---- capacity and recall -------------------------------------------------------------------------------


def test_no_more_than_capacity_begin_whether_async_or_not(marks: tuple[Any, memoryview]) -> None:
    stream, words = marks
    first = stream.request("sleep_until_cancelled", mark=1)
    others = [
        stream.request("async_add", {"a": 1, "b": 2}, mark=2),
        stream.request("echo", {"value": 3}, mark=3),
        stream.request("hidden_coroutine", mark=4),
        stream.request("async_add", {"a": 2, "b": 2}, mark=5),
    ]
    stream.until(lambda: words[0] == 1)
    stream.cancel(others[0])
    with pytest.raises(CallFailed, match="CANCELLED"):
        stream.result(others[0])
    assert list(words[:5]) == [1, 0, 0, 0, 0]
    stream.cancel(first)
    assert stream.result(others[3]) == 4
    assert list(words[:5]) == [1, 0, 1, 1, 1]
    assert list(stream.replies)[1:] == [first, *others[1:]], "in the order in which they came"
    assert stream.result(stream.request("echo", {"value": 5})) == 5, "the slot is free again"


def test_what_is_recalled_never_begins_and_what_has_begun_goes_on(marks: tuple[Any, memoryview]) -> None:
    stream, words = marks
    first = stream.request("wait_until_cancelled", {"ending": "value"}, mark=1)
    waits = stream.request("echo", {"value": 1}, mark=2)
    stream.until(lambda: words[0] == 1)
    for request in (first, waits, "nobody"):
        stream.cancel(request, pb.Cancel.RECALL)
    reply = stream.reply(waits)
    assert (reply.failure.kind, reply.ran_us) == (pb.Failure.CANCELLED, 0)
    stream.cancel(first)
    assert stream.result(first) == {"cancelled": True}
    assert list(words[:2]) == [1, 0]
    assert stream.result(stream.request("echo", {"value": 5})) == 5
