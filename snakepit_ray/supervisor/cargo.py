"""The large buffers of the requests that are at this worker: they travel beside their messages, from the
object store into the interpreter's memory or on to another worker.

- A request's buffers are here for as long as it is.
- The parts of a divided request share those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from snakepit_ray.core.work.request_ids import whole_of
from snakepit_ray.wire._pb import interpreter_pb2 as pb


class Cargo:
    """Buffers by request. `buffers` is empty while no request here has any."""

    def __init__(self) -> None:
        self.buffers: dict[str, Sequence[Any]] = {}

    @contextmanager
    def of(self, request_id: str, buffers: Sequence[Any]) -> Iterator[None]:
        """While it is open `beside` finds the buffers of that request."""
        if not buffers:
            yield
            return
        self.buffers[request_id] = buffers
        try:
            yield
        finally:
            del self.buffers[request_id]

    def beside(self, request: pb.Request) -> Sequence[Any]:
        """The buffers that `request` names by index; none for most."""
        own = self.buffers.get(request.id)  # of a part that another worker has sent here
        return own if own is not None else self.buffers.get(whole_of(request.id), ())
