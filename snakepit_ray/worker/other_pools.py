"""The pools whose commands are tools of this worker's interpreters: `ctx.call_tool("pool.command", ...)`.

- A pool is looked for when a command names it, and its table is asked for again when it is older than
  FRESH_SECONDS, while the old one serves; one that is older than STALE_SECONDS does not.
- A request goes from worker to worker as any caller's: by the lane of a worker of this node, else by Ray. No
  value is decoded here, unless the pool's Runtime has hooks.
- A request has the id of this worker's process as its caller: it is dropped when this process has ended.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import ray

from snakepit_ray.config import CallOptions, PoolConfig
from snakepit_ray.core.routing.view import RoutingView
from snakepit_ray.core.work.request_ids import ids_of
from snakepit_ray.errors import PoolNotFound, SnakepitError, WorkerCrashed
from snakepit_ray.port import ray_port
from snakepit_ray.port.messages import Entry, Snapshot
from snakepit_ray.process.awaiting import within
from snakepit_ray.runtimes import has_hooks, resolve_runtime
from snakepit_ray.wire import chains, lane
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded, Envelope, encode_value, is_progress
from snakepit_ray.wire.host_call import HostCall
from snakepit_ray.wire.requests import RequestBuilder
from snakepit_ray.worker.peer_links import LaneEnded, PeerLinks

FRESH_SECONDS = 1.0
STALE_SECONDS = 5.0
ASK_SECONDS = 5.0
DEPARTED_MARGIN = 0.5  # seconds by which a router may hear of a death too late
AHEAD_CHUNKS = 8  # of a stream, that are under way


class OtherPools:
    """The pools that this worker has met."""

    def __init__(self, links: Callable[[], PeerLinks]) -> None:
        self._links = links
        self._pools: dict[str, OtherPool] = {}

    async def find(self, name: str) -> tuple[OtherPool, str] | None:
        """The pool and the command that `name` means; None where no such pool runs."""
        parts = name.split(".")
        for size in range(len(parts) - 1, 0, -1):  # a pool's name may have dots, too
            pool = await self._pool(".".join(parts[:size]))
            if pool is not None:
                return pool, ".".join(parts[size:])
        return None

    async def _pool(self, name: str) -> OtherPool | None:
        pool = self._pools.get(name)
        if pool is not None and not await pool.has_ended():
            return pool
        try:
            router = await asyncio.to_thread(ray_port.find_router, name)
            config, _ = await ray_port.unowned(router.describe)
            snapshot = await ray_port.unowned(router.snapshot)
        except (PoolNotFound, SnakepitError, ray_port.RayError):
            return None
        pool = self._pools[name] = OtherPool(router, config, snapshot, self._links())
        return pool


class OtherPool:
    """One pool, as a worker of another one calls it."""

    def __init__(
        self,
        router: Any,
        config: PoolConfig,
        snapshot: Snapshot,
        links: PeerLinks,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_gone = False
        self._router = router
        self._config = config
        self._links = links
        self._clock = clock
        self._view: RoutingView[str] = RoutingView()
        self._entries: dict[str, Entry] = {}
        self._refreshing: asyncio.Task[None] | None = None
        caller = secrets.token_hex(8)
        self._lease = ray_port.hold_lease(router, caller)  # the router sees this process's end by it
        runtime = resolve_runtime(config.runtime)
        self._has_hooks = has_hooks(runtime)
        self._builder = RequestBuilder(config, runtime, None, ids_of(caller))
        self._learn(snapshot)

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._config.name

    async def has_ended(self) -> bool:
        """Whether it is known to have ended; its router is asked first where its table is old."""
        if not self.is_gone and self._clock() - self._learnt_at > STALE_SECONDS:
            self._refresh()
            assert self._refreshing is not None
            await asyncio.wait([self._refreshing], timeout=ASK_SECONDS)
        return self.is_gone

    async def call(self, command: str, call: HostCall, chain: pb.Chain) -> Encoded:
        """The value of a command. Raises what the request comes to."""
        request, beside = await self._request(command, call, chain, is_stream=False)
        for is_last in (False, True):
            entry, sent_at = self._target(call.session, chain), self._clock()
            try:
                answer = await self._by_lane(entry, request) if not beside else None
                if answer is None:
                    answer = await self._by_ray(entry, request, beside)
                return await _encoded(answer)
            except ray_port.RayError as error:
                told = await self._told(entry, sent_at, error)
                if is_last or not isinstance(told, WorkerCrashed) or told.may_have_started:
                    raise told from None
        raise AssertionError("the last try has an outcome")

    async def stream(self, command: str, call: HostCall, chain: pb.Chain) -> AsyncGenerator[Encoded]:
        """The values of a command that yields. Raises what the request comes to."""
        request, beside = await self._request(command, call, chain, is_stream=True)
        entry = self._target(call.session, chain)
        sent_at = self._clock()
        chunks = ray_port.stream(entry.actor, AHEAD_CHUNKS, request.SerializeToString(), *beside)
        try:
            async for ref in chunks:
                chunk = await ray_port.owned(ref)
                if not is_progress(chunk.json):
                    yield await _encoded(chunk)
        except ray_port.RayError as error:
            raise await self._told(entry, sent_at, error) from None
        finally:
            ray_port.end_stream(chunks, entry.actor, request.id)

    async def _request(
        self, command: str, call: HostCall, chain: pb.Chain, *, is_stream: bool
    ) -> tuple[pb.Request, list[Any]]:
        left = None if call.deadline is None else max(0.001, call.deadline - time.monotonic())
        options = CallOptions(session=call.session or None, timeout=left)
        build = partial(self._builder.passed_on, command, call.payload, options, stream=is_stream)
        request, beside = await asyncio.to_thread(build) if self._has_hooks else build()
        request.chain.CopyFrom(chain)
        request.traceparent, request.tracestate = call.traceparent, call.tracestate
        return request, beside

    # ---- ways ---------------------------------------------------------------------------------------------

    async def _by_lane(self, entry: Entry, request: pb.Request) -> Envelope | SnakepitError | None:
        """None where the request, or only its answer, goes by Ray."""
        try:
            answer = await self._links.run(entry.lane, request, request.SerializeToString(), lane.CALL)
        except LaneEnded:
            return None  # with the same id: what has begun there does not run twice
        return None if answer is None else lane.relayed(answer, request)  # type: ignore[return-value] # no batch

    async def _by_ray(self, entry: Entry, request: pb.Request, beside: list[Any]) -> Any:
        ref = ray_port.unowned(entry.actor.execute, request.SerializeToString(), *beside)
        try:
            return await ray_port.owned(ref)
        except asyncio.CancelledError:
            ray.cancel(ref)
            raise

    async def _told(self, entry: Entry, sent_at: float, error: Exception) -> Exception:
        """Our error for one of Ray's. A worker's death is told as the worker's, or as the pool's end."""
        if not isinstance(error, ray_port.ActorDied):
            return ray_port.translate(error, self.name) or error
        self._view.avoid(entry.worker_id)
        self._refresh()
        gone: float | None = None
        try:
            gone = await within(ASK_SECONDS, ray_port.unowned(self._router.departed, entry.worker_id))
        except ray_port.ActorDied as of_router:
            self.is_gone = True
            return ray_port.pool_gone(str(of_router), self.name)
        except (ray_port.RayError, asyncio.TimeoutError):
            pass  # the router restarts, and forgets
        began = gone is None or gone < self._clock() - sent_at + DEPARTED_MARGIN
        words = (
            "died while it had the request, which may or may not have run"
            if began
            else "was gone before the request came; nothing was executed"
        )
        return WorkerCrashed(
            f"worker {entry.worker_id} {words}", worker_id=entry.worker_id, may_have_started=began
        )

    # ---- the table ----------------------------------------------------------------------------------------

    def _target(self, session: str, chain: pb.Chain) -> Entry:
        """A session's worker, else the one that the chain has come from, else one with little load."""
        if self._clock() - self._learnt_at > FRESH_SECONDS:
            self._refresh()
        if not len(self._view):
            raise PoolNotFound(f"pool {self.name!r} has no worker that is ready")
        view, before = self._view, chains.worker_of(chain, self.name)
        if session:
            return self._entries[view.choose_for_session(session)]
        if before is not None and before in self._entries:
            return self._entries[before]
        return self._entries[view.choose(random.random)]

    def _refresh(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = ray_port.unowned_task(self._ask_again())

    async def _ask_again(self) -> None:
        try:
            self._learn(await self._router.snapshot.remote())
        except ray_port.ActorUnavailable:
            pass  # its router restarts: the workers serve
        except ray_port.RayError:
            self.is_gone = True

    def _learn(self, snapshot: Snapshot) -> None:
        self._learnt_at = self._clock()
        rows = [(entry.worker_id, entry.capacity, entry.load) for entry in snapshot.entries]
        if self._view.update(snapshot.version, rows):
            self._entries = {entry.worker_id: entry for entry in snapshot.entries}
        else:
            self._view.publish({worker_id: load for worker_id, _, load in rows})


async def _encoded(answer: Envelope | SnakepitError) -> Encoded:
    """The value as it came. Raises the error that came instead."""
    if isinstance(answer, SnakepitError):
        raise answer
    if answer.runtime:  # its Runtime has the last word on what the value is
        return await asyncio.to_thread(lambda: encode_value(answer.value(), root="result"))
    return Encoded(answer.json, list(answer.buffers), [])
