"""What a command may ask of its host, answered in this process by what answers it in a worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from snakepit_ray.testing.fake import bridge
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.worker.host_calls import HostCalls


class FakeHost:
    """The link of a command's context."""

    def __init__(self, worker_id: str, pool: str, node_id: str, epoch: Callable[[], tuple[int, int]]) -> None:
        self._calls = HostCalls(worker_id, pool, node_id, epoch)

    def call(self, context: Any, method: str, args: dict[str, Any]) -> Any:
        """Asks and returns the answer. Raises the bridge's HostError."""
        blob, _ = bridge.module("values").encode(args, root="args")
        serving = self._calls.serve(pb.HostCall(method=method, args=pb.Payload(json=blob)))
        try:
            serving.send(None)
        except StopIteration as done:
            return _answer(done.value)
        raise AssertionError("an answer of the host waits for something")

    async def acall(self, context: Any, method: str, args: dict[str, Any]) -> Any:
        """`call` for async commands."""
        return self.call(context, method, args)

    def tell(self, context: Any, method: str, args: dict[str, Any]) -> None:
        """Says something. Nobody waits for the answer, so a failure is nobody's error."""
        with suppress(bridge.module("context").HostError):
            self.call(context, method, args)

    def wake(self, request_id: str) -> None:
        """A request was cancelled: nothing of it waits here."""


def _answer(reply: pb.HostReply) -> Any:
    if reply.WhichOneof("outcome") != "failure":
        return json.loads(reply.value.json)
    failure = reply.failure
    details = json.loads(failure.details_json)
    raise bridge.module("context").HostError(failure.message, failure.kind, failure.type, details)
