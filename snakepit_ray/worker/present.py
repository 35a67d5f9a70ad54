"""The requests that one worker serves now: one that arrives again meanwhile gets the answer of the first.

Ray sends a request again when the connection to the worker broke, although the worker lives. A relay that was
restarted asks for one that it had moved here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

Answered = tuple[Any, Exception | None]  # an answer, or the error instead
KEPT_SECONDS = 10.0
MOST_KEPT = 256


class Present(dict[str, "asyncio.Future[Answered] | None"]):
    """The requests that are served now, by id. The future is made when somebody waits; whoever serves the
    request gives it the answer."""

    async def answer(self, request_id: str) -> Any:
        """What a request that is served now comes to; None where that was cancelled. Raises its error."""
        waiting = self[request_id]
        if waiting is None:
            waiting = self[request_id] = asyncio.get_running_loop().create_future()
        answer, error = await asyncio.shield(waiting)
        if error is not None:
            raise error
        return answer


class Kept:
    """Answers that were too large for the way that their requests came: each waits for the same request,
    which comes another way. What nobody fetches goes after KEPT_SECONDS, and `expired` is called, or when
    MOST_KEPT others came."""

    def __init__(self, expired: Callable[[], None]) -> None:
        self._expired = expired
        self.answers: dict[str, tuple[Answered, asyncio.TimerHandle]] = {}

    def keep(self, request_id: str, answered: Answered) -> None:
        """Of a request that has ended."""
        timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._expire, request_id)
        self.answers[request_id] = answered, timer
        while len(self.answers) > MOST_KEPT:
            self.take(next(iter(self.answers)))

    def _expire(self, request_id: str) -> None:
        self.take(request_id)
        self._expired()

    def take(self, request_id: str) -> Answered | None:
        """The answer, once; None where there is none."""
        answered, timer = self.answers.pop(request_id, (None, None))
        if timer is not None:
            timer.cancel()
        return answered
