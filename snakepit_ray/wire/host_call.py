"""A call of an interpreter to its host, as the code that answers it sees the call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded


@dataclass(frozen=True, slots=True)
class HostCall:
    """A call as its handler sees it.

    `payload` is the argument object, encoded; its buffers look at shared memory, which is released when
    nothing looks at them any more. `deadline` is a time of `time.monotonic()`, None for none. `chain` is that
    of the request, None where no other command has made it.
    """

    method: str
    payload: Encoded
    worker_id: str
    request_id: str
    session: str
    deadline: float | None
    traceparent: str
    tracestate: str
    chain: pb.Chain | None
    stream: bool = False  # the interpreter takes several values


HostHandler: TypeAlias = Callable[[HostCall], Awaitable[Encoded] | AsyncIterator[Encoded]]
