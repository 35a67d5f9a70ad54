"""The writer of frames: each answer leaves once and in order, whoever writes and whatever stops it."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from snakepit_ray.wire._pb import interpreter_pb2 as host_pb
from snakepit_ray.wire.frames import LONGEST, FrameReader
from tests.bridge import harness  # puts the bridge on the path

from snakepit_bridge.server import writer as module  # isort: skip
from snakepit_bridge.server.answers import LEAVING, Answer  # isort: skip
from snakepit_bridge.server.writer import Writer  # isort: skip

assert harness


class Late(Exception):
    """What a signal handler raises."""


@contextmanager
def connected() -> Iterator[tuple[Writer, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    one = Writer(ours)
    one.start()
    try:
        yield one, theirs
    finally:
        one.abort()
        one.join(10)
        ours.close()
        theirs.close()


def answer(number: int, size: int = 1) -> Answer:
    return Answer(str(number), (b'"' + b"x" * size + b'"', ()), 5)


def give(one: Writer, item: Answer) -> None:
    """As a command's thread does."""
    one.queue(item)
    one.write()


def received(theirs: socket.socket, count: int) -> list[str]:
    """The ids of the next `count` replies."""
    reader, ids = FrameReader(LONGEST), []
    while len(ids) < count:
        data = theirs.recv(65536)
        assert data, f"it ended after {ids}"
        for kind, payload in reader.feed(data):
            assert kind == module.FROM_INTERPRETER
            ids += [reply.id for reply in host_pb.FromInterpreter.FromString(payload).replies]
    return ids


def steps_of(work: Any, stop_at: int) -> int:
    """Runs `work` and raises Late at one step of the writer; how many steps there were before that."""
    steps = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal steps
        if frame.f_code.co_filename != module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            steps += 1
            if steps == stop_at:
                raise Late
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


def test_an_exception_at_any_step_of_a_write_loses_and_repeats_nothing() -> None:
    """An alarm of the user's that comes late, or a timeout that is raised in a command's thread."""
    with connected() as (one, theirs):
        whole = steps_of(lambda: give(one, answer(0)), 0)
        assert received(theirs, 1) == ["0"]
        assert whole > 20
        for step in range(1, whole + 1):
            one.queue(answer(2 * step))
            try:
                steps_of(one.write, step)
            except Late:
                one.recover()
            give(one, answer(2 * step + 1))
            assert received(theirs, 2) == [str(2 * step), str(2 * step + 1)], step


def test_a_socket_that_is_full_keeps_no_command_and_loses_nothing() -> None:
    with connected() as (one, theirs):
        for number in range(50):
            give(one, answer(number, 50_000))  # nobody reads: this thread would wait for ever
        assert received(theirs, 50) == [str(number) for number in range(50)]


def test_many_threads_write_whole_frames() -> None:
    with connected() as (one, theirs):

        def work(thread: int) -> None:
            for number in range(200):
                give(one, answer(thread * 1000 + number))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        ids = received(theirs, 800)
        for thread in threads:
            thread.join(10)
        for number in range(4):  # those of one thread keep their order
            own = [int(id) for id in ids if int(id) // 1000 == number]
            assert own == [number * 1000 + place for place in range(200)]


def test_what_was_put_goes_before_what_follows() -> None:
    """`leaving` is said before anything is refused."""
    with connected() as (one, theirs):
        one.put(LEAVING)
        give(one, answer(1))
        reader, messages = FrameReader(LONGEST), []
        while not any(message.replies for message in messages):
            for _, payload in reader.feed(theirs.recv(65536)):
                messages.append(host_pb.FromInterpreter.FromString(payload))
        assert messages[0].leaving


def test_a_host_that_is_gone_ends_the_writer() -> None:
    with connected() as (one, theirs):
        theirs.close()
        give(one, answer(1))
        one.join(10)
        assert one.is_closed
        give(one, answer(2))  # and nothing gathers
        assert not one._items


def test_an_answer_that_cannot_be_written_is_a_failure_in_its_place() -> None:
    with connected() as (one, theirs):
        give(one, Answer("bad", (5, []), 7))
        give(one, answer(2))
        assert received(theirs, 2) == ["bad", "2"]
