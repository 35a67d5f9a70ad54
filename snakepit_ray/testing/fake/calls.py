"""The requests of one fake pool: built and checked as those of a real one, then run where they are made.

Rules:
- What cannot be sent fails before it is written down. Everything else is in `script.calls`, once.
- A failure that the test has scripted takes the place of the command's outcome: the command does not run, and
  nothing is tried again.
- A stream is written down when it is made and runs as its values are taken.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from snakepit_ray.client.talks import Access
from snakepit_ray.config import CallOptions, PoolConfig
from snakepit_ray.core.pool.worker_ids import WorkerId
from snakepit_ray.core.worker.command_info import CommandInfo, info_of
from snakepit_ray.core.worker.handshake import command_of
from snakepit_ray.errors import PoolClosed, PoolSaturated, QueueTimeout, RequestCancelled, SnakepitError
from snakepit_ray.port.messages import COUNTED, WorkerFacts
from snakepit_ray.runtimes import resolve_runtime
from snakepit_ray.testing.fake.host import FakeHost
from snakepit_ray.testing.fake.interpreter import SERVED, FakeInterpreter
from snakepit_ray.testing.fake.refs import FakeRef
from snakepit_ray.testing.fake.script import Failure, RecordedCall, Script
from snakepit_ray.testing.fake.state import new_store
from snakepit_ray.testing.fake.tools import FakeTools
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Envelope, refuse_refs
from snakepit_ray.wire.requests import Drawn, RequestBuilder, drawn_refs, unpack

if TYPE_CHECKING:
    from snakepit_ray.client.store_calls import StoreCalls

NODE = "fake"
KINDS = {QueueTimeout: "queue_timeouts", PoolSaturated: "saturated", RequestCancelled: "cancelled"}


class FakeCalls:
    """What the forms of a fake pool's calls share."""

    def __init__(self, source: Any, config: PoolConfig) -> None:
        self.config = config
        self.script = Script()
        self.counts: Counter[str] = Counter()
        self.sessions: set[str] = set()
        self.epoch = 1  # the number of the interpreter, which a recycling raises
        self.closed = False
        self._began = time.time()
        self.worker_id = str(WorkerId(config.name, 0))
        self.tools = FakeTools(config.name)
        host = FakeHost(
            self.worker_id, config, NODE, lambda: (1, self.epoch), self._store_calls, self.tools.methods
        )
        self.interpreter = FakeInterpreter(source, config, host, self.worker_id)
        self._builder = RequestBuilder(
            config, resolve_runtime(config.runtime), FakeRef, self._new_id, self._declared
        )
        self._number = 0

        self._store: StoreCalls | None = None  # with the first question
        self._store_lock = threading.Lock()

    @property
    def access(self) -> Access:
        """How the pool's sessions get at their store, which is in this process."""
        return Access(self.config, self._store_calls, FakeRef, self.tools)

    def _store_calls(self) -> StoreCalls:
        self.check_open()
        with self._store_lock:
            if self._store is None:
                self._store = new_store()
            return self._store

    def close(self) -> None:
        """The pool has ended."""
        self.closed = True
        self.interpreter.close()
        with self._store_lock:
            if self._store is not None:
                self._store.close(PoolClosed.named(self.config.name))

    def check_open(self) -> None:
        """Raises PoolClosed."""
        if self.closed:
            raise PoolClosed.named(self.config.name)

    def described(self) -> list[CommandInfo]:
        """What the adapter's commands are, as a ready line says it."""
        commands = self.interpreter.commands.items()
        return [info_of(command_of(name, command.describe())) for name, command in commands]

    def draw(self, command: str, args: Any, number: int = 0) -> Drawn:
        """Encodes one call's arguments. Raises EncodingError, InvalidArguments, UnknownCommand."""
        return self._builder.draw(command, args, number)

    def draw_all(self, command: str, items: Any) -> list[Drawn]:
        """The items of a batch, which hold no refs."""
        drawn = [self.draw(command, item, number) for number, item in enumerate(items)]
        for number, one in enumerate(drawn):
            refuse_refs(drawn_refs(one), number)
        return drawn

    # ---- numbers ------------------------------------------------------------------------------------------

    def counted(self) -> dict[str, int]:
        """What a worker counts."""
        return {name: self.counts[name] for name in COUNTED}

    def facts(self, number: int) -> WorkerFacts:
        """What a worker says of itself. The first has served every call."""
        counted: dict[str, Any] = dict.fromkeys(COUNTED, 0) if number else self.counted()
        return WorkerFacts(
            worker_id=f"{self.config.name}-{number}",
            node_id=NODE,
            pid=os.getpid(),
            actor_pid=os.getpid(),
            epoch=(1, self.epoch),
            state="ready",
            capacity=self.config.capacity,
            running=0,
            waiting=0,
            rss_bytes=0,
            started_at=self._began,
            **counted,
        )

    # ---- one outcome --------------------------------------------------------------------------------------

    def now(self, command: str, args: Any, options: CallOptions) -> FakeRef:
        """Makes one call. Raises what cannot be sent; every other error is in the ref."""
        self.check_open()
        request, values = self._builder.build(command, args, options)
        return FakeRef.of(lambda: self._value(request, values, options))

    def drawn(self, command: str, drawn: Drawn, options: CallOptions) -> FakeRef:
        """Makes a call of arguments that were drawn."""
        self.check_open()
        request, values = self._builder.single(command, drawn, options)
        return FakeRef.of(lambda: self._value(request, values, options))

    def all(
        self, command: str, drawn: list[Drawn], options: CallOptions, return_exceptions: bool
    ) -> list[Any]:
        """Makes a call of each. Raises the error of the first that failed, when all have run."""
        refs = [self.drawn(command, one, options) for one in drawn]
        return [_or_error(ref) if return_exceptions else ref.outcome() for ref in refs]

    def _value(self, request: pb.Request, values: list[Any], options: CallOptions) -> Any:
        args, failure = self._came(request, values, options)
        with self._opened():
            if failure is not None:
                raise self._scripted(failure, request)
            began = time.perf_counter()
            payload = self._run(request, args)
            return self._decoded(request, payload, time.perf_counter() - began)

    def _run(self, request: pb.Request, args: Any) -> tuple[bytes, list[bytes]]:
        interpreter, space = self.interpreter, contextvars.copy_context()
        try:
            value = interpreter.step(space, interpreter.begin, request, args, interpreter.context(request))
            interpreter.refuse_stream(request.command, value)
            return interpreter.encoded(value, f"{request.command}: the result", "result")
        except SERVED as error:
            raise interpreter.error(error, request.command) from None

    # ---- streams ------------------------------------------------------------------------------------------

    def stream(self, command: str, args: Any, options: CallOptions) -> Generator[Any]:
        """The values of a stream, and its reports of progress among them."""
        self.check_open()
        request, values = self._builder.build(command, args, options, stream=True)
        try:
            taken, failure = self._came(request, values, options)
        except SnakepitError as error:
            return _raising(error)
        return self._stream(request, taken, failure)

    def _stream(self, request: pb.Request, args: Any, failure: Failure | None) -> Generator[Any]:
        began, count = time.perf_counter(), 0
        with self._opened():
            if failure is not None and not failure.after:
                raise self._scripted(failure, request)
            for payload, is_report in self._chunks(request, args):
                yield self._decoded(request, payload, time.perf_counter() - began)
                count += not is_report
                if failure is not None and count >= failure.after:
                    raise self._scripted(failure, request)

    def _chunks(self, request: pb.Request, args: Any) -> Iterator[tuple[tuple[bytes, list[bytes]], bool]]:
        """What a stream's command gives, encoded. However it ends, the command's generator is closed."""
        interpreter, space, outlet = self.interpreter, contextvars.copy_context(), Outlet()
        context = interpreter.context(request, outlet)
        what = f"{request.command}: a chunk"
        given = None
        try:
            given = interpreter.step(space, interpreter.begin, request, args, context)
            for value, is_report in outlet.drained(given, lambda work: interpreter.step(space, work)):
                yield interpreter.encoded(value, what, "chunk"), is_report
        except SERVED as error:
            raise interpreter.error(error, request.command) from None
        finally:
            context._cancel()
            close = getattr(given, "close", None) or getattr(given, "aclose", None)
            if close is not None:
                interpreter.step(space, close)

    # ---- what both share ----------------------------------------------------------------------------------

    def _came(
        self, request: pb.Request, values: list[Any], options: CallOptions
    ) -> tuple[Any, Failure | None]:
        """The arguments for the command, and how the call is to fail. It is written down with a copy of its
        own. Raises the error of a ref among its arguments."""
        values = [value.outcome() if isinstance(value, FakeRef) else value for value in values]
        beside = unpack([request], tuple(values), self.config.binary_threshold)
        recorded = self.interpreter.arguments(request, beside)
        if request.session:
            self.sessions.add(request.session)
        failure = self.script.came(RecordedCall(request.command, recorded, options))
        return self.interpreter.arguments(request, beside), failure

    def _opened(self) -> _Counted:
        return _Counted(self.counts)

    def _scripted(self, failure: Failure, request: pb.Request) -> SnakepitError:
        return self.interpreter.error(failure.raised(), request.command)

    def _decoded(self, request: pb.Request, payload: tuple[bytes, list[bytes]], ran: float) -> Any:
        info = None
        if request.options.info:
            info = (self.worker_id, (1, self.epoch), os.getpid(), NODE, request.id, 0.0, ran, 1, False)
        return Envelope(*payload, info, request.options.runtime, request.command).value()

    def _new_id(self) -> str:
        self._number += 1
        return f"fake-{self._number}"

    def _declared(self, command: str) -> float | None:
        found = self.interpreter.commands.get(command)
        timeout: float | None = None if found is None else found.timeout
        return timeout


class Outlet:
    """Where a stream's command reports its progress; what it gives, with the reports in their places."""

    def __init__(self) -> None:
        self._reports: deque[Any] = deque()

    def progress(self, report: Any) -> None:
        """Keeps a report until the next value."""
        self._reports.append(report)

    def stop(self) -> None:
        """The stream has ended."""

    def drained(self, given: Any, step: Any) -> Iterator[tuple[Any, bool]]:
        """Each value or report, and whether it is a report. `step(work)` does a part of the command."""
        for value in _values(given, step):
            yield from self._taken()
            yield value, False
        yield from self._taken()

    def _taken(self) -> Iterator[tuple[Any, bool]]:
        while self._reports:
            yield self._reports.popleft(), True


def _values(given: Any, step: Any) -> Iterator[Any]:
    """The values of a generator of either kind, or the one value that is none."""
    end = object()
    if hasattr(given, "__anext__"):
        while (value := step(lambda: anext(given, end))) is not end:
            yield value
    elif hasattr(given, "__next__"):
        while (value := step(lambda: next(given, end))) is not end:
            yield value
    else:
        yield given


class _Counted:
    """While it is open one request has no outcome; counts the outcome."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def __enter__(self) -> None:
        self._counts["requests"] += 1

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is GeneratorExit:
            self._counts["cancelled"] += 1
        elif kind is not None:
            name = next((name for one, name in KINDS.items() if issubclass(kind, one)), "errors")
            self._counts[name] += 1
            self._counts["errors"] += name in ("queue_timeouts", "saturated")


def _or_error(ref: FakeRef) -> Any:
    try:
        return ref.outcome()
    except Exception as error:  # noqa: BLE001 - the caller wants it among the values
        return error


def _raising(error: SnakepitError) -> Generator[Any]:
    """A stream that fails before its first value."""
    raise error
    yield
