"""The two pieces of memory that one interpreter shares with us, and what lies in them: arguments on their
way in, results on their way out.

- An argument's range is free when the interpreter has released it, or is gone.
- A result's range is released when the last object that looks at it is gone.
- Bulk bytes are copied in a thread, never on the event loop.
- What does not fit travels in the message, and is said once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from snakepit_ray.core.worker.space import Space
from snakepit_ray.errors import EncodingError, PayloadTooLarge
from snakepit_ray.process.shared_memory import SharedMemory
from snakepit_ray.process.threads import aside
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import nbytes

ON_THE_LOOP = 256 * 1024  # bytes that are copied at once: less time than a thread's start
MOST_IN_BAND = 2_000_000_000  # bytes of buffers in one message; protobuf ends at 2^31
PIECE_BYTES = 64 * 1024 * 1024  # of free memory that are given back at a time
REST_SECONDS = 10.0  # without large data, after which free memory is given back
log = logging.getLogger("snakepit_ray.worker")


class Arena:
    """The memory of one interpreter: `size` bytes each way, 0 for none. Belongs to the running event loop."""

    def __init__(
        self, size: int, threshold: int, worker_id: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._release: Callable[[str], None] = _nobody_yet
        self._threshold = threshold
        self._worker_id = worker_id
        self._loop = asyncio.get_running_loop()
        self._arguments, self._results = _memories(size, worker_id)
        self._space = Space(size if self._arguments is not None else 0)
        self._lent: dict[str, int] = {}
        self._count = 0
        self._used_at = 0.0  # 0: nothing to give back
        self._warned = False
        self._copying = 0
        self._closed = False

    # ---- the start -----------------------------------------------------------------------------------------

    def connected(self, release: Callable[[str], None]) -> None:
        """From now on `release(id)` tells the interpreter that a result was finished with."""
        self._release = release

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the interpreter inherits."""
        if self._arguments is None or self._results is None:
            return ()
        return self._arguments.descriptor, self._results.descriptor

    @property
    def offer(self) -> dict[str, int] | None:
        """What the interpreter is told of it (bridge/README.md section 1)."""
        if not self.descriptors:
            return None
        arguments, results = self.descriptors
        return {"size": self._space.size, "arguments": arguments, "results": results}

    def decline(self) -> None:
        """The interpreter does not use it."""
        self.close()
        self._arguments = self._results = None
        self._space = Space(0)

    def close(self) -> None:
        """The interpreter is gone; results that are looked at stay good. Safe to repeat."""
        self._closed = True
        if self._copying:  # a thread has the descriptor: the last one closes it
            return
        for memory in (self._arguments, self._results):
            if memory is not None:
                memory.close()

    # ---- arguments -----------------------------------------------------------------------------------------

    async def carry(self, request: pb.Request, beside: Sequence[Any]) -> pb.Request:
        """`request` with the buffers that it names `beside` in a message that can be sent. Raises
        PayloadTooLarge when they neither find a place here nor fit into one."""
        carried = pb.Request()
        carried.CopyFrom(request)
        ids: list[str] = []
        in_band = 0
        try:
            for place in _places(carried):
                if place.WhichOneof("place") == "beside":
                    in_band += await self._put(place, beside[place.beside], ids, in_band)
        except BaseException:
            self.released(ids)
            raise
        return carried

    async def _put(self, place: pb.Buffer, data: Any, ids: list[str], in_band: int) -> int:
        size = nbytes(data)
        segment = await self._written(data, size) if size > self._threshold else None
        if segment is not None:
            ids.append(segment.id)
            place.segment.CopyFrom(segment)
            return 0
        if in_band + size > MOST_IN_BAND:
            raise PayloadTooLarge.of(in_band + size, MOST_IN_BAND, "what found no place in shared_memory")
        if size > self._threshold:
            self._warn(size)
        place.inline = bytes(data) if size <= ON_THE_LOOP else await asyncio.to_thread(bytes, data)
        return size

    async def _written(self, data: Any, size: int) -> pb.Segment | None:
        """The segment that now has the data; None where there is no room for it."""
        memory, offset = self._arguments, self._space.take(size)
        if memory is None or offset is None:
            return None
        self._used_at = self._clock()
        try:
            if size <= ON_THE_LOOP:
                memory.write(offset, data)
            else:
                await self._in_thread(partial(memory.write, offset, data), offset)
        except Exception as error:
            self._space.give(offset)
            if not isinstance(error, OSError):
                raise
            log.warning("worker %s: this machine has no more shared memory: %s", self._worker_id, error)
            return None
        self._count += 1
        segment = pb.Segment(id=str(self._count), offset=offset, size=size)
        self._lent[segment.id] = offset
        return segment

    async def _in_thread(self, work: Callable[[], None], offset: int) -> None:
        """Does it in a thread. Who is cancelled meanwhile leaves the range to it until it has ended."""
        copying = asyncio.ensure_future(asyncio.to_thread(work))
        self._copying += 1
        copying.add_done_callback(self._copied)
        try:
            await asyncio.shield(copying)
        except asyncio.CancelledError:
            copying.add_done_callback(lambda _: self._space.give(offset))
            raise

    def _copied(self, copying: asyncio.Future[None]) -> None:
        self._copying -= 1
        if not copying.cancelled():
            copying.exception()  # looked at, also where nobody waits any more
        if self._closed:
            self.close()

    async def place(self, text: bytes, buffers: Sequence[Any]) -> pb.Payload:
        """A payload of our own that can be sent. Raises PayloadTooLarge when its buffers neither find a place
        here nor fit into one message."""
        payload = pb.Payload(json=text)
        ids: list[str] = []
        in_band = 0
        try:
            for data in buffers:
                in_band += await self._put(payload.buffers.add(), data, ids, in_band)
        except BaseException:
            self.released(ids)
            raise
        return payload

    def withdraw(self, carried: pb.Request) -> None:
        """What `carry` gave will not be sent."""
        self.released(place.segment.id for place in _places(carried))

    def released(self, ids: Iterable[str]) -> None:
        """The interpreter has finished with these arguments; an id that it does not have is ignored."""
        for segment_id in ids:
            offset = self._lent.pop(segment_id, None)
            if offset is not None:
                self._space.give(offset)

    # ---- results -------------------------------------------------------------------------------------------

    def views(self, payload: pb.Payload) -> list[Any]:
        """The payload's buffers: bytes, and views of the shared memory, each released when nothing looks at
        it any more. Raises EncodingError for a segment that is not there."""
        return [self._view(place) for place in payload.buffers]

    def _view(self, place: pb.Buffer) -> Any:
        kind = place.WhichOneof("place")
        if kind == "inline":
            return place.inline
        segment, memory = place.segment, self._results
        if kind != "segment" or memory is None:
            raise EncodingError(f"result: the payload is damaged: a buffer is {kind or 'nowhere'}")
        self._used_at = self._clock()
        try:
            return memory.view(segment.offset, segment.size, partial(self._dead, segment.id))
        except ValueError as error:
            raise EncodingError(f"result: the payload is damaged: {error}") from error

    def _dead(self, segment_id: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the interpreter with it
            self._loop.call_soon_threadsafe(self._release, segment_id)

    # ---- rest ----------------------------------------------------------------------------------------------

    @property
    def resident(self) -> int:
        """Bytes of memory that both pieces take now."""
        return sum(memory.resident for memory in (self._arguments, self._results) if memory is not None)

    async def rest(self, trim: Callable[[], None]) -> bool:
        """Gives free memory back when nothing large has travelled for a while; `trim` has the interpreter do
        so, too. Whether it did.

        A GiB takes a quarter of a second, so it goes in pieces, in a thread. A piece is taken meanwhile, and
        the rest of the space can be used."""
        if not self._used_at or self._clock() - self._used_at < REST_SECONDS:
            return False
        self._used_at = 0.0
        for offset, size in self._space.trim():
            for piece in range(offset, offset + size, PIECE_BYTES):
                await self._give_back(piece, min(PIECE_BYTES, offset + size - piece))
        trim()
        return True

    async def _give_back(self, offset: int, size: int) -> None:
        if self._arguments is None or not self._space.reserve(offset, size):
            return
        try:
            await aside(self._arguments.drop, offset, size)
        finally:
            self._space.give(offset)

    def _warn(self, size: int) -> None:
        if self._space.size and not self._warned:
            self._warned = True
            log.warning(
                "worker %s: %d bytes find no place in the shared memory (%d bytes, %d in use) and travel in "
                "the message, which is slower: raise shared_memory (said once)",
                self._worker_id,
                size,
                self._space.size,
                self._space.used,
            )


def _memories(size: int, worker_id: str) -> tuple[SharedMemory | None, SharedMemory | None]:
    if not size:
        return None, None
    try:
        return _both(size)
    except (OSError, ValueError) as error:
        log.warning(
            "worker %s: no shared memory of %d bytes (%s): arrays travel in the messages, which is slower; "
            "set shared_memory=0 to be rid of this warning",
            worker_id,
            size,
            error,
        )
        return None, None


def _both(size: int) -> tuple[SharedMemory, SharedMemory]:
    arguments = SharedMemory(size)
    try:
        return arguments, SharedMemory(size)
    except BaseException:
        arguments.close()
        raise


def _places(request: pb.Request) -> Iterable[pb.Buffer]:
    yield from request.args.buffers
    for ref in request.refs:
        yield from ref.value.buffers


def _nobody_yet(segment_id: str) -> None:
    raise RuntimeError(f"segment {segment_id} came before the interpreter was connected")
