"""The requests that one worker serves now: one that arrives again meanwhile gets the answer of the first.

Ray sends a request again when the connection to the worker broke, although the worker lives. A relay that was
restarted asks for one that it had moved here."""

from __future__ import annotations

import asyncio
from typing import Any

Answered = tuple[Any, Exception | None]  # an answer, or the error instead


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
