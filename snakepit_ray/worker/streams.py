"""The streams that one worker serves, and those that it passes on from the worker where their session lives.

Rules:
- Whoever stops taking stops the producer, also when that arrives here before the stream's beginning.
- Chunks pass undecoded.
- A stream that was begun is never begun again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any

from snakepit_ray.errors import RequestCancelled, SnakepitError, WorkerCrashed
from snakepit_ray.port import ray_port
from snakepit_ray.port.messages import Refused
from snakepit_ray.supervisor import Stream, Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Envelope, Info, Part
from snakepit_ray.wire.requests import error_of, parcel
from snakepit_ray.worker.circuit import Gate
from snakepit_ray.worker.memory import Memory
from snakepit_ray.worker.ordering import Ordering
from snakepit_ray.worker.peers import Peers
from snakepit_ray.worker.pool_link import PoolLink

AHEAD = 4  # objects of a relayed stream that are under way
CLOSED_EARLY = 1000  # ids that are remembered
Chunks = AsyncGenerator[Any, None]


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
        info: Callable[[pb.Request, float, float], Info],
    ) -> None:
        self._supervisor = supervisor
        self._pool_link = pool_link
        self._peers = peers
        self._memory = memory
        self._gate = gate
        self._ordering = ordering
        self._info = info
        self._open: dict[str, Callable[[], None]] = {}
        self._closed: dict[str, None] = {}

    def close(self, request_id: str) -> None:
        """Nobody takes the chunks of this one any more; it may not have arrived yet."""
        close = self._open.get(request_id)
        if close is not None:
            close()
            return
        self._closed[request_id] = None
        while len(self._closed) > CLOSED_EARLY:
            del self._closed[next(iter(self._closed))]

    async def serve(self, request: pb.Request) -> Chunks:
        """The chunks of one request. Raises its error after them."""
        if request.id in self._closed:
            del self._closed[request.id]
            raise RequestCancelled.because("the stream was closed", request.command, may_have_started=False)
        async with AsyncExitStack() as around:
            around.enter_context(self._supervisor.accounts.opened(request))
            if request.options.hops:
                chunks = self._delegated(request)
            else:
                if not self._gate.idle:
                    await around.enter_async_context(self._gate.passing())
                chunks = self._placed(request)
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

    async def _placed(self, request: pb.Request) -> Chunks:
        placed = await self._peers.place(request)
        if placed is not None:
            async with aclosing(self._relayed(*placed)) as relayed:
                with self._ordering.sent_on(request):
                    first = await anext(relayed, None)
                if not isinstance(first, Refused):  # a hint that finds its worker busy runs here
                    if first is not None:
                        yield first
                    async for chunk in relayed:
                        yield chunk
                    return
        async with aclosing(self._here(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _delegated(self, request: pb.Request) -> Chunks:
        options = request.options
        if not options.may_wait:
            accepted = bool(self._supervisor.admission.free)
            self._pool_link.delegate_arrived(accepted, options.chained)
            if not accepted:
                yield Refused(self._supervisor.worker_id)
                return
        try:
            async with aclosing(self._here(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            free = self._supervisor.admission.free > 0
            self._pool_link.delegate_ended(free and options.more)

    async def _here(self, request: pb.Request) -> Chunks:
        options = request.options
        pinned = bool(request.session and options.affinity)
        if pinned and not options.rebind:
            self._pool_link.sessions.check(request.session)
        on_slot = partial(self._pool_link.sessions.enter, request.session, options.rebind) if pinned else None
        stream = Stream(self._supervisor, request, on_slot=on_slot)
        self._ordering.begins(request)
        self._open[request.id] = stream.close
        try:
            more = self._parts(stream) if request.pack else self._envelopes(stream)
            async for chunk in more:
                yield chunk
            reply = stream.result().answer.reply
            if reply.HasField("failure"):
                raise error_of(reply.failure, request.command)
        finally:
            self._open.pop(request.id, None)
            stream.close()
            self._memory.over(request)

    async def _parts(self, stream: Stream) -> Chunks:
        request = stream.request
        while pieces := await stream.part():
            yield Part(pieces, self._told(stream), request.options.runtime, request.command)

    async def _envelopes(self, stream: Stream) -> Chunks:
        request = stream.request
        while (piece := await stream.one()) is not None:
            yield Envelope(
                piece.json, piece.buffers, self._told(stream), request.options.runtime, request.command
            )

    def _told(self, stream: Stream) -> Info | None:
        if not stream.request.options.info:
            return None
        return self._info(stream.request, stream.waited, stream.ran)

    async def _relayed(self, target: str, request: pb.Request) -> Chunks:
        actor = self._peers.actors[target]
        request.options.chained = True
        request.options.more = False
        request.options.incarnation = 0  # of another worker than the one it was sent to
        beside = self._supervisor.cargo.beside(request)
        generator = ray_port.stream(actor, AHEAD, request.SerializeToString(), *parcel(beside))
        end: Callable[[], None] = partial(ray_port.end_stream, generator, actor, request.id)
        self._open[request.id] = end
        try:
            async for ref in generator:
                yield await ray_port.owned(ref)
            end = _nothing
        except ray_port.RayError as error:
            raise _ours(target, error) from None
        finally:
            self._open.pop(request.id, None)
            end()


def _nothing() -> None:
    """It has ended."""


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
