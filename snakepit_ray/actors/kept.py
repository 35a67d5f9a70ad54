"""Knows what became of requests that other workers had moved here, for a while: a relay that dies before it
has handed on the answer asks for it when it is back.

Rules: one that still runs is waited for; what is large, or older than the newest KEPT, is not kept (its
relay then says that it may have run); this is the memory of one process, answers.py has what outlives it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from snakepit_ray.actors.messages import Delegated
from snakepit_ray.codec import BatchEnvelope, Envelope, nbytes

KEPT = 256
LARGE_BYTES = 256 * 1024


class Kept:
    """The outcomes of one worker's delegated requests, by request id."""

    def __init__(self) -> None:
        self._outcomes: OrderedDict[str, asyncio.Future[Delegated]] = OrderedDict()

    def begins(self, request_id: str) -> None:
        """It is accepted here: from now on it has, or will have, an outcome."""
        self._outcomes[request_id] = asyncio.get_running_loop().create_future()
        while len(self._outcomes) > KEPT:
            self._forget(next(iter(self._outcomes)))

    def ended(self, request_id: str, outcome: Delegated | None) -> None:
        """Its outcome; None: it was cancelled."""
        future = self._outcomes.get(request_id)
        if outcome is None or _is_large(outcome):
            self._forget(request_id)
        elif future is not None and not future.done():
            future.set_result(outcome)

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
        if future is not None and not future.done():
            future.cancel()


def _is_large(outcome: Delegated) -> bool:
    value, parts = outcome.value, []
    if isinstance(value, BatchEnvelope):
        parts = [(part.json, part.buffers) for part in value.parts]
    elif isinstance(value, Envelope):
        parts = [(value.json, value.buffers)]
    size = sum(len(text) + sum(nbytes(buffer) for buffer in buffers) for text, buffers in parts)
    return size > LARGE_BYTES
