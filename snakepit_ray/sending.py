"""Knows how calls leave this process: which worker's method they go to, and what their failure means there.

Rules: nothing here waits; a request, or a batch of them, is one Ray actor call straight to a worker; what
cannot be sent fails before anything has left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.actors import ray_port
from snakepit_ray.actors.link import Link
from snakepit_ray.codec import nbytes
from snakepit_ray.config import CallOptions
from snakepit_ray.core.batch_size import SHARE
from snakepit_ray.errors import PayloadTooLarge
from snakepit_ray.requests import RequestBuilder, parcel

PIECE = 1000  # items of a batch that are encoded together, at most
PIECE_BYTES = 8 * 1024 * 1024  # of buffers beside them: a piece is not divided further


class Sender:
    """Sends the calls of one pool handle."""

    def __init__(self, link: Link, builder: RequestBuilder) -> None:
        self._link = link
        self._builder = builder

    @property
    def slots(self) -> int:
        """Slots of the pool, as far as this process knows the workers."""
        return self._link.config.capacity * max(1, self._link.workers)

    def slots_for(self, options: CallOptions) -> int:
        """Slots that such a call may run on: those of one worker in a session."""
        return self._link.config.capacity if options.session else self.slots

    def at_once(self, options: CallOptions, ahead: int) -> int:
        """Chunks of such calls that may be under way, `ahead` for each slot. In a session none waits behind
        another: what is given back would come after it."""
        return self.slots_for(options) * (1 if options.session else ahead)

    def one(self, command: str, args: Any, options: CallOptions, *, patient: bool = False) -> Any:
        """Sends one call; the ref of its value. `patient`: it may wait for as long as its budget lasts."""
        request, values = self._builder.build(command, args, options)
        if patient:
            request.options.queue_ms = request.budget_ms
        execute, request.options.incarnation = self._link.target(options.session)
        return execute.remote(request.SerializeToString(), *values)

    def some(
        self, command: str, items: Sequence[Any], options: CallOptions, *, patient: bool = False
    ) -> tuple[Any, int]:
        """Sends calls that one worker runs in one slot, until their share of time is over: the ref of a
        BatchOutcome, whose values may be fewer than the items, and the bytes that went."""
        beside: list[Any] = []
        request = self._builder.build_batch(command, items, options, pb.BATCH_ERRORS_APART, beside)
        request.batch.share_ms = int(SHARE * 1000)
        if patient:
            request.options.queue_ms = request.budget_ms
        execute, request.options.incarnation = self._link.target(options.session)
        blob = request.SerializeToString()
        return execute.remote(blob, *parcel(beside)), len(blob) + sum(map(nbytes, beside))

    def all(self, command: str, items: Sequence[Any], options: CallOptions, errors: int) -> Any:
        """Sends calls that the worker that gets them spreads over the pool: the ref of their results."""
        execute, incarnation = self._link.batch_target(options.session)
        size = max(1, min(PIECE, len(items) // (4 * self.slots_for(options))))
        blobs, beside = [], list[Any]()
        build = partial(self._builder.build_batch, command, options=options, errors=errors, beside=beside)
        for begin in range(0, len(items), size):
            for request in _pieces(build, items[begin : begin + size], beside, begin):
                request.options.incarnation = incarnation
                blobs.append(request.SerializeToString())
        return execute.remote(blobs, *parcel(beside))

    def our(self, error: Exception, budget: float | None) -> BaseException:
        """Our error for one of Ray's; itself where it has no meaning of ours."""
        return ray_port.translate(error, self._link.config.name, budget) or error


def _pieces(
    build: Callable[..., pb.Request], items: Sequence[Any], beside: list[Any], begin: int
) -> list[pb.Request]:
    """The items as requests of which each is small enough to be sent, and moves little beside it."""
    half, before = len(items) // 2, len(beside)
    try:
        request = build(items=items, begin=begin)
        if not half or sum(map(nbytes, beside[before:])) <= PIECE_BYTES:
            return [request]
    except PayloadTooLarge:
        if not half:
            raise
    del beside[before:]
    first = _pieces(build, items[:half], beside, begin)
    return first + _pieces(build, items[half:], beside, begin + half)
