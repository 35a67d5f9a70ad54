"""Which questions to the store leave together, and when.

- Reads and writes never share a message: a write may wait for a lease of a worker, and no read waits for it.
- So many messages of one kind are under way at once. What gathers meanwhile goes as the next one.
- Writes of one session keep their order: while some are under way the later ones wait. They go together then.
- A message has at most MOST_QUESTIONS, and ends with the question that brings it to MOST_BYTES.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any, Generic, NamedTuple, TypeVar

from snakepit_ray.core.state.asked import Cleanup, Data, Put, Question, StoreProgram

T = TypeVar("T")
READS = 3  # messages under way at once
WRITES = 4
MOST_QUESTIONS = 256
MOST_BYTES = 8 * 1024 * 1024


class Message(NamedTuple, Generic[T]):
    """What leaves together: `asked` in order. `keys`: whose later ones wait until it has ended."""

    is_write: bool
    asked: tuple[T, ...]
    keys: frozenset[str]


class Backlog(Generic[T]):
    """What waits to leave. `T` stands for a question and whatever belongs to it."""

    def __init__(self) -> None:
        self._reads: deque[tuple[T, int]] = deque()
        self._writes: OrderedDict[str, deque[tuple[T, int]]] = OrderedDict()  # of sessions that may send
        self._held: dict[str, deque[tuple[T, int]]] = {}  # of sessions with a message under way
        self._under_way = {False: 0, True: 0}

    def add(self, asked: T, question: Question) -> None:
        """One more, which leaves with one of the next messages."""
        entry = asked, data_bytes(question)
        if not is_write(question):
            self._reads.append(entry)
            return
        key = getattr(question, "session", "")
        queue = self._held.get(key)
        (self._writes.setdefault(key, deque()) if queue is None else queue).append(entry)

    def next(self) -> Message[T] | None:
        """A message that may leave now; None where there is none. `ended` is to be called for each."""
        if self._reads and self._under_way[False] < READS:
            self._under_way[False] += 1
            return Message(False, tuple(_taken(self._reads, MOST_QUESTIONS, MOST_BYTES)[0]), frozenset())
        if self._writes and self._under_way[True] < WRITES:
            self._under_way[True] += 1
            return self._next_write()
        return None

    def ended(self, message: Message[T]) -> None:
        """It was answered, or nobody waits for its answers any more."""
        self._under_way[message.is_write] -= 1
        for key in message.keys:
            queue = self._held.pop(key)
            if queue:
                self._writes[key] = queue

    def _next_write(self) -> Message[T]:
        asked: list[T] = []
        keys, left = [], MOST_BYTES
        while self._writes and len(asked) < MOST_QUESTIONS and left > 0:
            key, queue = self._writes.popitem(last=False)
            some, size = _taken(queue, MOST_QUESTIONS - len(asked), left)
            asked += some
            left -= size
            keys.append(key)
            self._held[key] = queue
        return Message(True, tuple(asked), frozenset(keys))


def _taken(queue: deque[tuple[T, int]], most: int, room: int) -> tuple[list[T], int]:
    """The first of them, and how many bytes they have."""
    asked: list[T] = []
    size = 0
    while queue and len(asked) < most and size < room:
        one, more = queue.popleft()
        asked.append(one)
        size += more
    return asked, size


def is_write(question: Question) -> bool:
    """Whether the question changes something, and so may wait for a lease or for the disk."""
    return hasattr(question, "op") or isinstance(question, Cleanup)


def data_bytes(question: Question) -> int:
    """Bytes of the values that a question carries."""
    if isinstance(question, Put):
        return sum(_data_bytes(getattr(change, "value", None)) for change in question.changes)
    return _data_bytes(question.program) if isinstance(question, StoreProgram) else 0


def _data_bytes(value: Any) -> int:
    if not isinstance(value, Data):
        return 0
    return len(value.json) + sum(memoryview(buffer).nbytes for buffer in value.buffers)
