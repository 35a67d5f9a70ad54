"""Knows what became of requests that other workers had moved here, for a while: a relay that dies before it
has handed on the answer asks for it when it is back.

Rules: one that still runs is waited for, whatever it comes to; what is large, what lies in memory shared
with the interpreter (it would not be free again), and what is older than the newest KEPT or KEPT_BYTES, is
not kept (its relay then says that it may have run); this is the memory of one process, answers.py has what
outlives it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from snakepit_ray.actors.messages import Delegated
from snakepit_ray.codec import BatchEnvelope, Envelope

KEPT = 256
KEPT_BYTES = 4 * 1024 * 1024
LARGE_BYTES = 256 * 1024


class Kept:
    """The outcomes of one worker's delegated requests, by request id."""

    def __init__(self) -> None:
        self._outcomes: OrderedDict[str, asyncio.Future[Delegated]] = OrderedDict()
        self._sizes: dict[str, int] = {}  # of those that have ended
        self._size = 0

    def begins(self, request_id: str) -> None:
        """It is accepted here: from now on it has, or will have, an outcome."""
        self._outcomes[request_id] = asyncio.get_running_loop().create_future()
        while len(self._outcomes) > KEPT:
            self._forget(next(iter(self._outcomes)))

    def ended(self, request_id: str, outcome: Delegated | None) -> None:
        """Its outcome; None: it was cancelled."""
        future = self._outcomes.get(request_id)
        if future is None or future.done():
            return
        if outcome is None:
            self._forget(request_id)
            return
        future.set_result(outcome)
        size = _size(outcome)
        if size is None or size > LARGE_BYTES:
            self._forget(request_id)
            return
        self._sizes[request_id] = size
        self._size += size
        while self._size > KEPT_BYTES:
            self._forget(next(iter(self._sizes)))

    async def recall(self, request_id: str) -> Delegated | None:
        """The outcome of a request that was moved here; None where it is not known."""
        future = self._outcomes.get(request_id)
        if future is None:
            return None
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.cancelled():
                return None
            raise

    def _forget(self, request_id: str) -> None:
        future = self._outcomes.pop(request_id, None)
        self._size -= self._sizes.pop(request_id, 0)
        if future is not None and not future.done():
            future.cancel()


def _size(outcome: Delegated) -> int | None:
    """Bytes that it holds; None where some of them are not its own."""
    value, parts = outcome.value, []
    if isinstance(value, BatchEnvelope):
        parts = [(part.json, part.buffers) for part in value.parts]
    elif isinstance(value, Envelope):
        parts = [(value.json, value.buffers)]
    if not all(isinstance(buffer, bytes) for _, buffers in parts for buffer in buffers):
        return None
    return sum(len(text) + sum(map(len, buffers)) for text, buffers in parts)
