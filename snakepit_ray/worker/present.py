"""The requests that one worker serves now: one that arrives again meanwhile gets the answer of the first.

Ray sends a request again when the connection to the worker broke, although the worker lives. A relay that was
restarted asks for one that it had moved here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Present:
    """The requests that are served now."""

    def __init__(self) -> None:
        # By id. The future, made when somebody waits, gets (answer, error).
        self._waiting: dict[str, asyncio.Future[tuple[Any, Exception | None]] | None] = {}

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    @contextmanager
    def serving(self, request_id: str) -> Iterator[list[Any]]:
        """While a request is served. Its answer is to be put into the list; an error that is raised is its
        answer, too."""
        answer: list[Any] = []
        error: Exception | None = None
        self._waiting[request_id] = None
        try:
            yield answer
        except Exception as raised:
            error = raised
            raise
        finally:
            waiting = self._waiting.pop(request_id)
            if waiting is not None and not waiting.done():
                waiting.set_result((answer[0] if answer else None, error))

    async def answer(self, request_id: str) -> Any:
        """What a request that is served now comes to; None where that was cancelled. Raises its error."""
        waiting = self._waiting[request_id]
        if waiting is None:
            waiting = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        answer, error = await asyncio.shield(waiting)
        if error is not None:
            raise error
        return answer
