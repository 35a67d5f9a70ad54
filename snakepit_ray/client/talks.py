"""What users ask of sessions becomes questions to the store, and its answers become what users get.

A talk is a generator: it yields a question and is sent the answer, or has the answer's error thrown in. So
each method is written once, for threads that block and for coroutines, and a user's function in it runs where
the user has called.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Mapping
from pickle import PickleBuffer
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.state.asked import Changes, Creation, Data, Question, Watch
from snakepit_ray.errors import EncodingError, SnakepitError
from snakepit_ray.wire.codec import INLINE, check_size, encode_value, nbytes

T = TypeVar("T")
Talk: TypeAlias = Generator[Question, Any, T]


class Watched(Protocol):
    """The answer of a watch that is under way."""

    def result(self) -> Changes:
        """Waits for it. Raises its error."""

    def cancel(self) -> bool:
        """Ends the question, also at the store."""


class Calls(Protocol):
    """How this process asks the store: `store_calls.StoreCalls`."""

    def ask(self, question: Question, seconds: float | None = None) -> Any:
        """The answer. Blocks."""

    async def aask(self, question: Question, seconds: float | None = None) -> Any:
        """The answer, for asyncio."""

    def watch(self, watch: Watch, seconds: float | None = None) -> Any:
        """A future of its Changes."""


class Tools(Protocol):
    """The tools of one pool, some of which are a session's."""

    def end(self, session_id: str) -> None:
        """Those of a session that has ended are no more when this returns. Blocks."""

    async def aend(self, session_id: str) -> None:
        """`end` for asyncio."""


class Access(NamedTuple):
    """How the handles of one pool get at the store. `calls`: how to ask; raises PoolClosed. `ref_type`: what
    no variable keeps. `tools`: the pool's."""

    config: PoolConfig
    calls: Callable[[], Calls]
    ref_type: type
    tools: Tools

    def run(self, talk: Talk[T]) -> T:
        """What a talk comes to. Blocks."""
        calls, answer = self.calls(), None
        step: Callable[[Any], Question] = talk.send
        while True:
            try:
                question = step(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                step, answer = talk.send, calls.ask(question, self.config.request_timeout)
            except SnakepitError as error:
                step, answer = talk.throw, error

    async def arun(self, talk: Talk[T]) -> T:
        """`run` for asyncio."""
        calls, answer = self.calls(), None
        step: Callable[[Any], Question] = talk.send
        while True:
            try:
                question = step(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                step, answer = talk.send, await calls.aask(question, self.config.request_timeout)
            except SnakepitError as error:
                step, answer = talk.throw, error

    def watch(self, watch: Watch) -> Any:
        """A future of what has changed."""
        return self.calls().watch(watch, self.config.request_timeout)

    def data(self, value: Any, path: str) -> Data:
        """A value as it is kept: what becomes of it afterwards changes nothing. `path` begins the place in
        the message of an error. Raises EncodingError, PayloadTooLarge."""
        if isinstance(value, self.ref_type):
            raise EncodingError(
                f"{path}: a session keeps values and no {self.ref_type.__name__}s, whose data ends with "
                "their owner: ray.get it first",
                path=path,
            )
        encoded = encode_value(value, path, self.ref_type)
        check_size(encoded, self.config.max_message_size, self.config.binary_threshold, path)
        return packed(Data(encoded.json, tuple(map(bytes, encoded.buffers))))

    def creation(self, ttl: float | None = None, metadata: Mapping[str, Any] | None = None) -> Creation:
        """How the pool makes a session where there is none."""
        config = self.config
        seconds = config.session_ttl if ttl is None else ttl
        return Creation(config.name, seconds, config.max_sessions, metadata or {})


def packed(data: Data) -> Data:
    """The same, which pickles: large buffers out of band, without a copy."""
    return Data(data.json, tuple(map(_packed, data.buffers)))


def _packed(buffer: Any) -> Any:
    return PickleBuffer(buffer) if nbytes(buffer) > INLINE else bytes(memoryview(buffer))


def new_op() -> str:
    """An operation id, which no other process has, forked or not."""
    return secrets.token_hex(12)
