"""The handle that people hold: calls, a paced map, numbers, size, the end.

Rules:
- It is picklable and small, for tasks, actors and other jobs.
- A call is one Ray actor call straight to a worker: the router is never on its way.
- `.remote` never blocks, so it may be used on an event loop.
- The blocking forms raise our own errors, never Ray's.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from snakepit_ray.client.coalescing import Coalescer
from snakepit_ray.client.directory import Directory
from snakepit_ray.client.forms import BatchCall, Call, SessionCall
from snakepit_ray.client.future import CallFuture
from snakepit_ray.client.map import MapRun
from snakepit_ray.client.sender import ANSWER_MARGIN, Sender
from snakepit_ray.client.session import Session
from snakepit_ray.client.stream import SessionStreamCall, ShowProgress, StreamCall, async_values, values
from snakepit_ray.config import DEFAULT_OPTIONS, PoolConfig, checks
from snakepit_ray.port import control, ray_port
from snakepit_ray.port.messages import PoolStats, WorkerFacts

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.config.keywords import CallSettings

CONTROL_SECONDS = 30.0
_SECONDS = dict.fromkeys(("timeout", "drain"), checks.seconds(zero=True))


class Pool:
    """A running pool of external interpreters. Made by `snakepit_ray.start` and `snakepit_ray.connect`."""

    def __init__(self, directory: Directory, *, owner: bool = False) -> None:
        self._directory = directory
        # By process: what was forked from the one that started the pool does not end it.
        self._owner = os.getpid() if owner else 0
        self._sender = Sender(directory)
        self._coalescer = Coalescer(self._sender)
        self._execute = Call(self._sender)
        self._execute_batch = BatchCall(self._sender)
        self._execute_in_session = SessionCall(self._sender)
        self._execute_stream = StreamCall(self._sender)
        self._execute_in_session_stream = SessionStreamCall(self._sender)

    @property
    def name(self) -> str:
        """Unique in the cluster."""
        return self._directory.config.name

    @property
    def config(self) -> PoolConfig:
        """What the pool was started with."""
        return self._directory.config

    def session(self, session_id: str) -> Session:
        """Calls that belong to one session."""
        return Session(self._sender, session_id, self._coalescer)

    # ---- the forms of a call ------------------------------------------------------------------------------

    @property
    def execute(self) -> Call:
        """Runs a command: `pool.execute("add", {"a": 5, "b": 3})` waits for its value, `.remote(...)` returns
        an ObjectRef at once, `.options(timeout=5)` is the same call with options (see CallOptions)."""
        return self._execute

    @property
    def execute_batch(self) -> BatchCall:
        """Runs a command for each item: `pool.execute_batch("add", [{"a": 1, "b": 2}, ...])` waits for the
        list of values, `.remote(...)` returns one ObjectRef for it."""
        return self._execute_batch

    @property
    def execute_in_session(self) -> SessionCall:
        """`execute` with a session's id first: `pool.execute_in_session("user_123", "echo", {...})`."""
        return self._execute_in_session

    @property
    def execute_stream(self) -> StreamCall:
        """Runs a command that yields: `pool.execute_stream(command, args, on_chunk)` hands each value to
        `on_chunk`, `.remote(command, args)` iterates over ObjectRefs, one for each value. See also `stream`.
        """
        return self._execute_stream

    @property
    def execute_in_session_stream(self) -> SessionStreamCall:
        """`execute_stream` with a session's id first."""
        return self._execute_in_session_stream

    # ---- calls --------------------------------------------------------------------------------------------

    async def call(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> Any:
        """`execute` for asyncio: the value, or one of our errors. A cancelled task cancels the command.

        Calls of one turn of the event loop that have the same command and options travel together; each has
        its own outcome."""
        return await self._coalescer.call(command, args, DEFAULT_OPTIONS.merge(**options))

    def submit(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> concurrent.futures.Future[Any]:
        """`execute` as a concurrent.futures.Future; its `cancel()` cancels the command, also one that runs.

        Done-callbacks run one after the other in a thread of their own. One that blocks holds up other
        callbacks and nothing else."""
        sent = self._sender.now(command, args, DEFAULT_OPTIONS.merge(**options), encoded=True)
        return CallFuture(sent, self._sender)

    def stream(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        progress: ShowProgress = False,
        **options: Unpack[CallSettings],
    ) -> Generator[Any]:
        """The values that `command` yields, as they come; closing or dropping the iterator stops it.

        `progress`: reports (`ctx.progress(...)` in the command) are dropped, or with True shown as a bar on
        stderr, or given to a function."""
        return values(self._sender, command, args, DEFAULT_OPTIONS.merge(**options), progress)

    def astream(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        progress: ShowProgress = False,
        **options: Unpack[CallSettings],
    ) -> AsyncIterator[Any]:
        """`stream` for asyncio: `async for`."""
        return async_values(self._sender, command, args, DEFAULT_OPTIONS.merge(**options), progress)

    def map(
        self,
        command: str,
        items: Iterable[Any],
        *,
        ordered: bool = True,
        in_flight: int | None = None,
        chunk_size: int | None = None,
        return_exceptions: bool = False,
        **options: Unpack[CallSettings],
    ) -> Iterator[Any]:
        """The results of `command` for each item (a mapping of arguments), lazily and paced, so that no queue
        overflows and `items` may be endless.

        In the order of the items, or with `ordered=False` as they finish. Items travel in chunks of about
        10 ms of work, slow ones one by one (`chunk_size`: of so many instead); a chunk leaves when a slot is
        near. `in_flight`: how many items may be drawn before their turn to be handed out. The first error
        ends it (`return_exceptions`: it stands among the results); leaving the iterator early cancels what is
        under way. `timeout` is that of each chunk."""
        run = MapRun(
            self._sender,
            command,
            items,
            DEFAULT_OPTIONS.merge(**options),
            ordered=ordered,
            in_flight=in_flight,
            chunk_size=chunk_size,
            return_exceptions=return_exceptions,
        )
        return run.run()

    # ---- control ------------------------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """The pool's numbers now. On an event loop: `await pool.astats()`."""
        stats: PoolStats = self._control("stats")[0]
        return stats

    async def astats(self) -> PoolStats:
        """`stats` for asyncio."""
        stats: PoolStats = (await self._acontrol("stats"))[0]
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
        """One record for each worker, by id. On an event loop: `await pool.aworkers()`."""
        return sorted(self._control("workers"), key=lambda facts: facts.worker_id)

    async def aworkers(self) -> list[WorkerFacts]:
        """`workers` for asyncio."""
        return sorted(await self._acontrol("workers"), key=lambda facts: facts.worker_id)

    def await_ready(self, timeout: float = 60.0) -> Pool:
        """Waits until every worker is ready. Raises WorkerStartError when they are not within `timeout`
        seconds."""
        timeout = checks.checked("await_ready", {"timeout": timeout}, _SECONDS)["timeout"]
        self._control("await_ready", timeout, within=timeout + ANSWER_MARGIN)
        self._directory.refresh(CONTROL_SECONDS)
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
        were told. Returns at once: `stats().recycled` and the epochs of `workers()` say how far it is. On an
        event loop: `await pool.arecycle()`."""
        checks.checked("recycle", {"worker_id": worker_id}, {"worker_id": checks.optional(checks.text)})
        told: int = self._control("recycle", worker_id)
        return told

    async def arecycle(self, worker_id: str | None = None) -> int:
        """`recycle` for asyncio."""
        told: int = await self._acontrol("recycle", worker_id)
        return told

    def stories(self) -> dict[str, list[str]]:
        """The last events of each worker's life, the oldest first."""
        told: dict[str, list[str]] = self._control("stories")
        return told

    def shutdown(self, drain: float = 0.0) -> None:
        """Ends the pool: its interpreters, its workers, its router. Safe to repeat.

        `drain`: seconds that what waits and runs may take to end; nothing new is taken meanwhile."""
        drain = checks.checked("shutdown", {"drain": drain}, _SECONDS)["drain"]
        if not self._directory.closed and self._directory.is_current():
            if drain > 0:
                bound = drain + ANSWER_MARGIN
                ray_port.quietly(self._directory.router.drain.remote(drain), bound)
            control.end(self._directory.router, self.name)
        self._directory.close()

    def message_counts(self) -> dict[str, int]:
        """Messages that the router got since it started, by kind: none of them is a request or a result."""
        counts: dict[str, int] = self._control("message_counts")
        return counts

    def _control(self, method: str, *args: Any, within: float = CONTROL_SECONDS) -> Any:
        self._directory.check_open()
        return control.ask(self._directory.router, self.name, within, method, *args)

    async def _acontrol(self, method: str, *args: Any) -> Any:
        self._directory.check_open()
        return await control.ask_async(self._directory.router, self.name, CONTROL_SECONDS, method, *args)

    # ---- the handle ---------------------------------------------------------------------------------------

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._owner == os.getpid():
            self.shutdown()

    def __reduce__(self) -> tuple[Any, ...]:
        return Pool, (self._directory,)

    def __repr__(self) -> str:
        directory = self._directory
        if directory.closed:
            return f"<Pool {self.name!r} closed>"
        trying = "" if directory.workers >= directory.size else ", the others are starting or failed"
        return f"<Pool {self.name!r} {directory.workers} of {directory.size} workers ready{trying}>"
