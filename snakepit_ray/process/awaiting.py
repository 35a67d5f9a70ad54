"""Waits of coroutines that lose no cancellation.

`asyncio.wait_for` of Python 3.10 and 3.11 forgets a cancellation that comes in the turn in which what it
waits for ends: the caller goes on as if nobody had cancelled it. It is used nowhere here (ruff says so).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float | None, awaited: Awaitable[T]) -> T:
    """What `awaited` gives within so many seconds; None: without a bound.

    Raises asyncio.TimeoutError after that, and asyncio.CancelledError in a caller that is cancelled. Then
    `awaited` is cancelled, and has ended when this raises."""
    task = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait([task], timeout=None if seconds is None else max(0.0, seconds))
    except asyncio.CancelledError:
        await _end(task)
        raise
    if task.done():
        return task.result()
    await _end(task)
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Waits for an event; whether it was set within so many seconds."""
    with contextlib.suppress(asyncio.TimeoutError):
        await within(seconds, event.wait())
    return event.is_set()


async def finish(work: Awaitable[T]) -> T:
    """The result of `work`, which runs to its end also when the caller is cancelled meanwhile. Then the
    cancellation is raised at that end."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        _hear(task)  # the cancellation is what the caller gets
        raise cancelled
    return task.result()


async def _end(task: asyncio.Future[T]) -> None:
    task.cancel()
    if not task.done():
        await asyncio.wait([task])
    _hear(task)


def _hear(task: asyncio.Future[T]) -> None:
    """Its error is heard of, so that asyncio does not report it as one that nobody asked for."""
    if not task.cancelled():
        task.exception()
