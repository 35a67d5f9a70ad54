"""FakePool: the handle of a pool that has neither Ray nor processes."""

from __future__ import annotations

import concurrent.futures
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from snakepit_ray.client import given
from snakepit_ray.client.given import ShowProgress
from snakepit_ray.client.session_talks import begun
from snakepit_ray.client.sessions import Sessions
from snakepit_ray.client.status import Status
from snakepit_ray.config import DEFAULT_OPTIONS, CallOptions, PoolConfig, checks
from snakepit_ray.core.tools.tool import ToolInfo
from snakepit_ray.core.worker.command_info import PoolDescription
from snakepit_ray.errors import ConfigError
from snakepit_ray.port.messages import PoolStats, WorkerCounts, WorkerFacts
from snakepit_ray.testing.fake.calls import FakeCalls
from snakepit_ray.testing.fake.forms import (
    FakeBatchCall,
    FakeCall,
    FakeSession,
    FakeSessionCall,
    FakeSessionStreamCall,
    FakeStreamCall,
    async_values,
    awaited,
    values,
)
from snakepit_ray.testing.fake.refs import FakeRef
from snakepit_ray.testing.fake.script import RecordedCall

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.client.pool import Pool as _Pool
    from snakepit_ray.config.keywords import AffinityName, CallSettings, PoolSettings, Seconds, ToolPlace
else:
    _Pool = object  # to a type checker a FakePool is a Pool; at run time that would load Ray

Commands: TypeAlias = Mapping[str, Callable[..., Any]] | type | object | None


class FakePool(_Pool):
    """A pool for unit tests: what `pool` can do, without Ray and without processes.

    pool = FakePool({"add": lambda a, b: {"result": a + b}})
    assert pool.execute("add", {"a": 5, "b": 3}) == {"result": 8}
    assert pool.calls[0].args == {"a": 5, "b": 3}
    pool.fail("add", snakepit.WorkerCrashed("killed"), call=2)   # the second call from now on

    The same as in a real pool: the forms of a call, options and settings and their checks, arguments that are
    checked against the command's signature, values as they arrive (copies; arrays are read-only), errors and
    their texts, `ctx`, hooks of an adapter, progress, a Runtime's hooks, custom telemetry, sessions and their
    variables, which are in a store of the pool's own, in memory.

    Different:

    - `.remote` returns a FakeRef: `FakePool.get(ref)` and `await ref` take it, `ray.get` does not.
    - A command runs in this process, in the thread that calls, when the call is made. Its outcome is there
      when `.remote` or `submit` returns. A stream's command runs as its values are taken.
    - One adapter serves everything, one command at a time. Nothing waits, so `timeout`, `affinity` and limits
      of queues are checked and have no effect. Let `fail` bring their errors about.
    - An error of `fail` reaches the caller as it is: an idempotent call is not tried again.
    - There are no events of the pool, no circuit breaker, no shared memory, and `isinstance(pool,
      snakepit.Pool)` is False.

    Args:
        commands: functions by name, where a generator function is a stream; or an adapter, as an instance or
            a class (called with `adapter_args`); or None: what the setting `adapter` names, as in `start`.
        config: a PoolConfig or a mapping of its keys.
        settings: keywords of `snakepit.start`. `size` is 1 where it is not given.

    Raises: ConfigError for wrong settings or commands; WorkerStartError for an adapter that does not start.
    """

    def __init__(
        self,
        commands: Commands = None,
        config: PoolConfig | Mapping[str, Any] | None = None,
        **settings: Unpack[PoolSettings],
    ) -> None:
        base = config if isinstance(config, PoolConfig) else PoolConfig.build(config)
        merged = base.merge(**settings)
        self._config = merged if merged.size is not None else merged.merge(size=1)
        self._size = self._config.size or 1
        self._calls = FakeCalls(commands, self._config)
        self.execute: FakeCall = FakeCall(self._calls)
        self.execute_batch: FakeBatchCall = FakeBatchCall(self._calls)
        self.execute_in_session: FakeSessionCall = FakeSessionCall(self.execute)
        self.execute_stream: FakeStreamCall = FakeStreamCall(self._calls)
        self.execute_in_session_stream: FakeSessionStreamCall = FakeSessionStreamCall(self.execute_stream)

    # ---- what a test says and asks ------------------------------------------------------------------------

    @property
    def calls(self) -> list[RecordedCall]:
        """The calls that reached the pool, in order: `command`, `args` as the command got them, `options`.
        Each item of a batch or a map is one. Calls that fail are here, too; what cannot be sent is not."""
        return self._calls.script.calls

    def fail(
        self, command: str, error: Exception, *, call: int = 1, times: int | None = 1, after: int = 0
    ) -> None:
        """Says that coming calls of a command fail; the command does not run.

        Args:
            command: its name.
            error: what the caller gets. One that is no SnakepitError is what the command raised: the caller
                gets a CommandError.
            call: which of the coming calls is the first to fail; 1: the next.
            times: how many calls fail; None: all from then on.
            after: of a stream, how many values come before the error.

        Raises: ConfigError for an unknown command or a wrong number.
        """
        known = list(self._calls.interpreter.commands)
        if command not in known:
            raise ConfigError.unknown("command", [command], known)
        self._calls.script.fail(command, error, call, times, after)

    @staticmethod
    def get(refs: Any, timeout: float | None = None) -> Any:
        """What `ray.get` is for ObjectRefs: the value of a FakeRef, or the list of values of a list of them.

        For code that calls `ray.get` itself: `monkeypatch.setattr(ray, "get", FakePool.get)`.

        Args:
            refs: a FakeRef, or a list of FakeRefs.
            timeout: has no effect: the outcomes are there.

        Raises: the error of the first that failed, as it is: not wrapped in an error of Ray's.
        """
        if isinstance(refs, FakeRef):
            return refs.outcome()
        wrong = [ref for ref in refs if not isinstance(ref, FakeRef)]
        if wrong:
            raise TypeError(f"FakePool.get takes FakeRefs, got {wrong[0]!r}")
        return [ref.outcome() for ref in refs]

    # ---- as Pool has them ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The pool's name. Several fake pools may have one."""
        return self._config.name

    @property
    def config(self) -> PoolConfig:
        """The settings that the pool was made with."""
        return self._config

    def session(
        self,
        session_id: str,
        *,
        ttl: Seconds | None = None,
        metadata: Mapping[str, Any] | None = None,
        affinity: AffinityName | None = None,
    ) -> FakeSession:
        """As `Pool.session`."""
        if ttl is None and metadata is None:
            return FakeSession(self._calls, session_id, affinity=affinity)
        access = self._calls.access
        variables = access.run(begun(access, session_id, ttl, metadata))
        return FakeSession(self._calls, session_id, variables, affinity)

    async def asession(
        self,
        session_id: str,
        *,
        ttl: Seconds | None = None,
        metadata: Mapping[str, Any] | None = None,
        affinity: AffinityName | None = None,
    ) -> FakeSession:
        """As `Pool.asession`."""
        known = {} if metadata is None else metadata
        return self.session(session_id, ttl=ttl, metadata=known, affinity=affinity)

    @property
    def sessions(self) -> Sessions:
        """As `Pool.sessions`: the sessions of this pool alone, which end with it."""
        return Sessions(self._calls.access)

    async def call(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> Any:
        """As `Pool.call`. An async command holds up this event loop until it returns."""
        return await awaited(self._calls, command, args, DEFAULT_OPTIONS.merge(**options))

    def submit(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> concurrent.futures.Future[Any]:
        """As `Pool.submit`. Returns: a future that is done."""
        return self._calls.now(command, args, DEFAULT_OPTIONS.merge(**options)).future()

    def stream(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        progress: ShowProgress = False,
        **options: Unpack[CallSettings],
    ) -> Generator[Any]:
        """As `Pool.stream`."""
        return values(self._calls, command, args, DEFAULT_OPTIONS.merge(**options), progress)

    def astream(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        progress: ShowProgress = False,
        **options: Unpack[CallSettings],
    ) -> AsyncIterator[Any]:
        """As `Pool.astream`."""
        return async_values(self.stream(command, args, progress=progress, **options))

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
        """As `Pool.map`: an item is drawn and run when its result is asked for."""
        merged = DEFAULT_OPTIONS.merge(**options)
        given.check_counts(in_flight=in_flight, chunk_size=chunk_size)
        given.check_items(items)
        return self._map(command, items, merged, return_exceptions)

    def _map(
        self, command: str, items: Iterable[Any], options: CallOptions, return_exceptions: bool
    ) -> Iterator[Any]:
        for number, item in enumerate(items):
            self._calls.check_open()
            try:
                drawn = self._calls.draw(command, item, number)
                result = self._calls.drawn(command, drawn, options).outcome()
            except Exception as error:
                if not return_exceptions:
                    raise
                result = error
            yield result

    # ---- tools --------------------------------------------------------------------------------------------

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
        """As `Pool.register_tool`: it runs in this process, wherever it is registered for. A stream's values
        are made before the first is taken."""
        self._calls.check_open()
        self._calls.tools.register({name: function}, session, where, description, parameters)

    def register_tools(
        self,
        functions: Mapping[str, Callable[..., Any]],
        *,
        session: str | None = None,
        where: ToolPlace = "here",
    ) -> None:
        """As `Pool.register_tools`."""
        self._calls.check_open()
        self._calls.tools.register(functions, session, where)

    def unregister_tool(self, name: str, *, session: str | None = None) -> None:
        """As `Pool.unregister_tool`."""
        self._calls.check_open()
        self._calls.tools.unregister(name, session)

    def tools(self) -> list[ToolInfo]:
        """As `Pool.tools`."""
        self._calls.check_open()
        return self._calls.tools.all()

    def describe(self) -> PoolDescription:
        """As `Pool.describe`."""
        self._calls.check_open()
        commands = {info.name: info for info in self._calls.described()}
        return PoolDescription(self.name, commands, self._calls.tools.all())

    # ---- control ------------------------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """As `Pool.stats`: what the calls came to. Nothing ever waits."""
        self._calls.check_open()
        sessions, counted = len(self._calls.sessions), self._calls.counted()
        return PoolStats(self._size, available=self._size, busy=0, waiting=0, sessions=sessions, **counted)

    async def astats(self) -> PoolStats:
        """As `Pool.astats`."""
        return self.stats()

    def get_stats(self) -> dict[str, int]:
        """As `Pool.get_stats`."""
        return self.stats().to_original()

    def workers(self) -> list[WorkerFacts]:
        """As `Pool.workers`: records of workers that are always ready. The first has served every call."""
        self._calls.check_open()
        return [self._calls.facts(number) for number in range(self._size)]

    async def aworkers(self) -> list[WorkerFacts]:
        """As `Pool.aworkers`."""
        return self.workers()

    def await_ready(self, timeout: float = 60.0) -> FakePool:
        """As `Pool.await_ready`: returns at once."""
        given.seconds("await_ready", timeout=timeout)
        self._calls.check_open()
        return self

    def scale(self, size: int) -> FakePool:
        """As `Pool.scale`: `workers()` has so many records from now on."""
        self._calls.check_open()
        self._size = self._config.merge(size=size).size or 1
        return self

    def recycle(self, worker_id: str | None = None) -> int:
        """As `Pool.recycle`: the epoch rises and `stats().recycled` counts. The adapter keeps its state."""
        checks.checked("recycle", {"worker_id": worker_id}, {"worker_id": checks.optional(checks.text)})
        chosen = [facts for facts in self.workers() if worker_id in (None, facts.worker_id)]
        self._calls.epoch += bool(chosen)
        self._calls.counts["recycled"] += len(chosen)
        return len(chosen)

    async def arecycle(self, worker_id: str | None = None) -> int:
        """As `Pool.arecycle`."""
        return self.recycle(worker_id)

    def stories(self) -> dict[str, list[str]]:
        """As `Pool.stories`: nothing happens to a fake worker."""
        return {facts.worker_id: [] for facts in self.workers()}

    def lanes(self) -> dict[str, str]:
        """As `Pool.lanes`: nothing goes anywhere."""
        self._calls.check_open()
        return {facts.worker_id: "a fake pool has none" for facts in self.workers()}

    def shutdown(self, drain: float = 0.0) -> None:
        """As `Pool.shutdown`: calls the adapter's teardown; later calls raise PoolClosed."""
        given.seconds("shutdown", drain=drain)
        if not self._calls.closed:
            self._calls.close()

    def message_counts(self) -> dict[str, int]:
        """As `Pool.message_counts`: there is no router."""
        self._calls.check_open()
        return {}

    def __enter__(self) -> FakePool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()

    def __reduce__(self) -> Any:
        raise TypeError("a FakePool lives in one process: it cannot be pickled for a task or an actor")

    def __repr__(self) -> str:
        closed = "it was shut down" if self._calls.closed else ""
        status = Status(self.name, self._size, WorkerCounts(self._size), closed=closed)
        return status.line().replace("<Pool", "<FakePool", 1)
