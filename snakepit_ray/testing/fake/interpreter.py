"""An interpreter inside this process: an adapter, or plain functions, served by the bridge's own code.

Rules:
- Arguments and results travel as they do in a real pool: as JSON and buffers. What a command gets is a copy,
  and what its caller gets is another one.
- Commands run in the thread that calls, one at a time. Coroutines run on an event loop of the interpreter's
  own, in a thread of their own where the caller is in a loop itself.
- Every failure is the bridge's: the same text and the same details as from a real interpreter.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import ConfigError, SnakepitError, WorkerStartError, failure_to_error
from snakepit_ray.testing.fake import bridge
from snakepit_ray.testing.fake.host import FakeHost
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded, check_size

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
SERVED = (Exception, SystemExit)  # what a command may raise for its caller; Ctrl-C is the test's


class FakeInterpreter:
    """The commands of one fake pool."""

    def __init__(self, source: Any, config: PoolConfig, host: FakeHost, worker_id: str) -> None:
        self._config = config
        self._host = host
        self._worker_id = worker_id
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._values, self._failures = bridge.module("values.encoding"), bridge.module("values.failures")
        hooks = bridge.module("adapter.hooks")
        self._adapter: Any = None
        self._places: list[str] = []  # on sys.path, for an adapter that is a file
        try:
            self.commands = self._load(source)
            self._session_hook = hooks.session_hook(self._adapter)
            self._context_hook = hooks.context_hook(self._adapter, False)
            hooks.call(self._adapter, "setup", self)
        except SnakepitError:
            raise
        except SERVED as error:
            what = f"{type(error).__name__}: {error}"
            raise WorkerStartError(f"the fake pool {config.name!r} does not start: {what}") from error

    def _load(self, source: Any) -> dict[str, Any]:
        adapter = bridge.module("adapter.commands")
        if isinstance(source, Mapping):
            return {name: _command(adapter, name, function) for name, function in source.items()}
        loading = bridge.module("adapter.loading")
        if source is None:
            count = len(sys.path)
            source = loading.find_class(self._config.adapter, self._config.cwd or os.getcwd())
            self._places = sys.path[: len(sys.path) - count]  # the loader puts it in front
        if isinstance(source, type):
            threaded = self._config.profile == "thread"
            source = loading.create(source, dict(self._config.adapter_args), threaded)
        self._adapter = source
        commands: dict[str, Any] = adapter.find_commands(source)
        return commands

    def wait(self, awaitable: Any) -> Any:
        """The result of an awaitable, from the interpreter's event loop."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.new_event_loop()
            weakref.finalize(self, loop.close)  # of a pool that nobody shuts down
        if not _is_in_a_loop():
            return loop.run_until_complete(_awaited(awaitable))
        space = contextvars.copy_context()
        return _in_a_thread(lambda: space.run(loop.run_until_complete, _awaited(awaitable)))

    def close(self) -> None:
        """Calls the adapter's teardown. Safe to repeat."""
        adapter, self._adapter = self._adapter, None
        try:
            bridge.module("adapter.hooks").call(adapter, "teardown", self)
        finally:
            for place in self._places:
                with suppress(ValueError):
                    sys.path.remove(place)
            self._places = []
            if self._loop is not None:
                self._loop.close()
                self._loop = None

    # ---- one request --------------------------------------------------------------------------------------

    def arguments(self, request: pb.Request, beside: Sequence[Any]) -> Any:
        """A new copy of a request's arguments; its large buffers are `beside` it. Raises InvalidArguments."""

        def look(places: Any) -> list[bytes]:
            return [
                place.inline if place.WhichOneof("place") == "inline" else bytes(beside[place.beside])
                for place in places
            ]

        try:
            return bridge.module("server.payloads").arguments(request, look)
        except SERVED as error:
            raise self.error(error, request.command) from None

    def context(self, request: pb.Request, outlet: Any = None) -> Any:
        """What the command of a request sees of it."""
        context = bridge.module("adapter.context").SessionContext(
            request.session,
            request.id,
            request.command,
            worker_id=self._worker_id,
            deadline=time.monotonic() + request.budget_ms / 1000,
            link=self._host,
        )
        context._outlet = outlet
        return context

    def begin(self, request: pb.Request, args: Any, context: Any) -> Any:
        """Calls the command: what it returned, also a coroutine or a generator. Raises whatever it raises."""
        command = self.commands.get(request.command)
        if command is None:
            raise bridge.module("adapter.commands").unknown_command(request.command, self.commands)
        bridge.module("adapter.context").bind(context)
        if request.session and self._session_hook is not None:
            self._session_hook(request.session)
        if self._context_hook is not None:
            self._context_hook(context)
        return command.call(args, context, stream=request.stream)

    def refuse_stream(self, command: str, value: Any) -> None:
        """Raises the bridge's InvalidArguments where a plain call's command has returned a generator."""
        if hasattr(value, "__next__") or hasattr(value, "__anext__"):
            close = getattr(value, "close", None)
            if close is not None:
                close()
            raise bridge.module("adapter.commands").is_a_stream(command)

    def step(self, space: contextvars.Context, work: Callable[..., Any], *args: Any) -> Any:
        """Does a part of a command's work in its own context, and waits for what it awaits."""
        with self._lock:
            value = space.run(work, *args)
            return space.run(self.wait, value) if hasattr(value, "__await__") else value

    def encoded(self, value: Any, what: str, root: str) -> tuple[bytes, list[bytes]]:
        """A result or a chunk as it travels. Raises the bridge's EncodingError, or PayloadTooLarge."""
        marker = self._config.unserializable == "marker"
        text, buffers = self._values.encode(value, marker=marker, root=root)
        copies = [bytes(buffer) for buffer in buffers]
        check_size(
            Encoded(text, copies, []), self._config.max_message_size, self._config.binary_threshold, what
        )
        return text, copies

    def error(self, error: BaseException, command: str) -> SnakepitError:
        """What a caller gets for what a command, or the bridge, has raised."""
        if isinstance(error, SnakepitError):
            return error
        failure = self._failures.failure_of(error.with_traceback(_beyond_us(error.__traceback__)))
        return failure_to_error(
            failure.kind,
            failure.type,
            failure.message,
            failure.traceback,
            "python",
            failure.details,
            command,
        )


def _command(adapter: Any, name: str, function: Any) -> Any:
    """A function as a command; one that is marked with `@command` keeps its options."""
    if not isinstance(name, str) or not callable(function):
        raise ConfigError(f"commands: got {name!r}: {function!r}, expected a name and a function")
    options = getattr(function, "__dict__", {}).get(adapter.MARK) or adapter.Options(None, False, None)
    try:
        return adapter.Command(name, function, options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"commands: {name!r}: {error}") from error


def _beyond_us(trace: TracebackType | None) -> TracebackType | None:
    """The frames below the last of this package's own: the bridge leaves out its own in the same way."""
    last, step = None, trace
    while step is not None:
        if step.tb_frame.f_code.co_filename.startswith(_HERE):
            last = step
        step = step.tb_next
    return trace if last is None else last.tb_next


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_a_thread(work: Callable[[], Any]) -> Any:
    result: list[Any] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again where somebody waits for it
            raised.append(error)

    thread = threading.Thread(target=run, name="snakepit-fake", daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return result[0]
