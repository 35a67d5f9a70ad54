"""What a command may ask of its host, answered in this process by what answers it in a worker.

The store is asked by a call that blocks, so that no handler has to be awaited: a command may run in an event
loop already.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.state.asked import Changes, Creation, Question, Watch
from snakepit_ray.core.state.copies import Copies
from snakepit_ray.errors import InvalidArguments
from snakepit_ray.testing.fake import bridge
from snakepit_ray.wire.codec import Encoded
from snakepit_ray.wire.failures import failure_of
from snakepit_ray.wire.host_call import HostCall
from snakepit_ray.worker.host_calls import worker_methods
from snakepit_ray.worker.session_calls import SessionCalls
from snakepit_ray.worker.session_pins import Pins

if TYPE_CHECKING:
    from snakepit_ray.client.store_calls import StoreCalls


class FakeHost:
    """The link of a command's context. `store` gives what asks the pool's store."""

    def __init__(
        self,
        worker_id: str,
        config: PoolConfig,
        node_id: str,
        epoch: Callable[[], tuple[int, int]],
        store: Callable[[], StoreCalls],
    ) -> None:
        self._worker_id = worker_id
        creation = Creation(config.name, config.session_ttl, config.max_sessions)
        pins = Pins(config.name, lambda request_id: None, _unbound)
        sessions = SessionCalls(_Link(store), Copies([0]), pins, creation, worker_id)
        self._methods = worker_methods(worker_id, config.name, node_id, epoch, sessions.handlers())
        self.copies = bridge.module("adapter.copies").Copies(None, 0)  # the store is in this process

    def call(self, context: Any, method: str, args: dict[str, Any]) -> Any:
        """Asks and returns the answer. Raises the bridge's HostError."""
        try:
            answer = self._methods.serve(self._made(context, method, args))
            if isinstance(answer, AsyncIterator):
                raise InvalidArguments(f"{method} gives a stream: call it with host_stream")
            return _value(_finished(answer))
        except Exception as error:  # noqa: BLE001 - whatever it is, the command gets it as a HostError
            raise _refused(error) from None

    wait = call

    def stream(self, context: Any, method: str, args: dict[str, Any]) -> Iterator[Any]:
        """Asks for a stream; the values that it has, one for a method that gives a value."""
        try:
            answer = self._methods.serve(self._made(context, method, args))
            if not isinstance(answer, AsyncIterator):
                yield _value(_finished(answer))
                return
            while True:
                yield _value(_finished(answer.__anext__()))
        except StopAsyncIteration:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the command gets it as a HostError
            raise _refused(error) from None

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


class _Link:
    """The fake pool's store, for handlers."""

    def __init__(self, store: Callable[[], StoreCalls]) -> None:
        self._store = store

    async def ask(self, question: Question, seconds: float | None = None) -> Any:
        """The answer; blocks."""
        return self._store().ask(question, seconds)

    async def watch(self, watch: Watch, seconds: float | None = None) -> Changes:
        """The changes since then; blocks."""
        return self._store().watch(watch, seconds).result()


async def _unbound(session: str) -> int | None:
    return None


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
    buffers = [bytes(memoryview(buffer)) for buffer in encoded.buffers]
    return bridge.module("values.decoding").decode(encoded.json, buffers, root="reply")


def _refused(error: Exception) -> Exception:
    failure = failure_of(error)
    details = json.loads(failure.details_json) if failure.details_json else {}
    host_error: Exception = bridge.module("adapter.host_errors").error_of(
        failure.message, failure.kind, failure.type, details, failure.traceback
    )
    return host_error
