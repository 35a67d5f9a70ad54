"""The refs of a stream that goes by Ray: what people hold, and what its values are read from.

Whoever stops taking, by closing, dropping, an error or its end, stops the producer.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import ray


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
