"""How a request went on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from snakepit_ray.errors import SnakepitError
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.wire._pb import interpreter_pb2 as pb


class Tally(NamedTuple):
    """The calls of a request that have an outcome, and those of them that failed."""

    items: int
    failed: int


def tally_of(reply: pb.Reply, size: int) -> Tally:
    """What an interpreter's answer to a request of `size` calls counts for."""
    if reply.HasField("failure"):
        return Tally(size, size)
    return Tally(reply.items if size > 1 else 1, len(reply.failures))


class Sink(Protocol):
    """Where the chunks of a stream go."""

    def opened(self, interpreter: Interpreter) -> Callable[[pb.Chunk], None]:
        """The stream is about to run there; what is to be called with each of its chunks."""

    @property
    def is_held_up(self) -> bool:
        """Whether its producer waits until somebody takes what has come."""


class Recalled(Exception):
    """A request is back from an interpreter, and has not begun there. It waits in its old place already."""


class TooLate(Exception):
    """A request's budget is used up. `began`: it may have begun in this try."""

    def __init__(self, began: bool) -> None:
        super().__init__(began)
        self.began = began


class Closing(Exception):
    """The worker stops. `began`: the request may have begun in this try."""

    def __init__(self, began: bool) -> None:
        super().__init__(began)
        self.began = began


class Answer(NamedTuple):
    """What an interpreter answered, and the buffers of its value."""

    reply: pb.Reply
    buffers: Sequence[Any] = ()


class Done(NamedTuple):
    """The interpreter's answer, with seconds waited, the attempt that it came from and who gave it."""

    answer: Answer
    waited: float
    attempt: int
    pid: int


class Relayed(NamedTuple):
    """Another worker's answer, as it came: a value, or the error that the request ended with there; `free`:
    it could take another request."""

    value: object
    free: bool = False

    def unwrap(self) -> object:
        """The value. Raises the error."""
        if isinstance(self.value, SnakepitError):
            raise self.value
        return self.value
