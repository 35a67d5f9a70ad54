"""What the `.remote` forms of a fake pool return: outcomes that are there already."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snakepit_ray.client.chunk_refs import ChunkRefs as _ChunkRefs
else:
    _ChunkRefs = object


class FakeRef:
    """The outcome of one call, in the place of an ObjectRef.

    `FakePool.get(ref)` and `await ref` return the value or raise the error, as often as they are asked. At
    the top level of another call's arguments it stands for its value. `ray.get` does not take it.
    """

    __slots__ = ("_error", "_value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self._value = value
        self._error = error

    @classmethod
    def of(cls, work: Callable[[], Any]) -> FakeRef:
        """The outcome of `work`, which is done now."""
        try:
            return cls(work())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome
            return cls(error=error)

    def outcome(self) -> Any:
        """The value. Raises: the error."""
        if self._error is not None:
            raise self._error
        return self._value

    def future(self) -> concurrent.futures.Future[Any]:
        """A concurrent.futures.Future that is done, as an ObjectRef gives one."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        if self._error is not None:
            future.set_exception(self._error)
        else:
            future.set_result(self._value)
        return future

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from asyncio.sleep(0).__await__()  # another task has its turn, as with a call that travels
        return self.outcome()

    def __repr__(self) -> str:
        return f"<FakeRef {self._value!r:.80}>" if self._error is None else f"<FakeRef {self._error!r:.80}>"


class FakeChunkRefs(_ChunkRefs):
    """The refs of a stream's values, as `ChunkRefs` has them. The command runs as they are taken."""

    def __init__(self, values: Generator[Any]) -> None:
        self._values = values
        self._taken: deque[FakeRef] = deque()  # drawn by `completed`, and not handed out
        self._last: FakeRef | None = None  # once the stream has ended

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._taken:
            return self._taken.popleft()
        ref = self._draw()
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    def _draw(self) -> FakeRef | None:
        if self._last is not None:
            return None
        try:
            return FakeRef(next(self._values))
        except StopIteration:
            self._last = FakeRef()
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is in the last ref
            self._last = FakeRef(error=error)
            return self._last

    def completed(self) -> Any:
        """Runs the command to its end. A ref that raises the error of a stream that failed."""
        while (ref := self._draw()) is not None:
            self._taken.append(ref)
        return self._last

    def ready(self, timeout: float) -> bool:
        """As `ChunkRefs.ready`: True, because nothing is waited for."""
        return True

    def close(self) -> None:
        """Stops the command; there are no more refs. Safe to repeat."""
        self._taken.clear()
        self._values.close()
        self._last = self._last or FakeRef()
