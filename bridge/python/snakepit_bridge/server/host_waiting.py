"""Who waits for one answer of the host, and how an answer becomes a value or an error."""

from __future__ import annotations

import json
import sys

from snakepit_bridge.adapter.context import HostError
from snakepit_bridge.values.decoding import decode
from snakepit_bridge.values.failures import ENCODING, InvalidArguments


class Waiter:
    """Somebody who waits for one answer; `notify` is called once it is there."""

    __slots__ = ("_calls", "_has_left", "_notify", "outcome")

    def __init__(self, calls, notify) -> None:
        self._calls = calls
        self._notify = notify
        self._has_left = False
        self.outcome = None

    def take(self, reply) -> None:
        """The HostReply."""
        self.outcome = reply
        if self._has_left:
            self._calls.forget(reply)
        self._notify()

    def fail(self, error: BaseException) -> None:
        """What came instead."""
        self.outcome = error
        self._notify()

    def leave(self) -> None:
        """It waits no more: an answer that has come, or comes just now, is released."""
        self._has_left = True
        if self.outcome is not None and not isinstance(self.outcome, BaseException):
            self._calls.forget(self.outcome)

    def result(self):
        """The value that came, or raises what came instead."""
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return value_of(self.outcome, self._calls)

    def complain(self, method: str) -> None:
        """Says on stderr that a call without an audience failed; a host that has gone needs no words."""
        reply = self.outcome
        if isinstance(reply, BaseException):
            return
        self._calls.forget(reply)
        if reply.WhichOneof("outcome") == "failure":
            print(f"snakepit_bridge: {method} failed at the host: {reply.failure.message}", file=sys.stderr)


def value_of(reply, calls):
    """The value of a HostReply. Raises HostError for a failure, and for what cannot be decoded."""
    if reply.WhichOneof("outcome") == "failure":
        raise _error(reply.failure)
    try:
        return decode(reply.value.json, calls.look(reply.value.buffers), root="reply")
    except InvalidArguments as error:
        raise HostError(str(error), ENCODING, "EncodingError") from None
    finally:
        calls.forget(reply)


def _error(failure) -> HostError:
    from snakepit_bridge.adapter.host_errors import error_of

    details = json.loads(failure.details_json) if failure.details_json else {}
    return error_of(failure.message, failure.kind, failure.type, details, failure.traceback)
