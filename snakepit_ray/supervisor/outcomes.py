"""What a worker counts, and how a request went on."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence, Sequence
from typing import Any, NamedTuple, Protocol

from snakepit_ray.errors import SnakepitError
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.wire._pb import interpreter_pb2 as pb


def _counter(place: int) -> Any:
    def get(counters: Counters) -> int:
        return int(counters._words[place])

    def put(counters: Counters, number: int) -> None:
        counters._words[place] = number

    return property(get, put)


class Counters:
    """What this worker has done. `requests` are those that have their outcome: a value, an error, or they
    were cancelled. `restarts` are interpreters, and worker actors, that came after a loss.

    `words` is where the numbers are: memory that outlives this process goes on counting in the next one."""

    SIZE = 8

    def __init__(self, words: MutableSequence[int] | memoryview | None = None) -> None:
        self._words: Any = [0] * self.SIZE if words is None else words

    requests: int = _counter(0)
    errors: int = _counter(1)
    cancelled: int = _counter(2)
    queue_timeouts: int = _counter(3)
    saturated: int = _counter(4)
    delegated: int = _counter(5)
    recycled: int = _counter(6)
    restarts: int = _counter(7)


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
