"""The streams that people hold: refs one a chunk, iterators of values, a callback that may halt.

Rules:
- Whoever stops taking, by closing, dropping, an error or its end, stops the producer.
- `stream`, `astream` and the callback form raise our errors, never Ray's, in the place of the chunk that is
  missing.
- A request is sent when the call is made, not when the first chunk is asked for.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import ray

from snakepit_ray.client import given
from snakepit_ray.client.given import ShowProgress
from snakepit_ray.client.halt import HALT
from snakepit_ray.client.sender import Sender, Sent, awaited, may_block
from snakepit_ray.config import DEFAULT_OPTIONS, CallOptions
from snakepit_ray.port import ray_port
from snakepit_ray.process.awaiting import within
from snakepit_ray.wire.codec import Part, Progress

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.config.keywords import CallSettings, SessionCallSettings

AHEAD_REFS = (
    8  # chunks of `execute_stream.remote` that are produced and not taken, beside the worker's window
)
AHEAD_PARTS = 4
Args: TypeAlias = Mapping[str, Any] | None


class ChunkRefs:
    """The refs of a stream's values, in order: what `pool.execute_stream.remote` returns.

    Iterate it, in a `for` or an `async for`, from one thread. A stream that fails has its error in its last
    ref. Closing or dropping it stops the command.
    """

    def __init__(self, generator: Any, end: Callable[[], None], check_open: Callable[[], None]) -> None:
        self._generator = generator
        self._check_open = check_open
        self._end = weakref.finalize(self, end)
        self._end.atexit = False  # this process's end is what its lease at the router is for

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._end.alive:
            raise StopIteration
        self._check_open()
        try:
            return next(self._generator)
        except StopIteration:
            self._end.detach()  # nothing to stop
            raise

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if not self._end.alive:
            raise StopAsyncIteration
        self._check_open()
        try:
            return await self._generator.__anext__()
        except StopAsyncIteration:
            self._end.detach()
            raise

    def completed(self) -> Any:
        """A ref that is ready when the stream has ended. `ray.get` of it raises the error that ended it."""
        self._check_open()
        return self._generator.completed()

    def ready(self, timeout: float) -> bool:
        """Whether the next ref, or the end, is there within `timeout` seconds. Raises: PoolClosed."""
        if not self._end.alive:
            return True
        self._check_open()
        return bool(ray.wait([self._generator], timeout=timeout)[0])

    def close(self) -> None:
        """Stops the producer; there are no more refs. Safe to repeat."""
        self._end()


def open_stream(
    sender: Sender, command: str, args: Any, options: CallOptions, *, pack: bool
) -> tuple[ChunkRefs, Sent]:
    """Sends the request. Raises what `execute.remote` raises."""
    ahead = AHEAD_PARTS if pack else AHEAD_REFS
    sent, end = sender.stream(command, args, options, pack=pack, ahead=ahead)
    return ChunkRefs(sent.ref, end, sender.check_open), sent


def values(
    sender: Sender, command: str, args: Any, options: CallOptions, show: ShowProgress
) -> Generator[Any]:
    """The values of a stream's chunks, which is sent now."""
    report = given.reporter(show)
    return _values(sender, *open_stream(sender, command, args, options, pack=True), report)


def _values(sender: Sender, refs: ChunkRefs, sent: Sent, report: Callable[..., None]) -> Generator[Any]:
    try:
        while True:
            if not refs.ready(sent.left):
                raise sender.too_late(sent)
            ref = next(refs, None)
            if ref is None:
                return
            for value in _part(sender, sent._replace(ref=ref)).values():
                if type(value) is Progress:
                    report(value)
                else:
                    yield value
    finally:
        refs.close()
        sender.ended(sent)
        given.close(report)


def _part(sender: Sender, sent: Sent) -> Part:
    part: Part = sender.value(sent)
    return part


def async_values(
    sender: Sender, command: str, args: Any, options: CallOptions, show: ShowProgress
) -> AsyncIterator[Any]:
    """`values` for asyncio."""
    report = given.reporter(show)
    return _async_values(sender, *open_stream(sender, command, args, options, pack=True), report)


async def _async_values(
    sender: Sender, refs: ChunkRefs, sent: Sent, report: Callable[..., None]
) -> AsyncIterator[Any]:
    try:
        while True:
            part = await _next_part(sender, refs, sent)
            if part is None:
                return
            for value in part.values():
                if type(value) is Progress:
                    report(value)
                else:
                    yield value
    finally:
        refs.close()
        sender.ended(sent)
        given.close(report)


async def _next_part(sender: Sender, refs: ChunkRefs, sent: Sent) -> Part | None:
    try:
        ref = await within(sent.left, anext(refs, None))
        part: Part | None = None if ref is None else await within(sent.left, awaited(ref))
    except asyncio.TimeoutError:
        raise sender.too_late(sent) from None
    except ray_port.RayError as error:
        if may_block(error):
            raise await asyncio.to_thread(sender.our, error, sent) from None
        raise sender.our(error, sent) from None
    return part


class StreamCall:
    """Runs a command that yields: `pool.execute_stream`. See also `stream`, a plain iterator of the values.

    pool.execute_stream("stream_data", {"count": 5}, on_chunk)  # calls on_chunk with each value
    for ref in pool.execute_stream.remote("stream_data", {"count": 5}):  # an ObjectRef for each value
        print(ray.get(ref))

    An on_chunk that returns `snakepit.HALT` stops the command.
    """

    __slots__ = ("_options", "_sender")

    def __init__(self, sender: Sender, options: CallOptions = DEFAULT_OPTIONS) -> None:
        self._sender = sender
        self._options = options

    def options(self, **options: Unpack[CallSettings]) -> StreamCall:
        """The same with other options (see CallOptions). Raises: ConfigError."""
        return StreamCall(self._sender, self._options.merge(**options))

    def remote(self, command: str, args: Args = None, **options: Unpack[CallSettings]) -> ChunkRefs:
        """Sends the command and does not wait.

        Returns: a `ChunkRefs`, an iterator of ObjectRefs: one for each value, as the command yields it.
        Reports of progress are values here: each is a `snakepit.Progress`.

        Raises: as `execute.remote`.
        """
        refs, _ = open_stream(self._sender, command, args, self._options.merge(**options), pack=False)
        return refs

    def __call__(
        self,
        command: str,
        args: Args,
        on_chunk: Callable[[Any], Any],
        *,
        progress: ShowProgress = False,
        **options: Unpack[CallSettings],
    ) -> int:
        """Calls `on_chunk` with each value, and returns when the stream has ended.

        Args:
            command: its name.
            args: its arguments by name; None: none.
            on_chunk: called with each value, in this thread. `snakepit.HALT` as its result stops the command,
                and so does an exception, which is raised here.
            progress: as in `pool.stream`.
            options: see CallOptions.

        Returns: the number of values that `on_chunk` was called with.

        Raises: as `execute`.
        """
        merged = self._options.merge(**options)
        handed = 0
        chunks = values(self._sender, command, args, merged, progress)
        try:
            for value in chunks:
                handed += 1
                if on_chunk(value) is HALT:
                    break
        finally:
            chunks.close()
        return handed


class SessionStreamCall:
    """`execute_stream` with the id of a session first: `pool.execute_in_session_stream`.

    pool.execute_in_session_stream("user_123", "stream_data", {"count": 5}, on_chunk)
    pool.execute_in_session_stream.remote("user_123", "stream_data", {"count": 5})
    """

    __slots__ = ("_call", "_sender")

    def __init__(self, sender: Sender, call: StreamCall | None = None) -> None:
        self._sender = sender
        self._call = call or StreamCall(sender)

    def options(self, **options: Unpack[CallSettings]) -> SessionStreamCall:
        """The same with other options. Raises: ConfigError."""
        return SessionStreamCall(self._sender, self._call.options(**options))

    def remote(
        self, session: str, command: str, args: Args = None, **options: Unpack[SessionCallSettings]
    ) -> ChunkRefs:
        """As `pool.execute_stream.remote`, in the session of that id."""
        return self._call.remote(command, args, session=session, **options)

    def __call__(
        self,
        session: str,
        command: str,
        args: Args,
        on_chunk: Callable[[Any], Any],
        **options: Unpack[SessionCallSettings],
    ) -> int:
        """As `pool.execute_stream`, in the session of that id."""
        return self._call(command, args, on_chunk, session=session, **options)
