"""The forms of a fake pool's calls: those of `client/forms.py`, `client/stream.py` and `client/session.py`.

A test compares their signatures with the real ones, and so do type checkers, to which each is a kind of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from snakepit_ray.client import given
from snakepit_ray.client.given import ShowProgress
from snakepit_ray.client.halt import HALT
from snakepit_ray.client.variable_talks import VariableTalks
from snakepit_ray.client.variables import Variables
from snakepit_ray.config import DEFAULT_OPTIONS, CallOptions
from snakepit_ray.testing.fake.calls import FakeCalls
from snakepit_ray.testing.fake.refs import FakeChunkRefs, FakeRef
from snakepit_ray.wire.codec import Progress

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.client.forms import BatchCall as _BatchCall
    from snakepit_ray.client.forms import Call as _Call
    from snakepit_ray.client.forms import SessionCall as _SessionCall
    from snakepit_ray.client.session import Session as _Session
    from snakepit_ray.client.stream import SessionStreamCall as _SessionStreamCall
    from snakepit_ray.client.stream import StreamCall as _StreamCall
    from snakepit_ray.config.keywords import AffinityName, CallSettings, SessionCallSettings
else:
    _BatchCall = _Call = _Session = _SessionCall = _SessionStreamCall = _StreamCall = object

Args: TypeAlias = Mapping[str, Any] | None


def values(
    calls: FakeCalls, command: str, args: Args, options: CallOptions, show: ShowProgress
) -> Generator[Any]:
    """The values of a stream; reports of progress go where `show` says."""
    report = given.reporter(show)
    return _reported(calls.stream(command, args, options), report)


def _reported(stream: Generator[Any], report: Callable[..., None]) -> Generator[Any]:
    try:
        for value in stream:
            if type(value) is Progress:
                report(value)
            else:
                yield value
    finally:
        stream.close()
        given.close(report)


async def async_values(stream: Generator[Any]) -> AsyncIterator[Any]:
    """The same for asyncio."""
    try:
        for value in stream:
            await asyncio.sleep(0)
            yield value
    finally:
        stream.close()


async def awaited(calls: FakeCalls, command: str, args: Args, options: CallOptions) -> Any:
    """One call for asyncio: the arguments are encoded now, the command runs in the next turn of the loop."""
    calls.check_open()
    drawn = calls.draw(command, {} if args is None else args)
    await asyncio.sleep(0)
    return calls.drawn(command, drawn, options).outcome()


class FakeCall(_Call):
    """As `pool.execute`; `.remote` returns a FakeRef."""

    __slots__ = ("_calls", "_options")

    def __init__(self, calls: FakeCalls, options: CallOptions = DEFAULT_OPTIONS) -> None:
        self._calls = calls
        self._options = options

    def options(self, **options: Unpack[CallSettings]) -> FakeCall:
        """The same call with other options (see CallOptions). Raises: ConfigError."""
        return FakeCall(self._calls, self._options.merge(**options))

    def remote(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> Any:
        """Runs the command now. Returns: a FakeRef. Raises: what a real call raises before it is sent."""
        return self._calls.now(command, args, self._options.merge(**options))

    def __call__(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> Any:
        """Runs the command. Returns: its value. Raises: as a real call."""
        return self._calls.now(command, args, self._options.merge(**options)).outcome()


class FakeSessionCall(_SessionCall):
    """As `pool.execute_in_session`."""

    __slots__ = ("_call",)

    def __init__(self, call: FakeCall) -> None:
        self._call: FakeCall = call

    def options(self, **options: Unpack[CallSettings]) -> FakeSessionCall:
        """The same call with other options. Raises: ConfigError."""
        return FakeSessionCall(self._call.options(**options))

    def remote(
        self,
        session: str,
        command: str,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[SessionCallSettings],
    ) -> Any:
        """As `pool.execute.remote`, in that session."""
        return self._call.remote(command, args, session=session, **options)

    def __call__(
        self,
        session: str,
        command: str,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[SessionCallSettings],
    ) -> Any:
        """As `pool.execute`, in that session."""
        return self._call(command, args, session=session, **options)


class FakeBatchCall(_BatchCall):
    """As `pool.execute_batch`: the items run one after the other."""

    __slots__ = ("_calls", "_options")

    def __init__(self, calls: FakeCalls, options: CallOptions = DEFAULT_OPTIONS) -> None:
        self._calls = calls
        self._options = options

    def options(self, **options: Unpack[CallSettings]) -> FakeBatchCall:
        """The same call with other options (see CallOptions). Raises: ConfigError."""
        return FakeBatchCall(self._calls, self._options.merge(**options))

    def remote(
        self,
        command: str,
        items: Iterable[Mapping[str, Any]],
        return_exceptions: bool = False,
        **options: Unpack[CallSettings],
    ) -> Any:
        """Runs the command for each item now. Returns: a FakeRef of the list of values."""
        merged = self._options.merge(**options)
        given.check_items(items)
        self._calls.check_open()
        drawn = self._calls.draw_all(command, items)
        return FakeRef.of(lambda: self._calls.all(command, drawn, merged, return_exceptions))

    def __call__(
        self,
        command: str,
        items: Iterable[Mapping[str, Any]],
        return_exceptions: bool = False,
        **options: Unpack[CallSettings],
    ) -> list[Any]:
        """Runs the command for each item. Returns: the list of values."""
        results: list[Any] = self.remote(command, items, return_exceptions, **options).outcome()
        return results


class FakeStreamCall(_StreamCall):
    """As `pool.execute_stream`."""

    __slots__ = ("_calls", "_options")

    def __init__(self, calls: FakeCalls, options: CallOptions = DEFAULT_OPTIONS) -> None:
        self._calls = calls
        self._options = options

    def options(self, **options: Unpack[CallSettings]) -> FakeStreamCall:
        """The same with other options (see CallOptions). Raises: ConfigError."""
        return FakeStreamCall(self._calls, self._options.merge(**options))

    def remote(self, command: str, args: Args = None, **options: Unpack[CallSettings]) -> FakeChunkRefs:
        """One FakeRef for each value, as it is taken; reports of progress are values, too."""
        return FakeChunkRefs(self._calls.stream(command, args, self._options.merge(**options)))

    def __call__(
        self,
        command: str,
        args: Args,
        on_chunk: Callable[[Any], Any],
        *,
        progress: ShowProgress = False,
        **options: Unpack[CallSettings],
    ) -> int:
        """Calls `on_chunk` with each value, until it returns HALT. Returns: how many values there were."""
        handed = 0
        stream = values(self._calls, command, args, self._options.merge(**options), progress)
        try:
            for value in stream:
                handed += 1
                if on_chunk(value) is HALT:
                    break
        finally:
            stream.close()
        return handed


class FakeSessionStreamCall(_SessionStreamCall):
    """As `pool.execute_in_session_stream`."""

    __slots__ = ("_call",)

    def __init__(self, call: FakeStreamCall) -> None:
        self._call: FakeStreamCall = call

    def options(self, **options: Unpack[CallSettings]) -> FakeSessionStreamCall:
        """The same with other options. Raises: ConfigError."""
        return FakeSessionStreamCall(self._call.options(**options))

    def remote(
        self, session: str, command: str, args: Args = None, **options: Unpack[SessionCallSettings]
    ) -> FakeChunkRefs:
        """As `pool.execute_stream.remote`, in that session."""
        return self._call.remote(command, args, session=session, **options)

    def __call__(
        self,
        session: str,
        command: str,
        args: Args,
        on_chunk: Callable[[Any], Any],
        **options: Unpack[SessionCallSettings],
    ) -> int:
        """As `pool.execute_stream`, in that session."""
        return self._call(command, args, on_chunk, session=session, **options)


class FakeSession(_Session):
    """As `pool.session(id)`."""

    __slots__ = ("_calls", "_options", "_talks", "execute", "execute_stream", "id")

    def __init__(
        self,
        calls: FakeCalls,
        session_id: str,
        variables: VariableTalks | None = None,
        affinity: AffinityName | None = None,
    ) -> None:
        self.id: str = session_id
        self._calls = calls
        self._talks = variables or VariableTalks(calls.access, session_id)
        self._options = CallOptions(session=session_id, affinity=affinity)  # type: ignore[arg-type] # a name
        self.execute: FakeCall = FakeCall(calls, self._options)
        self.execute_stream: FakeStreamCall = FakeStreamCall(calls, self._options)

    @property
    def variables(self) -> Variables:
        """As `session.variables`."""
        return Variables(self._talks)

    async def call(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[SessionCallSettings]
    ) -> Any:
        """`pool.call` in this session."""
        return await awaited(self._calls, command, args, self._options.merge(**options))

    def stream(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[SessionCallSettings]
    ) -> Generator[Any]:
        """`pool.stream` in this session."""
        return values(self._calls, command, args, self._options.merge(**options), False)

    def astream(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[SessionCallSettings]
    ) -> AsyncIterator[Any]:
        """`stream` for asyncio."""
        return async_values(values(self._calls, command, args, self._options.merge(**options), False))

    def __repr__(self) -> str:
        return f"<FakeSession {self.id!r} of pool {self._calls.config.name!r}>"
