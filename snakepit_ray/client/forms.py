"""The forms of a call. Called, it blocks; `.remote` gives an ObjectRef; `.options` is the same call with
options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import ray

from snakepit_ray.config import DEFAULT_OPTIONS, CallOptions
from snakepit_ray.errors import ConfigError
from snakepit_ray.wire._pb import interpreter_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.client.sender import Sender, Sent
    from snakepit_ray.config.keywords import CallSettings, SessionCallSettings


class Call:
    """`pool.execute`: called, it blocks and returns the value; `.remote` returns an ObjectRef."""

    __slots__ = ("_options", "_sender")

    def __init__(self, sender: Sender, options: CallOptions = DEFAULT_OPTIONS) -> None:
        self._sender = sender
        self._options = options

    def options(self, **options: Unpack[CallSettings]) -> Call:
        """The same call with these options (see CallOptions). Raises ConfigError."""
        return Call(self._sender, self._options.merge(**options))

    def remote(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> Any:
        """Sends the command; the ref holds its value, or raises its error.

        Top-level ObjectRefs among `args` are resolved by Ray at the worker. Raises EncodingError,
        InvalidArguments, PayloadTooLarge, PoolClosed here, before anything is sent."""
        merged = self._options.merge(**options) if options else self._options
        return self._sender.now(command, args, merged).ref

    def __call__(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> Any:
        """Sends the command and waits for its value."""
        merged = self._options.merge(**options) if options else self._options
        return self._sender.value(self._sender.now(command, args, merged))


class SessionCall:
    """`pool.execute_in_session`: `execute` with the session's id first."""

    __slots__ = ("_call", "_sender")

    def __init__(self, sender: Sender, call: Call | None = None) -> None:
        self._sender = sender
        self._call = call or Call(sender)

    def options(self, **options: Unpack[CallSettings]) -> SessionCall:
        """The same call with these options."""
        return SessionCall(self._sender, self._call.options(**options))

    def remote(
        self,
        session: str,
        command: str,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[SessionCallSettings],
    ) -> Any:
        """As `pool.execute.remote`, in `session`."""
        return self._call.remote(command, args, session=session, **options)

    def __call__(
        self,
        session: str,
        command: str,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[SessionCallSettings],
    ) -> Any:
        """As `pool.execute`, in `session`."""
        return self._call(command, args, session=session, **options)


class BatchCall:
    """`pool.execute_batch`: one call of a command for each item, as one list of results."""

    __slots__ = ("_options", "_sender")

    def __init__(self, sender: Sender, options: CallOptions = DEFAULT_OPTIONS) -> None:
        self._sender = sender
        self._options = options

    def options(self, **options: Unpack[CallSettings]) -> BatchCall:
        """The same call with these options (see CallOptions). Raises ConfigError."""
        return BatchCall(self._sender, self._options.merge(**options))

    def remote(
        self,
        command: str,
        items: Iterable[Mapping[str, Any]],
        return_exceptions: bool = False,
        **options: Unpack[CallSettings],
    ) -> Any:
        """Sends all items; the ref holds the list of their values in order.

        It raises the error of the first item that failed, when all have run; with `return_exceptions` errors
        stand among the values. The worker that gets the batch spreads it over the pool. `timeout` is that of
        the whole batch; without one each item has the pool's. Items hold no ObjectRefs. Raises EncodingError,
        InvalidArguments, PayloadTooLarge, PoolClosed here, before anything is sent."""
        sent = self._send(command, items, return_exceptions, self._options.merge(**options))
        return ray.put([]) if sent is None else sent.ref

    def __call__(
        self,
        command: str,
        items: Iterable[Mapping[str, Any]],
        return_exceptions: bool = False,
        **options: Unpack[CallSettings],
    ) -> list[Any]:
        """Sends all items and waits for the list of their values."""
        sent = self._send(command, items, return_exceptions, self._options.merge(**options))
        values: list[Any] = [] if sent is None else self._sender.value(sent)
        return values

    def _send(
        self, command: str, items: Iterable[Any], return_exceptions: bool, options: CallOptions
    ) -> Sent | None:
        """Each item is encoded when it is drawn; None where there are none."""
        if not isinstance(items, Iterable):
            raise ConfigError(f"items: got {items!r}, expected an iterable of mappings")
        sender = self._sender
        sender.check_open()
        draw = sender.drawer(command)
        drawn = [draw(item, number) for number, item in enumerate(items)]
        errors = pb.BATCH_ERRORS_RETURN if return_exceptions else pb.BATCH_ERRORS_RAISE
        return sender.all(command, drawn, options, errors) if drawn else None
