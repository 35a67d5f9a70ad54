"""What all errors of snakepit_ray share, and how their messages suggest a name.

Rules, because Ray re-raises a *dual class* (RayTaskError and ours) that skips our `__init__` and reads
attributes from the original:

- The message is positional, everything else is an optional keyword, and no class attribute or property has
  the name of an instance attribute (it would hide the value).
"""

from __future__ import annotations

from collections.abc import Iterable

PUBLIC_MODULE = "snakepit_ray.errors"


class SnakepitError(Exception):
    """Every error of snakepit_ray. `str(error)` says what happened, with the numbers, and what to do next."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__.startswith(PUBLIC_MODULE + "."):
            cls.__module__ = PUBLIC_MODULE  # what users see, import and pickle


class CallerFault(SnakepitError):
    """What was asked for cannot be done as it was asked: change the call. The same call fails again."""


class NotNow(SnakepitError):
    """Nothing was executed or changed, and the same call can succeed later: wait, slow down, or raise a
    limit."""


class Stopped(SnakepitError):
    """The request was ended before it had a result, by its deadline or by a cancel; it may have started."""


class WorkerFault(SnakepitError):
    """A worker, or the interpreter in it, failed: read the exit code and the stderr tail in the message."""


def nearest(name: object, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names that `name` may be a slip of, best first, at most `most`."""
    from difflib import get_close_matches  # only when something went wrong already

    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in get_close_matches(str(name).lower(), by_lower, n=most, cutoff=0.6)]


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'a' or 'b'?`, or nothing when no known name is near."""
    names = nearest(name, known)
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else ""


def listed(names: Iterable[str], most: int = 20) -> str:
    """The names in alphabetical order, at most `most` of them, for the end of a message."""
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return (", ".join(ordered[:most]) or "none") + more


def first_line(error: BaseException) -> str:
    """What an error says, without the lines that follow; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
