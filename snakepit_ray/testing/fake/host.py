"""What a command may ask of its host, answered in this process by what answers it in a worker.

A handler of a worker that waits for something waits on an event loop of its own here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from snakepit_ray.errors import InvalidArguments
from snakepit_ray.testing.fake import bridge
from snakepit_ray.wire.codec import Encoded
from snakepit_ray.wire.failures import failure_of
from snakepit_ray.wire.host_call import HostCall, HostHandler
from snakepit_ray.worker.host_calls import worker_methods


class FakeHost:
    """The link of a command's context."""

    def __init__(
        self,
        worker_id: str,
        pool: str,
        node_id: str,
        epoch: Callable[[], tuple[int, int]],
        tools: Mapping[str, HostHandler],
    ) -> None:
        self._worker_id = worker_id
        self._methods = worker_methods(worker_id, pool, node_id, epoch, tools)

    def call(self, context: Any, method: str, args: dict[str, Any]) -> Any:
        """Asks and returns the answer. Raises the bridge's HostError."""
        try:
            answer = self._methods.serve(self._made(context, method, args))
            if isinstance(answer, AsyncIterator):
                raise InvalidArguments(f"{method} gives a stream: call it with host_stream")
            return _value(_finished(answer))
        except Exception as error:  # noqa: BLE001 - whatever it is, the command gets it as a HostError
            raise _refused(error) from None

    def stream(self, context: Any, method: str, args: dict[str, Any]) -> Iterator[Any]:
        """Asks for a stream; the values that it has, one for a method that gives a value."""
        try:
            answer = self._methods.serve(self._made(context, method, args))
            encoded = _finished(_all(answer))
        except Exception as error:  # noqa: BLE001 - whatever it is, the command gets it as a HostError
            raise _refused(error) from None
        yield from map(_value, encoded)

    async def acall(self, context: Any, method: str, args: dict[str, Any]) -> Any:
        """`call` for async commands."""
        return self.call(context, method, args)

    async def astream(self, context: Any, method: str, args: dict[str, Any]) -> AsyncIterator[Any]:
        """`stream` for async commands."""
        for value in self.stream(context, method, args):
            yield value

    def tell(self, context: Any, method: str, args: dict[str, Any]) -> None:
        """Says something. Nobody waits for the answer, so a failure is nobody's error."""
        with suppress(bridge.module("adapter.context").HostError):
            self.call(context, method, args)

    def wake(self, request_id: str) -> None:
        """A request was cancelled: nothing of it waits here."""

    def _made(self, context: Any, method: str, args: dict[str, Any]) -> HostCall:
        text, buffers = bridge.module("values.encoding").encode(args, root="args")
        return HostCall(
            method=method,
            payload=Encoded(text, [bytes(buffer) for buffer in buffers], []),
            worker_id=self._worker_id,
            request_id=context.request_id,
            session=context.session_id,
            deadline=context.deadline,
            traceparent=context.traceparent,
            tracestate=context.tracestate,
            chain=None,
        )


async def _all(answer: Any) -> list[Encoded]:
    if isinstance(answer, AsyncIterator):
        return [value async for value in answer]
    return [await answer]


def _finished(work: Any) -> Any:
    """The result of a coroutine. Most need no event loop, which a command may run in already."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    raise NotImplementedError(
        "this answer of the host waits for something, which a FakePool does not imitate"
    )


def _value(encoded: Encoded) -> Any:
    return bridge.module("values.decoding").decode(encoded.json, encoded.buffers, root="reply")


def _refused(error: Exception) -> Exception:
    host_error: Exception = bridge.module("server.host_waiting").error_of(failure_of(error))
    return host_error
