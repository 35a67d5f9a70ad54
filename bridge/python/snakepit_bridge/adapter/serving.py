"""What every thread that serves keeps to: it takes work without losing it, and survives what is raised late.

An exception that another thread or a signal handler raises arrives between two steps of whatever runs then.
Meant for a command, it may come when that command has ended: while its answer is queued, or in the midst of
taking the next request.
"""

from __future__ import annotations

import contextlib
import sys
from contextvars import copy_context
from queue import Empty, SimpleQueue

_ONCE = (True,)


def get(queue: SimpleQueue, taken: list, seconds: float | None = None) -> bool:
    """Appends the next item of `queue` to `taken`, waiting for it; whether one came within `seconds`.

    One call into C: an exception that another thread or a signal handler raises here never finds an item that
    has left the queue and is nowhere.
    """
    try:
        taken.extend(map(queue.get, _ONCE, (seconds,)))
    except Empty:
        return False
    return True


def keep(serve, is_finished) -> None:
    """Calls `serve(taken, error)` until `is_finished()`: what it has taken from its queue, and what it raised
    the last time. It catches by itself what comes while it works; this is for the steps between.
    """
    taken: list = []
    error = None
    while not is_finished():
        try:
            serve(taken, error)
        except BaseException as late:  # noqa: BLE001
            error = late


def recover(taken: list, error: BaseException) -> None:
    """An exception came from outside of a command: it is the outcome of the run that it stopped, if it did.
    A run that had not begun stays in `taken`, and begins now.
    """
    run = taken[0] if taken else None
    if run is None or run.answered or not run.started:
        complain(error)
    else:
        run.cancel_task()
        run.lose(run.outcome(error))
    if run is None or run.started:
        taken.clear()


def complain(error: BaseException) -> None:
    """Says on stderr what nobody else will hear of."""
    print(f"snakepit_bridge: outside of a command came {error!r}; it is ignored", file=sys.stderr)


def cancel(run, kind: int, loop) -> None:
    """Cancels a run, whose task, if it has one, is on `loop`."""
    if run.kind:
        return
    run.cancel(kind)
    if run.asynchronous and loop is not None:
        call(loop, run.cancel_task)


def call(loop, function) -> None:
    """Has `loop` call a function soon. From any thread."""
    with contextlib.suppress(RuntimeError):  # the user has closed it: nothing of it runs any more
        loop.call_soon_threadsafe(function)


def run_for_ever(loop) -> None:
    """Runs a loop in this thread, whatever its tasks raise."""
    while True:
        try:
            loop.run_forever()
        except BaseException as error:  # noqa: BLE001 - SystemExit in a task that a command started
            complain(error)


def loop_of_this_thread():
    """The event loop that asyncio has for this thread, made and set where there is none."""
    import asyncio
    import warnings

    loop = None
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12 and 3.13, which make one here
        loop = asyncio.get_event_loop()
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    return loop


async def with_context(awaitable):
    """(The result, the ContextVars at its end) of an awaitable."""
    result = await awaitable
    return result, copy_context()


def adopt(context) -> None:
    """Sets the ContextVars of `context` here."""
    for variable, value in context.items():
        if variable.get(adopt) is not value:  # itself: a default that nobody has set
            variable.set(value)
