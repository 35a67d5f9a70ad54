"""An interrupt (Ctrl-C) of a thread that has sent a request, and does not wait for it yet, cancels it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Protocol


class Cancels(Protocol):
    """What a request comes to that is about to be sent."""

    def cancel(self) -> None:
        """Nobody waits for it any more. Safe to repeat."""


def _nothing() -> None:
    """No request has left."""


class _Leaving(threading.local):
    """The last answer, or stream, of each thread, from just before its request leaves."""

    last: Callable[[], Cancels | None]  # weakly: whoever waits for it holds it

    def __init__(self) -> None:
        self.last = _nothing


_leaving = _Leaving()


class Interruptible:
    """Around a call that is sent and waited for: an interrupt between the two cancels it, too. The worker may
    have begun it before this thread waits."""

    def __enter__(self) -> None:
        _leaving.last = _nothing

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            last = _leaving.last()
            if last is not None:
                last.cancel()


def leaves(answer: Cancels) -> None:
    """The request of this answer, or of this stream, is about to be sent by this thread."""
    _leaving.last = weakref.ref(answer)
