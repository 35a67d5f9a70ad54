"""The streams that people hold: refs one a chunk, iterators of values, a callback that may halt.

Rules:
- Whoever stops taking, by closing, dropping, an error or its end, stops the producer.
- `stream`, `astream` and the callback form raise our errors, never Ray's, in the place of the chunk that is
  missing.
- A request is sent when the call is made, not when the first chunk is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from snakepit_ray.client import given
from snakepit_ray.client.chunk_refs import ChunkRefs
from snakepit_ray.client.given import ShowProgress
from snakepit_ray.client.halt import HALT
from snakepit_ray.client.interrupts import Interruptible
from snakepit_ray.client.lanes import Waits
from snakepit_ray.client.sender import Sender
from snakepit_ray.client.sources import AsyncSource, Source, async_source, source
from snakepit_ray.config import DEFAULT_OPTIONS, CallOptions
from snakepit_ray.wire.codec import Progress

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.config.keywords import CallSettings, SessionCallSettings

Args: TypeAlias = Mapping[str, Any] | None


def values(
    sender: Sender, command: str, args: Any, options: CallOptions, show: ShowProgress
) -> Generator[Any]:
    """The values of a stream's chunks, which is sent now."""
    report = given.reporter(show)
    with Interruptible():
        sent = sender.stream(command, args, options, pack=True, waits=Waits.THREAD)
        return _values(source(sender, sent), report)


def _values(parts: Source, report: Callable[..., None]) -> Generator[Any]:
    try:
        while (part := parts.take()) is not None:
            for value in part.values():
                if type(value) is Progress:
                    report(value)
                else:
                    yield value
    finally:
        parts.close()
        given.close(report)


def async_values(
    sender: Sender, command: str, args: Any, options: CallOptions, show: ShowProgress
) -> AsyncIterator[Any]:
    """`values` for asyncio."""
    report = given.reporter(show)
    # Outside of an event loop there is none that a lane could be read in.
    waits = Waits.REF if asyncio._get_running_loop() is None else Waits.LOOP
    with Interruptible():
        sent = sender.stream(command, args, options, pack=True, waits=waits)
        return _async_values(async_source(sender, sent), report)


async def _async_values(parts: AsyncSource, report: Callable[..., None]) -> AsyncIterator[Any]:
    try:
        while (part := await parts.take()) is not None:
            for value in part.values():
                if type(value) is Progress:
                    report(value)
                else:
                    yield value
    finally:
        parts.close()
        given.close(report)


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
        merged = self._options.merge(**options)
        refs: ChunkRefs = self._sender.stream(command, args, merged, pack=False, waits=Waits.REF).ref
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
        with Interruptible():
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
