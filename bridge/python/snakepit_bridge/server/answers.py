"""How the outcome of a request is written into a frame.

- The thread that sends writes, so that bytes are copied once.
"""

from __future__ import annotations

import os

from snakepit_bridge import PROTOCOL
from snakepit_bridge._pb import interpreter_pb2 as pb
from snakepit_bridge.adapter import batches
from snakepit_bridge.server.outgoing import FRAME_SIZE
from snakepit_bridge.server.payloads import fill_payload
from snakepit_bridge.values.encoding import encode
from snakepit_bridge.values.failures import INTERNAL, Failure, clean, printable


class Answer:
    """A Reply on its way out; written into its frame by the thread that sends, so that its bytes are copied
    once.
    """

    __slots__ = ("id", "outcome", "ran_us")

    def __init__(self, id: str, outcome, ran_us: int) -> None:
        self.id = id
        self.outcome = outcome
        self.ran_us = ran_us

    def fill(self, frame: pb.FromInterpreter, epoch) -> int:
        """Adds the reply to `frame`; about how many bytes that was."""
        reply = frame.replies.add(id=self.id, ran_us=self.ran_us)
        if epoch is not None:
            reply.epoch.CopyFrom(epoch)
        if type(self.outcome) is tuple:
            return fill_payload(reply.value, self.outcome)
        if type(self.outcome) is int:
            reply.end.SetInParent()  # a stream of no chunks has an end, too
            reply.end.chunks = self.outcome
            return 64
        if type(self.outcome) is batches.Results:
            return _fill_results(reply, self.outcome)
        return _fill_failure(reply.failure, self.outcome)

    def spoil(self, error: BaseException, frame: pb.FromInterpreter, epoch) -> int:
        """`fill` failed: adds a failure that says so in place of the reply."""
        words = f"the answer cannot be written: {type(error).__name__}: {printable(error)}"
        return Answer(self.id, Failure(INTERNAL, type(error).__name__, words), self.ran_us).fill(frame, epoch)


class Released:
    """The id of a segment that nothing uses any more."""

    __slots__ = ("id",)

    def __init__(self, id: str) -> None:
        self.id = id

    def fill(self, frame: pb.FromInterpreter, epoch) -> int:
        """Adds the id to `frame`."""
        frame.released.append(self.id)
        return len(self.id)

    def spoil(self, error: BaseException, frame: pb.FromInterpreter, epoch) -> int:
        """Raises `error`: an id came from the host, so it can be written."""
        raise error


class Leaving:
    """This interpreter begins nothing any more."""

    __slots__ = ()

    def fill(self, frame: pb.FromInterpreter, epoch) -> int:
        """Says so in `frame`."""
        frame.leaving = True
        return 2

    def spoil(self, error: BaseException, frame: pb.FromInterpreter, epoch) -> int:
        """Raises `error`: nothing in it depends on anybody's values."""
        raise error


class Welcome:
    """The answer to a Hello: a message of its own, before all others."""

    __slots__ = ()

    def fill(self, frame: pb.FromInterpreter, epoch) -> int:
        """Says so in `frame`, which takes nothing more."""
        frame.welcome.protocol = PROTOCOL
        frame.welcome.pid = os.getpid()
        return FRAME_SIZE

    def spoil(self, error: BaseException, frame: pb.FromInterpreter, epoch) -> int:
        """Raises `error`: nothing in it depends on anybody's values."""
        raise error


LEAVING = Leaving()
WELCOME = Welcome()


def _fill_results(reply: pb.Reply, results: batches.Results) -> int:
    reply.items = results.count
    size = fill_payload(reply.value, results.payload)
    for index, failure in results.failures.items():
        item = reply.failures.add(index=index)
        size += _fill_failure(item.failure, failure)
    return size


def _fill_failure(message: pb.Failure, failure: Failure) -> int:
    message.kind = failure.kind
    message.type = clean(failure.type)
    message.message = clean(failure.message)
    message.traceback = clean(failure.traceback)
    message.language = "python"
    if failure.details is not None:
        message.details_json = encode(failure.details)[0]
    return message.ByteSize()
