"""How the requests that reach one worker are served: here, elsewhere, in parts, as streams.

Rules:
- A request is counted once, where it first arrived.
- Bytes are moved, no value is decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import RequestCancelled, SnakepitError, WorkerCrashed
from snakepit_ray.port.messages import Delegated, Refused
from snakepit_ray.process.awaiting import happens
from snakepit_ray.supervisor import Relayed, Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope, Info
from snakepit_ray.wire.replies import crashed
from snakepit_ray.wire.requests import unpack
from snakepit_ray.worker.batches import BatchRun
from snakepit_ray.worker.circuit import Gate
from snakepit_ray.worker.delegations import Delegations
from snakepit_ray.worker.memory import Memory
from snakepit_ray.worker.ordering import Ordering
from snakepit_ray.worker.peers import Peers
from snakepit_ray.worker.pool_link import HAND_OVER_SECONDS, PoolLink
from snakepit_ray.worker.present import KEPT_SECONDS, Answered, Kept, Present
from snakepit_ray.worker.streams import Streams

LARGE_REFS_BYTES = 1_000_000


class Requests:
    """Serves one worker's requests."""

    def __init__(
        self,
        config: PoolConfig,
        memory: Memory,
        supervisor: Supervisor,
        pool_link: PoolLink,
        peers: Peers,
        gate: Gate,
    ) -> None:
        self._config = config
        self._memory = memory
        self._supervisor = supervisor
        self._pool_link = pool_link
        self._peers = peers
        self._gate = gate
        self._present = 0
        self._served = Present()
        self._kept = Kept(self._changed)
        self._ordering = Ordering()
        self._dispatch = supervisor.dispatch
        self._admission = supervisor.admission
        self._accounts = supervisor.accounts
        self._cargo = supervisor.cargo
        self._delegations = Delegations(supervisor, pool_link)
        self._streams = Streams(
            supervisor, pool_link, peers, memory, gate, self._ordering, self._delegations, self._stream_info
        )

    @property
    def present(self) -> int:
        """Calls that this worker serves, wherever their requests are, and those whose answers are kept."""
        return self._present + len(self._kept.answers)

    def execute(self, blob: bytes, values: tuple[Any, ...]) -> Awaitable[Any]:
        """`call` of a request that came serialized."""
        return self.call(pb.Request.FromString(blob), values)

    async def call(self, request: pb.Request, values: tuple[Any, ...]) -> Any:
        """Runs one request: an Envelope, or to a worker that delegates Delegated or Refused."""
        self._present += 1
        try:
            if values or request.options.turn:
                return await self._once(request.id, partial(self._in_turn, request, values))
            return await self._once(request.id, partial(self._enter, request, movable=True))
        finally:
            self._present -= 1
            if (watch := self._admission.watch) is not None:
                watch.set()

    async def execute_batch(self, blobs: Sequence[bytes], values: tuple[Any, ...]) -> BatchEnvelope:
        """`batch` of requests that came serialized."""
        return await self.batch([pb.Request.FromString(blob) for blob in blobs], values)

    async def batch(self, sources: list[pb.Request], values: tuple[Any, ...]) -> BatchEnvelope:
        """Runs the items of some requests, which are one batch."""
        with self._presence():
            answer = await self._once(sources[0].id, partial(self._divide, sources, values))
            assert isinstance(answer, BatchEnvelope)
            return answer

    def _changed(self) -> None:
        """A call has ended, or an answer is kept no more: `until_idle` looks again."""
        if (watch := self._admission.watch) is not None:
            watch.set()

    def keep(self, name: str, answered: Answered) -> None:
        """The answer, or the error, of a request that comes again by another way to fetch it: under its id.
        Or a part of a stream: under a name, by which it is fetched."""
        self._kept.keep(name, answered)

    def forget(self, name: str) -> None:
        """Nobody fetches that any more. Safe to repeat."""
        if self._kept.take(name) is not None:
            self._changed()

    def fetch(self, name: str) -> Any:
        """What is kept under that name, once. Raises its error, or RequestCancelled where it is not there."""
        kept = self._kept.take(name)
        self._changed()
        if kept is None:
            why = f"its caller did not fetch a large part of it within {KEPT_SECONDS:g} s"
            raise RequestCancelled.because(why)
        answer, error = kept
        if error is not None:
            raise error
        return answer

    @contextlib.contextmanager
    def _presence(self) -> Iterator[None]:
        self._present += 1
        try:
            yield
        finally:
            self._present -= 1
            self._changed()

    async def until_idle(
        self, timeout: float, hand_over: Callable[[], Awaitable[None]] | None = None
    ) -> bool:
        """Waits until nothing waits, runs or is served here; whether that was within `timeout` seconds.
        `hand_over` sends what waits to other workers. That one of them has room is no event of this worker,
        so it is asked again every HAND_OVER_SECONDS while something waits."""
        supervisor = self._supervisor
        deadline = supervisor.clock() + timeout
        while True:
            changes = self._admission.next_change()
            if not (self.present or supervisor.running or supervisor.waiting):
                return True
            left = deadline - supervisor.clock()
            if left <= 0:
                return False
            if hand_over is not None:
                await hand_over()
                left = min(left, HAND_OVER_SECONDS) if supervisor.waiting else left
            await happens(changes, left)

    async def _once(self, request_id: str, serve: Callable[[], Awaitable[Any]]) -> Any:
        """What `serve` gives, or what the same request comes to that is served already, or was before."""
        kept = self._kept.take(request_id) if self._kept.answers else None
        if kept is not None:
            answer, error = kept
            if error is not None:
                raise error
            return answer
        while request_id in self._served:
            answer = await self._served.answer(request_id)
            if answer is not None:  # else it was cancelled
                return answer
        self._served[request_id] = None
        answer, error = None, None
        try:
            answer = await serve()
        except Exception as raised:
            error = raised
            raise
        finally:
            waiting = self._served.pop(request_id)
            if waiting is not None and not waiting.done():
                waiting.set_result((answer, error))
        return answer

    async def _in_turn(self, request: pb.Request, values: tuple[Any, ...]) -> Any:
        """Serves a request of a session's order, or one with buffers beside it."""
        async with self._ordering.in_turn(request):
            if not values:
                return await self._enter(request, movable=True)
            with self._cargo.of(request.id, await self._unpacked([request], values)):
                return await self._enter(request, movable=False)

    async def _enter(self, request: pb.Request, *, movable: bool) -> Any:
        if request.options.hops:
            return await self._execute_delegated(request)
        with self._accounts.opened(request) as account:
            if self._gate.idle:
                answer = await self._execute(request, movable=movable)
            else:
                async with self._gate.passing() as passage:
                    answer = passage.brings(await self._execute(request, movable=movable))
            account.is_(answer)
            return answer

    async def _divide(self, sources: list[pb.Request], values: tuple[Any, ...]) -> BatchEnvelope:
        workers = self._pool_link.memory.size or self._config.size or 1
        size = sum(source.batch.count for source in sources)
        self._memory.arrives(sources[0])
        try:
            with self._accounts.divided(sources[0], size) as account:
                batch = BatchRun(sources, workers * self._config.capacity, self._part, account)
                async with self._ordering.in_turn(sources[0]):
                    return await self._spread(batch, sources, values)
        finally:
            self._memory.over(sources[0])

    async def _spread(
        self, batch: BatchRun, sources: Sequence[pb.Request], values: tuple[Any, ...]
    ) -> BatchEnvelope:
        with self._cargo.of(sources[0].id, await self._unpacked(sources, values)):
            if self._gate.idle:
                return await batch.run()
            async with self._gate.passing() as passage:
                return passage.brings(await batch.run())

    def execute_stream(self, blob: bytes, values: tuple[Any, ...]) -> AsyncGenerator[Any]:
        """`stream` of a request that came serialized."""
        return self.stream(pb.Request.FromString(blob), values)

    async def stream(self, request: pb.Request, values: tuple[Any, ...]) -> AsyncGenerator[Any]:
        """Runs one request whose command yields."""
        with self._presence():
            async with self._ordering.in_turn(request):
                with self._cargo.of(request.id, await self._unpacked([request], values)):
                    async with self._streams.opened(request) as chunks:
                        while (chunk := await chunks.next()) is not None:
                            yield chunk

    def close_stream(self, request_id: str) -> None:
        """Nobody takes its chunks any more."""
        self._streams.close(request_id)

    async def recall(self, request: pb.Request) -> Delegated | bool:
        """What became of a request that another worker had moved here, to this process or to one before it;
        where that is not known, whether it may have begun."""
        if request.id in self._served:
            answer = await self._served.answer(request.id)
            if isinstance(answer, Delegated):
                return answer
        known = self._memory.recall(request)
        if known is not None:
            return Delegated(known.value, self._supervisor.free > 0)
        return await self._memory.may_have_begun(request.id)

    async def _part(self, request: pb.Request) -> Any:
        return await self._execute(request, movable=True)

    async def _execute(self, request: pb.Request, *, movable: bool) -> Any:
        state = self._memory.arrives(request)
        try:
            if request.session or self._admission.sends_away or self._memory.begun_before(request):
                with self._ordering.sent_on(request):
                    relayed = await self._peers.elsewhere(request, state)
                if relayed is not None:
                    return relayed.unwrap()
            return await self._execute_here(request, movable=movable)
        finally:
            self._memory.over(request)

    async def _execute_here(self, request: pb.Request, *, movable: bool) -> Any:
        on_slot = self._pool_link.sessions.on_slot(request)
        if request.options.turn:
            self._ordering.begins(request)
        try:
            may_move = movable and on_slot is None
            done = await self._dispatch.run(request, may_move=may_move, on_slot=on_slot)
        except WorkerCrashed as crash:
            if self._delegations.is_tried_again(request):
                raise
            return crashed(request, crash)
        if isinstance(done, Relayed):
            return done.value
        self._memory.ended(request, done)
        return self._memory.envelope(request, done)

    async def _execute_delegated(self, request: pb.Request) -> Refused | Delegated:
        """Runs another worker's request. Its error travels as a value: Ray would wrap it twice, and its
        sender is to know that the slot is free again."""
        refusal = self._delegations.refusal(request.options)
        if refusal is not None:
            return refusal
        self._memory.arrives(request)
        answer: Any
        try:
            answer = await self._execute_here(request, movable=False)
        except SnakepitError as error:
            answer = error
        finally:
            self._memory.over(request)
        return Delegated(answer, self._delegations.ended(request.options))

    def _stream_info(self, request: pb.Request, waited: float, ran: float) -> Info:
        interpreter = self._supervisor.interpreter
        pid = interpreter.child.pid if interpreter is not None else 0
        return self._memory.info(request, self._supervisor.epoch, pid, waited, ran, 1)

    async def _unpacked(self, requests: Sequence[pb.Request], values: tuple[Any, ...]) -> list[Any]:
        """The buffers that travel beside the requests; the values that Ray resolved for refs are among them
        now."""
        fill = partial(unpack, requests, values, self._config.binary_threshold)
        if sum(sys.getsizeof(value) for value in values) < LARGE_REFS_BYTES:
            return fill()
        return await asyncio.to_thread(fill)  # encoding a large value takes a while: not on the loop
