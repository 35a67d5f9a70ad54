"""What the bridge says that it has begun, in the memory that a host gives it for that."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest

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
        assert process.ready["marks"] is True
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
