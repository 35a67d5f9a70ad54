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
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from snakepit_ray.client import given, tools
from snakepit_ray.client.coalescing import Coalescer
from snakepit_ray.client.directory import Directory
from snakepit_ray.client.forms import BatchCall, Call, SessionCall
from snakepit_ray.client.future import CallFuture
from snakepit_ray.client.given import ShowProgress
from snakepit_ray.client.lanes import Waits
from snakepit_ray.client.map import MapRun
from snakepit_ray.client.sender import ANSWER_MARGIN, Sender
from snakepit_ray.client.session import Session
from snakepit_ray.client.session_talks import begun
from snakepit_ray.client.sessions import Sessions
from snakepit_ray.client.stream import SessionStreamCall, StreamCall, async_values, values
from snakepit_ray.client.variable_talks import VariableTalks
from snakepit_ray.config import DEFAULT_OPTIONS, PoolConfig, checks
from snakepit_ray.core.tools.tool import ToolInfo
from snakepit_ray.core.worker.command_info import PoolDescription
from snakepit_ray.port import control, ray_port
from snakepit_ray.port.messages import PoolStats, WorkerFacts

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.config.keywords import AffinityName, CallSettings, Seconds, ToolPlace

CONTROL_SECONDS = 30.0


class Pool:
    """A running pool of external interpreters. Made by `snakepit_ray.start` and `snakepit_ray.connect`.

    Calls have several forms. All take the same options (see CallOptions), as keywords. All raise the errors
    of `snakepit_ray.errors`. A `with` block ends the pool, where this process started it.
    """

    # Slots, because a property would cost a function call for each call; a dict, because `help` shows its
    # texts. __dict__ stays, so that users' tests can replace methods of a pool.
    __slots__ = {
        "__dict__": "",
        "__weakref__": "",
        "execute": Call.__doc__,
        "execute_batch": BatchCall.__doc__,
        "execute_in_session": SessionCall.__doc__,
        "execute_in_session_stream": SessionStreamCall.__doc__,
        "execute_stream": StreamCall.__doc__,
    }
    execute: Call
    execute_batch: BatchCall
    execute_in_session: SessionCall
    execute_in_session_stream: SessionStreamCall
    execute_stream: StreamCall

    def __init__(self, directory: Directory, *, owner: bool = False) -> None:
        self._directory = directory
        # By process: what was forked from the one that started the pool does not end it.
        self._owner = os.getpid() if owner else 0
        self._sender = Sender(directory)
        self._coalescer = Coalescer(self._sender)
        self.execute = Call(self._sender)
        self.execute_batch = BatchCall(self._sender)
        self.execute_in_session = SessionCall(self._sender)
        self.execute_stream = StreamCall(self._sender)
        self.execute_in_session_stream = SessionStreamCall(self._sender)

    @property
    def name(self) -> str:
        """The pool's name, unique in the cluster."""
        return self._directory.config.name

    @property
    def config(self) -> PoolConfig:
        """The settings that the pool was started with."""
        return self._directory.config

    def session(
        self,
        session_id: str,
        *,
        ttl: Seconds | None = None,
        metadata: Mapping[str, Any] | None = None,
        affinity: AffinityName | None = None,
    ) -> Session:
        """Calls that carry one session's id, and the session's variables.

        With the id alone nothing is sent: the first use of its variables makes the session where there is
        none. With `ttl` or `metadata` it is made here, or joined: of several at once, one makes it. On an
        event loop: `await pool.asession(id, ttl=...)`.

        Args:
            session_id: 1 to 1024 bytes of UTF-8.
            ttl: seconds that the session lives without being used, or text such as "1h"; by default the
                pool's session_ttl. It belongs to the session: who joins one changes nothing.
            metadata: at most 32 entries of JSON, 4,096 bytes, of a session that is made now.
            affinity: of the calls of this handle that do not say their own; by default the pool's.

        Raises: ConfigError for another id or affinity. Where the session is made here: InvalidArguments,
        SessionQuotaExceeded, DeadlineExceeded, PoolClosed.
        """
        if ttl is None and metadata is None:
            return Session(self._sender, session_id, self._coalescer, affinity=affinity)
        access = self._sender.access
        return self._session(access.run(begun(access, session_id, ttl, metadata)), affinity)

    async def asession(
        self,
        session_id: str,
        *,
        ttl: Seconds | None = None,
        metadata: Mapping[str, Any] | None = None,
        affinity: AffinityName | None = None,
    ) -> Session:
        """`session` for asyncio. The session is made, or joined, here."""
        access = self._sender.access
        return self._session(await access.arun(begun(access, session_id, ttl, metadata)), affinity)

    def _session(self, variables: VariableTalks, affinity: AffinityName | None) -> Session:
        return Session(self._sender, variables.session_id, self._coalescer, variables, affinity)

    @property
    def sessions(self) -> Sessions:
        """All sessions that the cluster's pools have made: to make, find, change and end them, and the
        programs that are kept with them."""
        return Sessions(self._sender.access)

    # ---- calls --------------------------------------------------------------------------------------------

    async def call(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> Any:
        """`execute` for asyncio. Cancelling the task cancels the command.

        Calls of one turn of the event loop that have the same command and options travel together. Each has
        its own outcome.

        Returns: the command's value, or a `Reply` with `info=True`.

        Raises: as `execute`.
        """
        return await self._coalescer.call(command, args, DEFAULT_OPTIONS.merge(**options))

    def submit(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> concurrent.futures.Future[Any]:
        """`execute` as a future; its `cancel()` cancels the command, also one that runs.

        Done-callbacks run one after the other in a thread of their own. One that blocks holds up other
        callbacks and nothing else.

        Returns: a concurrent.futures.Future, whose `result()` returns and raises as `execute`.

        Raises: EncodingError, InvalidArguments, PayloadTooLarge, PoolClosed here, before anything is sent.
        """
        merged = DEFAULT_OPTIONS.merge(**options)
        sent = self._sender.now(command, args, merged, encoded=True, waits=Waits.THREAD)
        return CallFuture(sent, self._sender)

    def stream(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        progress: ShowProgress = False,
        **options: Unpack[CallSettings],
    ) -> Generator[Any]:
        """The values that a command yields, as they come.

        The command starts with this call. Closing or dropping the iterator stops it.

        Args:
            command: its name. One that returns instead of yielding gives one value.
            args: its arguments by name.
            progress: what becomes of the command's `ctx.progress(...)`. False drops it, True shows a bar on
                stderr, a function is called with each `Progress`.
            options: see CallOptions. `timeout` is for the whole stream; its default is 300 s, or the pool's
                request_timeout where that is longer.

        Raises: here as `submit`; the command's own error in the place of the value that is missing.
        """
        return values(self._sender, command, args, DEFAULT_OPTIONS.merge(**options), progress)

    def astream(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        progress: ShowProgress = False,
        **options: Unpack[CallSettings],
    ) -> AsyncIterator[Any]:
        """`stream` for asyncio: `async for value in pool.astream(command, args)`."""
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
        """Runs a command for each item, lazily and paced, so that no queue overflows.

        Items travel in chunks of about 10 ms of work, slow items alone. Leaving the iterator early cancels
        what is under way.

        Args:
            command: its name.
            items: mappings of arguments; may be endless. Anything but a list or a tuple is drawn in a thread.
            ordered: results in the order of the items, or else as they finish.
            in_flight: items that may be drawn before their turn to be handed out; None: as the slots need.
            chunk_size: items in a chunk; None: as many as about 10 ms of work.
            return_exceptions: errors stand among the results, and do not end the iteration.
            options: see CallOptions. `timeout` is for each chunk.

        Returns: an iterator of the results.

        Raises: ConfigError here. While iterating: the first error of an item, or what `items` raised.
        """
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

    # ---- tools --------------------------------------------------------------------------------------------
    # They raise PoolClosed, and DeadlineExceeded when the router does not answer within 30 s.

    def register_tool(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        session: str | None = None,
        where: ToolPlace = "here",
        description: str = "",
        parameters: Any = None,
    ) -> None:
        """Gives the pool's commands a function that they may call: `ctx.call_tool(name, **arguments)`.

        When this returns every worker knows it. A generator function is a stream: `ctx.stream_tool`.

        Args:
            name: 1 to 64 bytes: a letter or a digit, then letters, digits, `_`, `-`, `.`.
            function: what is called, with the arguments by name. Its value is encoded as a command's is.
            session: the session whose commands may call it; None: all of the pool.
            where: "here": in this process, with its live objects. Async functions run on a loop of their
                own, others in threads, several at once. Such a tool ends with this process. "worker": in
                threads of each worker actor, which has a copy of the function; a function that crashes the
                process takes the worker along. "task": as a Ray task that asks for no CPU.
            description: what it does, for `ctx.tools`; by default the first paragraph of its docstring.
            parameters: the JSON schema of its arguments, or a list of {"name", "type", "description",
                "required"}; by default from its signature. With the description at most 4,096 bytes of JSON
                and 32 arguments.

        Raises: DuplicateTool where the name is taken, or means a command of a pool that runs; ConfigError for
        what cannot be a tool; EncodingError for a function that cannot travel.
        """
        tools.register(self._directory, {name: function}, session, where, description, parameters)

    def register_tools(
        self,
        functions: Mapping[str, Callable[..., Any]],
        *,
        session: str | None = None,
        where: ToolPlace = "here",
    ) -> None:
        """`register_tool` of several functions: all of them, or none.

        Args:
            functions: by name. What is said of each comes from its docstring and its signature.
            session: as in `register_tool`, and so is `where`.

        Raises: as `register_tool`.
        """
        tools.register(self._directory, functions, session, where)

    def unregister_tool(self, name: str, *, session: str | None = None) -> None:
        """Takes a tool away. Calls of it that have begun go on.

        Args:
            name: its name.
            session: the session that it was registered for.

        Raises: ToolNotFound.
        """
        tools.unregister(self._directory, name, session)

    def tools(self) -> list[ToolInfo]:
        """The tools that are registered, by session and name."""
        return tools.listed(self._directory)

    def describe(self) -> PoolDescription:
        """What the pool offers: its commands and its tools, each with a JSON schema of its arguments.

        Returns: a `PoolDescription`. Without a worker that is ready it has no commands.
        """
        commands = {info.name: info for info in self._control("commands")}
        return PoolDescription(self.name, commands, tools.listed(self._directory))

    # ---- control ------------------------------------------------------------------------------------------
    # Each of these asks the router and waits for its answer, at most 30 s where nothing else is said. They
    # raise PoolClosed, and DeadlineExceeded when the router does not answer in time.

    def stats(self) -> PoolStats:
        """The pool's numbers now, asked of the workers. On an event loop: `await pool.astats()`."""
        stats: PoolStats = self._control("stats")[0]
        return stats

    async def astats(self) -> PoolStats:
        """`stats` for asyncio."""
        stats: PoolStats = (await self._acontrol("stats"))[0]
        return stats

    def get_stats(self) -> dict[str, int]:
        """The numbers under the names that the original library gave them: workers, available, busy,
        requests, queued, errors, queue_timeouts, pool_saturated."""
        return self.stats().to_original()

    def workers(self) -> list[WorkerFacts]:
        """One record for each worker, by id. On an event loop: `await pool.aworkers()`."""
        return sorted(self._control("workers"), key=lambda facts: facts.worker_id)

    async def aworkers(self) -> list[WorkerFacts]:
        """`workers` for asyncio."""
        return sorted(await self._acontrol("workers"), key=lambda facts: facts.worker_id)

    def await_ready(self, timeout: float = 60.0) -> Pool:
        """Waits until every worker is ready.

        Args:
            timeout: seconds.

        Returns: this pool.

        Raises: WorkerStartError when not all are ready in time, with the words of one that is missing.
        """
        timeout = given.seconds("await_ready", timeout=timeout)
        self._control("await_ready", timeout, within=timeout + ANSWER_MARGIN)
        self._directory.refresh(CONTROL_SECONDS)
        return self

    def scale(self, size: int) -> Pool:
        """Changes the number of workers. Returns when leavers are gone and joiners are ready.

        Leavers hand their waiting requests on and finish what they run.

        Args:
            size: from 1 to the pool's max_workers.

        Returns: this pool.

        Raises: ConfigError for another size; WorkerStartError when joiners do not become ready.
        """
        wanted = self.config.merge(size=size)
        assert wanted.size is not None
        bound = CONTROL_SECONDS + self.config.startup_timeout + self.config.request_timeout
        self._control("scale", wanted.size, within=bound)
        return self.await_ready(bound)

    def recycle(self, worker_id: str | None = None) -> int:
        """Has interpreters replaced, a quarter of the pool at a time. No request fails by it.

        Returns at once: `stats().recycled` and the epochs of `workers()` say how far it is. On an event loop:
        `await pool.arecycle()`.

        Args:
            worker_id: of the worker whose interpreter is replaced; None: all.

        Returns: how many workers were told.
        """
        checks.checked("recycle", {"worker_id": worker_id}, {"worker_id": checks.optional(checks.text)})
        told: int = self._control("recycle", worker_id)
        return told

    async def arecycle(self, worker_id: str | None = None) -> int:
        """`recycle` for asyncio."""
        told: int = await self._acontrol("recycle", worker_id)
        return told

    def stories(self) -> dict[str, list[str]]:
        """The last events of each worker's life by its id, the oldest first."""
        told: dict[str, list[str]] = self._control("stories")
        return told

    def lanes(self) -> dict[str, str]:
        """Why the lane of each worker that this process knows is not used from here, by the worker's id; ""
        where nothing is in the way."""
        self._directory.check_open()
        return self._directory.why_no_lane()

    def shutdown(self, drain: float = 0.0) -> None:
        """Ends the pool: its interpreters, its workers, its router. Safe to repeat.

        Args:
            drain: seconds that what waits and runs may take to end. Nothing new is taken meanwhile.
        """
        drain = given.seconds("shutdown", drain=drain)
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
        """One line: `<Pool 'features' 3 of 4 workers ready, 1 quarantined, 6 running, 2 waiting>`.

        It tells what this process knows, and asks nobody. Numbers that are 0 are left out.

        - Workers: the router tells every handle that has made a call of each change at once. A handle that
          has not yet, or whose router is being restarted, says how old its numbers are after 5 s.
        - Requests: those that the workers have reported, about 2 s old at most. A worker reports when
          requests wait, and when its load has changed by at least 2 and by half. A single call that finds a
          free slot is not reported, so the real numbers may be higher. `stats()` asks the workers.
        """
        return self._directory.status().line()
