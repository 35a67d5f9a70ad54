"""Knows the handle that people hold: calls, a paced map, numbers, size, the end.

Rules: picklable and small, into tasks, actors and other jobs; a call is one Ray actor call straight to a
worker, so the router is never on its way; `.remote` never blocks, so it may be used on an event loop; the
blocking forms raise our own errors, never Ray's."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping
from typing import Any

import ray

from snakepit_ray.actors import ray_port
from snakepit_ray.actors.link import Link, link_to
from snakepit_ray.actors.members import PoolStats
from snakepit_ray.actors.messages import Snapshot, WorkerFacts
from snakepit_ray.config import DEFAULT_OPTIONS, CallOptions, PoolConfig
from snakepit_ray.errors import ConfigError
from snakepit_ray.requests import RequestBuilder
from snakepit_ray.runtimes import resolve_runtime
from snakepit_ray.session import Session
from snakepit_ray.streaming import SessionStreamCall, ShowProgress, StreamCall, async_values, values

ANSWER_MARGIN = 5.0  # for an answer to travel, beyond the request's own budget
CONTROL_SECONDS = 30.0
SHUTDOWN_SECONDS = 30.0


class Pool:
    """A running pool of external interpreters. Made by `snakepit_ray.start` and `snakepit_ray.connect`."""

    def __init__(self, link: Link, *, owner: bool = False) -> None:
        self._link = link
        self._owner = owner
        runtime = resolve_runtime(link.config.runtime)
        self._builder = RequestBuilder(link.config, runtime, ray.ObjectRef, link.new_id)
        self.execute = Call(self)
        self.execute_in_session = SessionCall(self)
        self.execute_stream = StreamCall(self)
        self.execute_in_session_stream = SessionStreamCall(self)

    @property
    def name(self) -> str:
        """Unique in the cluster."""
        return self._link.config.name

    @property
    def config(self) -> PoolConfig:
        """What the pool was started with."""
        return self._link.config

    def session(self, session_id: str) -> Session:
        """Calls that belong to one session."""
        return Session(self, session_id)

    # ---- calls --------------------------------------------------------------------------------------------

    def _send(self, command: str, args: Any, options: CallOptions) -> Any:
        request, refs = self._builder.build(command, args, options)
        execute, request.options.incarnation = self._link.target(options.session)
        return execute.remote(request.SerializeToString(), *refs)

    async def call(self, command: str, args: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """`execute` for asyncio: the value, or one of our errors. A cancelled task cancels the command."""
        ref = self.execute.remote(command, args, **options)
        try:
            return await ref
        except ray_port.RayError as error:
            raise self._our(error, None) from None
        except BaseException:
            ray.cancel(ref)
            raise

    def stream(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        progress: ShowProgress = False,
        **options: Any,
    ) -> Generator[Any]:
        """The values that `command` yields, as they come; closing or dropping the iterator stops it.

        `progress`: reports (`ctx.progress(...)` in the command) are dropped, or with True shown as a bar on
        stderr, or given to a function."""
        return values(self, command, args, DEFAULT_OPTIONS.merge(**options), progress)

    def astream(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        progress: ShowProgress = False,
        **options: Any,
    ) -> AsyncIterator[Any]:
        """`stream` for asyncio: `async for`."""
        return async_values(self, command, args, DEFAULT_OPTIONS.merge(**options), progress)

    def map(
        self,
        command: str,
        items: Iterable[Any],
        *,
        ordered: bool = True,
        in_flight: int | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        """The results of `command` for each item (a mapping of arguments), lazily and paced: at most
        `in_flight` requests (default: two for each slot) are under way, so that no queue overflows and
        `items` may be endless.

        In the order of the items, or with `ordered=False` as they finish. The first error ends it; leaving
        the iterator early cancels what is under way."""
        merged = DEFAULT_OPTIONS.merge(**options)
        limit = in_flight or 2 * self.config.capacity * max(1, self._link.workers)
        if limit < 1:
            raise ConfigError(f"in_flight: got {limit}, expected at least 1")
        return self._paced(command, iter(items), merged, ordered, limit)

    def _paced(
        self, command: str, items: Iterator[Any], options: CallOptions, ordered: bool, limit: int
    ) -> Iterator[Any]:
        under_way: deque[Any] = deque()
        try:
            for item in items:
                under_way.append(self._send(command, item, options))
                if len(under_way) >= limit:
                    yield self._next_of(under_way, options, ordered)
            while under_way:
                yield self._next_of(under_way, options, ordered)
        finally:
            for ref in under_way:
                ray.cancel(ref)

    def _next_of(self, under_way: deque[Any], options: CallOptions, ordered: bool) -> Any:
        if ordered:
            ref = under_way.popleft()
        else:
            (ref,), _ = ray.wait(list(under_way), num_returns=1)
            under_way.remove(ref)
        return self._get(ref, options)

    def _get(self, ref: Any, options: CallOptions) -> Any:
        budget = self.config.request_timeout if options.timeout is None else options.timeout
        while True:
            try:
                return ray.get(ref, timeout=budget + ANSWER_MARGIN)
            except ray_port.RayError as error:
                # Without a timeout of the caller's own the command may have a longer one than the pool; a
                # worker that is there sees to it, one that never comes back does not.
                if isinstance(error, ray_port.GetTimeout) and options.timeout is None and self._link.workers:
                    continue
                raise self._our(error, budget) from None

    def _our(self, error: Exception, budget: float | None) -> BaseException:
        cause = getattr(error, "cause", None)
        return ray_port.translate(cause if cause is not None else error, self.name, budget) or error

    # ---- control ------------------------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """The pool's numbers now."""
        stats: PoolStats = self._control("stats")[0]
        return stats

    def get_stats(self) -> dict[str, int]:
        """The numbers under the names that the original library gave them."""
        stats = self.stats()
        return {
            "workers": stats.workers,
            "available": stats.available,
            "busy": stats.busy,
            "requests": stats.requests,
            "queued": stats.waiting,
            "errors": stats.errors,
            "queue_timeouts": stats.queue_timeouts,
            "pool_saturated": stats.saturated,
        }

    def workers(self) -> list[WorkerFacts]:
        """One record for each worker, by id."""
        return sorted(self._control("workers"), key=lambda facts: facts.worker_id)

    def await_ready(self, timeout: float = 60.0) -> Pool:
        """Waits until every worker is ready. Raises WorkerStartError when they are not within `timeout`
        seconds."""
        self._control("await_ready", timeout, True, within=timeout + ANSWER_MARGIN)
        self._link.refresh(CONTROL_SECONDS)
        return self

    def scale(self, size: int) -> Pool:
        """Changes the number of workers; returns when leavers are gone and joiners are ready."""
        wanted = self.config.merge(size=size)
        assert wanted.size is not None
        bound = CONTROL_SECONDS + self.config.startup_timeout + self.config.request_timeout
        self._control("scale", wanted.size, within=bound)
        return self.await_ready(bound)

    def recycle(self, worker_id: str | None = None) -> int:
        """Has one worker's interpreter, or all of them, replaced, a quarter of the pool at a time; how many
        were told. Returns at once: `stats().recycled` and the epochs of `workers()` say how far it is."""
        told: int = self._control("recycle", worker_id)
        return told

    def stories(self) -> dict[str, list[str]]:
        """The last events of each worker's life, the oldest first."""
        told: dict[str, list[str]] = self._control("stories")
        return told

    def shutdown(self, drain: float = 0.0) -> None:
        """Ends the pool: its interpreters, its workers, its router. Safe to repeat.

        `drain`: seconds that what waits and runs may take to end; nothing new is taken meanwhile."""
        if not self._link.closed:
            if drain > 0:
                bound = drain + ANSWER_MARGIN
                ray_port.quietly(self._link.router.drain.remote(drain), bound)
            # A router that is gone or does not answer is no reason to stop: its end is below.
            ray_port.quietly(self._link.router.shutdown.remote(), SHUTDOWN_SECONDS)
            self._link.close()
            ray_port.end(self._link.router)

    def message_counts(self) -> dict[str, int]:
        """Messages that the router got since it started, by kind: none of them is a request or a result."""
        counts: dict[str, int] = self._control("message_counts")
        return counts

    def _control(self, method: str, *args: Any, within: float = CONTROL_SECONDS) -> Any:
        self._link.check_open()
        try:
            return ray.get(getattr(self._link.router, method).remote(*args), timeout=within)
        except ray_port.RayError as error:
            raise self._our(error, within) from None

    # ---- the handle ---------------------------------------------------------------------------------------

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._owner:
            self.shutdown()

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self._link.config, self._link.router, self._link.snapshot())

    def __repr__(self) -> str:
        link = self._link
        if link.closed:
            return f"<Pool {self.name!r} closed>"
        trying = "" if link.workers >= (link.config.size or 0) else ", the others are starting or failed"
        return f"<Pool {self.name!r} {link.workers} of {link.config.size} workers ready{trying}>"


def _unpickle(config: PoolConfig, router: Any, snapshot: Snapshot) -> Pool:
    return Pool(link_to(config, router, snapshot))


class Call:
    """`pool.execute`: called, it blocks and returns the value; `.remote` returns an ObjectRef."""

    __slots__ = ("_options", "_pool")

    def __init__(self, pool: Pool, options: CallOptions = DEFAULT_OPTIONS) -> None:
        self._pool = pool
        self._options = options

    def options(self, **options: Any) -> Call:
        """The same call with these options (see CallOptions). Raises ConfigError."""
        return Call(self._pool, self._options.merge(**options))

    def remote(self, command: str, args: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Sends the command; the ref holds its value, or raises its error.

        Top-level ObjectRefs among `args` are resolved by Ray at the worker. Raises EncodingError,
        InvalidArguments, PayloadTooLarge, PoolClosed here, before anything is sent."""
        merged = self._options.merge(**options) if options else self._options
        return self._pool._send(command, args, merged)

    def __call__(self, command: str, args: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Sends the command and waits for its value."""
        merged = self._options.merge(**options) if options else self._options
        return self._pool._get(self._pool._send(command, args, merged), merged)


class SessionCall:
    """`pool.execute_in_session`: `execute` with the session's id first."""

    __slots__ = ("_call", "_pool")

    def __init__(self, pool: Pool, call: Call | None = None) -> None:
        self._pool = pool
        self._call = call or Call(pool)

    def options(self, **options: Any) -> SessionCall:
        """The same call with these options."""
        return SessionCall(self._pool, self._call.options(**options))

    def remote(
        self, session: str, command: str, args: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """As `pool.execute.remote`, in `session`."""
        return self._call.remote(command, args, session=session, **options)

    def __call__(
        self, session: str, command: str, args: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """As `pool.execute`, in `session`."""
        return self._call(command, args, session=session, **options)
