"""The forms of a call.

- Called, a form blocks until the value is there.
- `.remote` returns an ObjectRef at once.
- `.options` is the same call with options.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import ray

from snakepit_ray.client.given import check_items
from snakepit_ray.client.interrupts import Interruptible
from snakepit_ray.client.lanes import Waits
from snakepit_ray.config import DEFAULT_OPTIONS, CallOptions
from snakepit_ray.wire._pb import interpreter_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.client.sender import Sender, Sent
    from snakepit_ray.config.keywords import CallSettings, SessionCallSettings


class Call:
    """Runs a command: `pool.execute`, and `session.execute`, whose calls carry the session's id.

    pool.execute("add", {"a": 5, "b": 3})                     # waits: {'result': 8}
    ray.get(pool.execute.remote("add", {"a": 5, "b": 3}))     # .remote returns an ObjectRef at once
    pool.execute.options(timeout=5)("add", {"a": 5, "b": 3})  # .options: the same call with options
    """

    __slots__ = ("_options", "_sender")

    def __init__(self, sender: Sender, options: CallOptions = DEFAULT_OPTIONS) -> None:
        self._sender = sender
        self._options = options

    def options(self, **options: Unpack[CallSettings]) -> Call:
        """The same call with other options.

        Args:
            options: see CallOptions.

        Raises: ConfigError for an unknown option or a wrong value.
        """
        return Call(self._sender, self._options.merge(**options))

    def remote(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> Any:
        """Sends the command and does not wait.

        Args:
            command: its name.
            args: its arguments by name. ObjectRefs at the top level are resolved by Ray at the worker.
            options: see CallOptions.

        Returns: an ObjectRef of the value, or of a `Reply` with `info=True`. `ray.get` raises its error.

        Raises: EncodingError, InvalidArguments, PayloadTooLarge, PoolClosed, ConfigError here, before
        anything is sent.
        """
        merged = self._options.merge(**options) if options else self._options
        return self._sender.now(command, args, merged).ref

    def __call__(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> Any:
        """Sends the command and waits.

        Args: as `remote`.

        Returns: the command's value, or a `Reply` with `info=True`.

        Raises: as `remote`, and whatever the request ends with: the command's own error (CommandError, also
        caught as the builtin of its name), PoolSaturated, QueueTimeout, DeadlineExceeded, RequestCancelled,
        WorkerCrashed, SessionWorkerLost, CircuitOpen, UnknownCommand.
        """
        merged = self._options.merge(**options) if options else self._options
        with Interruptible():
            return self._sender.value(self._sender.now(command, args, merged, waits=Waits.THREAD))


class SessionCall:
    """`execute` with the id of a session first: `pool.execute_in_session`.

    pool.execute_in_session("user_123", "echo", {"message": "hi"})
    pool.execute_in_session.remote("user_123", "echo", {"message": "hi"})
    """

    __slots__ = ("_call", "_sender")

    def __init__(self, sender: Sender, call: Call | None = None) -> None:
        self._sender = sender
        self._call = call or Call(sender)

    def options(self, **options: Unpack[CallSettings]) -> SessionCall:
        """The same call with other options. Raises: ConfigError."""
        return SessionCall(self._sender, self._call.options(**options))

    def remote(
        self,
        session: str,
        command: str,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[SessionCallSettings],
    ) -> Any:
        """As `pool.execute.remote`, in the session of that id (1 to 1024 bytes of UTF-8)."""
        return self._call.remote(command, args, session=session, **options)

    def __call__(
        self,
        session: str,
        command: str,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[SessionCallSettings],
    ) -> Any:
        """As `pool.execute`, in the session of that id (1 to 1024 bytes of UTF-8)."""
        return self._call(command, args, session=session, **options)


class BatchCall:
    """Runs a command for each item: `pool.execute_batch`.

    pool.execute_batch("add", [{"a": 1, "b": 2}, {"a": 3, "b": 4}])  # waits for the list of values
    pool.execute_batch.remote("add", items)                          # one ObjectRef for the list
    """

    __slots__ = ("_options", "_sender")

    def __init__(self, sender: Sender, options: CallOptions = DEFAULT_OPTIONS) -> None:
        self._sender = sender
        self._options = options

    def options(self, **options: Unpack[CallSettings]) -> BatchCall:
        """The same call with other options (see CallOptions). Raises: ConfigError."""
        return BatchCall(self._sender, self._options.merge(**options))

    def remote(
        self,
        command: str,
        items: Iterable[Mapping[str, Any]],
        return_exceptions: bool = False,
        **options: Unpack[CallSettings],
    ) -> Any:
        """Sends all items and does not wait. The worker that gets the batch spreads it over the pool.

        Args:
            command: its name.
            items: mappings of arguments, without ObjectRefs. All are drawn and encoded here.
            return_exceptions: errors stand among the values.
            options: see CallOptions. `timeout` is for the whole batch; without one each item has its own.

        Returns: an ObjectRef of the list of values, in the order of the items. When all have run, `ray.get`
        raises the error of the first item that failed.

        Raises: EncodingError, InvalidArguments, PayloadTooLarge, PoolClosed, ConfigError here, before
        anything is sent.
        """
        sent = self._send(command, items, return_exceptions, self._options.merge(**options), Waits.REF)
        return ray.put([]) if sent is None else sent.ref

    def __call__(
        self,
        command: str,
        items: Iterable[Mapping[str, Any]],
        return_exceptions: bool = False,
        **options: Unpack[CallSettings],
    ) -> list[Any]:
        """Sends all items and waits for the list of their values. Args and errors: as `remote`."""
        merged = self._options.merge(**options)
        with Interruptible():
            sent = self._send(command, items, return_exceptions, merged, Waits.THREAD)
            values: list[Any] = [] if sent is None else self._sender.value(sent)
        return values

    def _send(
        self,
        command: str,
        items: Iterable[Any],
        return_exceptions: bool,
        options: CallOptions,
        waits: Waits,
    ) -> Sent | None:
        """Each item is encoded when it is drawn; None where there are none."""
        check_items(items)
        sender = self._sender
        sender.check_open()
        draw = sender.drawer(command)
        drawn = [draw(item, number) for number, item in enumerate(items)]
        errors = pb.BATCH_ERRORS_RETURN if return_exceptions else pb.BATCH_ERRORS_RAISE
        return sender.all(command, drawn, options, errors, waits) if drawn else None
