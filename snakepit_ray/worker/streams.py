"""The streams that one worker serves, and those that it passes on from the worker where their session lives.

- Whoever stops taking stops the producer, also when that arrives here before the stream's beginning.
- Chunks pass undecoded.
- A stream that was begun is never begun again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from snakepit_ray.errors import RequestCancelled, SnakepitError, WorkerCrashed
from snakepit_ray.port import ray_port
from snakepit_ray.port.messages import Refused
from snakepit_ray.supervisor import Stream, Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Envelope, Info, Part
from snakepit_ray.wire.replies import error_of
from snakepit_ray.wire.requests import parcel
from snakepit_ray.worker.circuit import Gate
from snakepit_ray.worker.delegations import Delegations
from snakepit_ray.worker.memory import Memory
from snakepit_ray.worker.ordering import Ordering
from snakepit_ray.worker.peers import Peers
from snakepit_ray.worker.pool_link import PoolLink

AHEAD = 4  # objects of a relayed stream that are under way
CLOSED_EARLY = 1000  # ids that are remembered
Describe = Callable[[pb.Request, float, float], Info]


class Chunks(Protocol):
    """The chunks of one stream, wherever they are made."""

    async def next(self) -> Any:
        """The next one; None after the last. Raises what else ended the stream, after the chunks before."""

    def close(self) -> None:
        """Nobody takes any more: the producer stops. Safe to repeat."""


C = TypeVar("C", bound=Chunks)


class Streams:
    """One worker's streams. `info(request, waited, ran)` describes a chunk where the caller asks for it."""

    def __init__(
        self,
        supervisor: Supervisor,
        pool_link: PoolLink,
        peers: Peers,
        memory: Memory,
        gate: Gate,
        ordering: Ordering,
        delegations: Delegations,
        info: Describe,
    ) -> None:
        self._supervisor = supervisor
        self._pool_link = pool_link
        self._peers = peers
        self._memory = memory
        self._gate = gate
        self._ordering = ordering
        self._delegations = delegations
        self._accounts = supervisor.accounts
        self._cargo = supervisor.cargo
        self._info = info
        self._open: dict[str, Chunks] = {}
        self._closed: dict[str, None] = {}

    def close(self, request_id: str) -> None:
        """Nobody takes the chunks of this one any more; it may not have arrived yet."""
        chunks = self._open.get(request_id)
        if chunks is not None:
            chunks.close()
            return
        self._closed[request_id] = None
        while len(self._closed) > CLOSED_EARLY:
            del self._closed[next(iter(self._closed))]

    @asynccontextmanager
    async def opened(self, request: pb.Request) -> AsyncIterator[Chunks]:
        """The chunks of one request. What the block raises ends the stream and is its outcome."""
        if request.id in self._closed:
            del self._closed[request.id]
            raise RequestCancelled.because("the stream was closed", request.command, may_have_started=False)
        async with AsyncExitStack() as around:
            around.enter_context(self._accounts.opened(request))
            if request.options.hops:
                yield self._delegated(request, around)
                return
            if not self._gate.idle:
                await around.enter_async_context(self._gate.passing())
            yield await self._placed(request, around)

    async def _placed(self, request: pb.Request, around: AsyncExitStack) -> Chunks:
        placed = await self._peers.place(request)
        if placed is None:
            return self._here(request, around)
        there = self._watched(request, self._there(*placed), around)
        with self._ordering.sent_on(request):
            is_refused = isinstance(await there.look(), Refused)
        if not is_refused:
            return there
        there.close()  # a hint that finds its worker busy runs here
        return self._here(request, around)

    def _delegated(self, request: pb.Request, around: AsyncExitStack) -> Chunks:
        refusal = self._delegations.refusal(request.options)
        if refusal is not None:
            return _Refusal(refusal)
        around.callback(self._delegations.ended, request.options)
        return self._here(request, around)

    def _here(self, request: pb.Request, around: AsyncExitStack) -> Chunks:
        on_slot = self._pool_link.sessions.on_slot(request)
        around.callback(self._memory.over, request)
        stream = Stream(self._supervisor, request, on_slot=on_slot)
        self._ordering.begins(request)
        return self._watched(request, _Here(stream, self._info), around)

    def _there(self, target: str, request: pb.Request) -> _There:
        actor = self._peers.known[target].actor
        request.options.chained = True
        request.options.more = False
        request.options.incarnation = 0  # of another worker than the one it was sent to
        beside = parcel(self._cargo.beside(request))
        generator = ray_port.stream(actor, AHEAD, request.SerializeToString(), *beside)
        return _There(target, generator, partial(ray_port.end_stream, generator, actor, request.id))

    def _watched(self, request: pb.Request, chunks: C, around: AsyncExitStack) -> C:
        """`close` ends them from now on, and so does the end of the request."""
        self._open[request.id] = chunks
        around.callback(self._end, request.id, chunks)
        return chunks

    def _end(self, request_id: str, chunks: Chunks) -> None:
        if self._open.get(request_id) is chunks:
            del self._open[request_id]
        chunks.close()


class _Here:
    """The chunks of a stream that runs in this worker's interpreter."""

    def __init__(self, stream: Stream, info: Describe) -> None:
        self._stream = stream
        self._info = info

    async def next(self) -> Part | Envelope | None:
        request = self._stream.request
        if request.pack:
            if pieces := await self._stream.part():
                return Part(pieces, self._about(), request.options.runtime, request.command)
        elif (piece := await self._stream.one()) is not None:
            info = self._about()
            return Envelope(piece.json, piece.buffers, info, request.options.runtime, request.command)
        reply = self._stream.result().answer.reply
        if reply.HasField("failure"):
            raise error_of(reply.failure, request.command)
        return None

    def _about(self) -> Info | None:
        request = self._stream.request
        return self._info(request, self._stream.waited, self._stream.ran) if request.options.info else None

    def close(self) -> None:
        self._stream.close()


class _There:
    """The chunks of a stream that another worker runs. `end` stops that."""

    def __init__(self, target: str, refs: Any, end: Callable[[], None]) -> None:
        self._target = target
        self._refs = refs
        self._end: Callable[[], None] | None = end
        self._seen: list[Any] = []  # chunks that were looked at and not taken

    async def look(self) -> Any:
        """The next chunk, which `next` gives, too."""
        self._seen.append(await self.next())
        return self._seen[0]

    async def next(self) -> Any:
        if self._seen:
            return self._seen.pop()
        if self._end is None:
            return None
        try:
            async for ref in self._refs:
                return await ray_port.owned(ref)
        except ray_port.RayError as error:
            raise _ours(self._target, error) from None
        self._end = None  # it has ended: there is nothing to stop
        return None

    def close(self) -> None:
        if self._end is not None:
            end, self._end = self._end, None
            end()


class _Refusal:
    """The one chunk that says that this worker has no free slot."""

    def __init__(self, refusal: Refused) -> None:
        self._chunks = [refusal]

    async def next(self) -> Refused | None:
        return self._chunks.pop() if self._chunks else None

    def close(self) -> None:
        """There is no producer."""


def _ours(target: str, error: Exception) -> BaseException:
    cause = getattr(error, "cause", None)
    if isinstance(cause, SnakepitError):
        return cause
    if isinstance(error, SnakepitError):
        return error
    return WorkerCrashed(
        f"worker {target} died while it had a stream that was moved to it ({type(error).__name__})",
        worker_id=target,
        may_have_started=True,
    )
