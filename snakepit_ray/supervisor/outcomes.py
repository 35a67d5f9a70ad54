"""Knows what a worker counts, and how a request went on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.errors import SnakepitError
from snakepit_ray.supervisor.interpreter import Interpreter


@dataclass
class Counters:
    """What this worker did since its actor started. `requests` are those that have their outcome: a value, an
    error, or they were cancelled."""

    requests: int = 0
    errors: int = 0
    cancelled: int = 0
    queue_timeouts: int = 0
    saturated: int = 0
    delegated: int = 0
    recycled: int = 0


class Tally(NamedTuple):
    """The calls of a request that have an outcome, and those of them that failed."""

    items: int
    failed: int


class Sink(Protocol):
    """Where the chunks of a stream go."""

    def opened(self, interpreter: Interpreter) -> Callable[[pb.Chunk], None]:
        """The stream is about to run there; what is to be called with each of its chunks."""


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
