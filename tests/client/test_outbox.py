"""What goes into an outbox comes out of the socket whole and in order, whatever interrupts it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.client import outbox as outboxes
from snakepit_ray.client.outbox import Outbox


class Socket:
    """Takes as many bytes of each send as it is told. 0: it would block. "interrupt": Ctrl-C."""

    def __init__(self, takes: list[Any]) -> None:
        self.takes = takes
        self.came = b""

    def send(self, data: Any) -> int:
        take = self.takes.pop(0) if self.takes else len(data)
        if take == "interrupt":
            raise KeyboardInterrupt
        if take == 0:
            raise BlockingIOError
        self.came += bytes(data[:take])
        return min(take, len(data))


@given(
    st.lists(st.binary(min_size=1, max_size=20), max_size=20),
    st.lists(st.just("interrupt") | st.integers(0, 30), max_size=60),
)
def test_frames_arrive_whole_and_in_order(frames: list[bytes], takes: list[Any]) -> None:
    socket = Socket(takes)
    outbox: Any = Outbox(socket)  # type: ignore[arg-type]
    for frame in frames:
        try:
            assert outbox.put(frame)
        except KeyboardInterrupt:
            continue
    while not outbox.is_empty or socket.takes:
        try:
            outbox.flush()
        except KeyboardInterrupt:
            continue
        if outbox.is_empty:
            break
    assert socket.came == b"".join(frames)


def test_what_does_not_fit_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "MOST_BYTES", 10)
    socket = Socket([0, 0, 0, 0])
    outbox: Any = Outbox(socket)  # type: ignore[arg-type]
    assert outbox.put(b"x" * 11)
    assert not outbox.put(b"y")
    assert not outbox.flush() and not outbox.flush() and not outbox.flush()
    assert outbox.flush()
    assert outbox.put(b"y")
    assert socket.came == b"x" * 11 + b"y"


def test_what_must_go_is_taken_whatever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "MOST_BYTES", 10)
    socket = Socket([0, 0])
    outbox: Any = Outbox(socket)  # type: ignore[arg-type]
    assert outbox.put(b"x" * 11)
    assert outbox.put(b"y", must=True)
    assert outbox.flush()
    assert socket.came == b"x" * 11 + b"y"


def test_what_comes_later_goes_with_the_next_flush() -> None:
    """It waits for no lock: whoever says it may hold that already."""
    socket = Socket([0])
    outbox: Any = Outbox(socket)  # type: ignore[arg-type]
    with outbox._lock:
        outbox.later(b"y")
    assert not outbox.is_empty
    assert outbox.put(b"x")
    assert not socket.came
    assert outbox.flush() and outbox.is_empty
    assert socket.came == b"xy"
    outbox.later(b"z")
    outbox.close()
    assert outbox.is_empty


def test_a_closed_one_takes_nothing() -> None:
    socket = Socket([0])
    outbox: Any = Outbox(socket)  # type: ignore[arg-type]
    outbox.put(b"x")
    outbox.close()
    assert not outbox.put(b"y")
    assert outbox.is_empty and not socket.came


def test_threads_do_not_mix_their_frames() -> None:
    socket = Socket([3, 0] * 2000)
    outbox: Any = Outbox(socket)  # type: ignore[arg-type]

    def send(letter: bytes) -> None:
        for _ in range(200):
            outbox.put(letter * 7)

    threads = [threading.Thread(target=send, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while not outbox.flush():
        pass
    pieces = [socket.came[at : at + 7] for at in range(0, len(socket.came), 7)]
    assert sorted(pieces) == sorted([b"a" * 7] * 200 + [b"b" * 7] * 200 + [b"c" * 7] * 200)
