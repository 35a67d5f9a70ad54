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
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

import ray

from snakepit_ray.client.progress import Bar
from snakepit_ray.client.sender import Sender, Sent, awaited, may_block
from snakepit_ray.config import DEFAULT_OPTIONS, CallOptions
from snakepit_ray.errors import ConfigError
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
# False: reports of progress are dropped. True: they are a bar on stderr. A callable gets each.
ShowProgress: TypeAlias = bool | Callable[[Progress], None]


class Halt(Enum):
    """The type of HALT."""

    HALT = "halt"

    def __repr__(self) -> str:
        return "snakepit.HALT"


HALT = Halt.HALT  # what an on_chunk callback returns to stop the producer


class ChunkRefs:
    """The refs of a stream's chunks, in order; a stream that fails has its error in the last one.

    Iterate it, in a `for` or an `async for`, from one thread. Closing or dropping it stops the producer."""

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
        """A ref that is ready when the stream has ended; it raises the error of one that failed."""
        self._check_open()
        return self._generator.completed()

    def ready(self, timeout: float) -> bool:
        """Whether the next ref, or the end, is there within `timeout` seconds."""
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
    report = _reporter(show)
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
        _close(report)


def _part(sender: Sender, sent: Sent) -> Part:
    part: Part = sender.value(sent)
    return part


def async_values(
    sender: Sender, command: str, args: Any, options: CallOptions, show: ShowProgress
) -> AsyncIterator[Any]:
    """`values` for asyncio."""
    report = _reporter(show)
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
        _close(report)


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


def _ignore(report: Progress) -> None:
    """Nobody asked for reports."""


def _reporter(show: ShowProgress) -> Callable[..., None]:
    if callable(show):
        return show
    if not isinstance(show, bool):
        raise ConfigError(f"progress: got {show!r}, expected True, False or a function of a Progress")
    return Bar() if show else _ignore


def _close(report: Callable[..., None]) -> None:
    if isinstance(report, Bar):
        with suppress(OSError, ValueError):  # a terminal that is gone
            report.close()


class StreamCall:
    """`pool.execute_stream`: called, it blocks and hands each value to a callback; `.remote` returns refs."""

    __slots__ = ("_options", "_sender")

    def __init__(self, sender: Sender, options: CallOptions = DEFAULT_OPTIONS) -> None:
        self._sender = sender
        self._options = options

    def options(self, **options: Unpack[CallSettings]) -> StreamCall:
        """The same with these options (see CallOptions). Raises ConfigError."""
        return StreamCall(self._sender, self._options.merge(**options))

    def remote(self, command: str, args: Args = None, **options: Unpack[CallSettings]) -> ChunkRefs:
        """Sends the command; one ref for each chunk that it yields, as it yields them.

        Reports of progress are chunks here: a `snakepit.Progress` in its ref. Raises as `execute.remote`."""
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
        """Calls `on_chunk` with each value until the stream ends or a call returns `snakepit.HALT`, which
        stops the producer; how many values there were. An exception of `on_chunk` stops it, too."""
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
    """`pool.execute_in_session_stream`: `execute_stream` with the session's id first."""

    __slots__ = ("_call", "_sender")

    def __init__(self, sender: Sender, call: StreamCall | None = None) -> None:
        self._sender = sender
        self._call = call or StreamCall(sender)

    def options(self, **options: Unpack[CallSettings]) -> SessionStreamCall:
        """The same with these options."""
        return SessionStreamCall(self._sender, self._call.options(**options))

    def remote(
        self, session: str, command: str, args: Args = None, **options: Unpack[SessionCallSettings]
    ) -> ChunkRefs:
        """As `pool.execute_stream.remote`, in `session`."""
        return self._call.remote(command, args, session=session, **options)

    def __call__(
        self,
        session: str,
        command: str,
        args: Args,
        on_chunk: Callable[[Any], Any],
        **options: Unpack[SessionCallSettings],
    ) -> int:
        """As `pool.execute_stream`, in `session`."""
        return self._call(command, args, on_chunk, session=session, **options)
