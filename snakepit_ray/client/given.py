"""What callers give to batches, maps and streams, checked before anything is sent. No Ray, no waiting.

The real pool and the fake one (`snakepit_ray.testing.FakePool`) refuse the same with the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeAlias

from snakepit_ray.client.progress import Bar
from snakepit_ray.config import checks
from snakepit_ray.errors import ConfigError
from snakepit_ray.wire.codec import Progress

# False: reports of progress are dropped. True: they are a bar on stderr. A callable gets each.
ShowProgress: TypeAlias = bool | Callable[[Progress], None]

# Of the control methods of a pool: what they take, in seconds.
SECONDS = dict.fromkeys(("timeout", "drain"), checks.seconds(zero=True))


def check_items(items: Any) -> None:
    """Raises ConfigError for what is no iterable."""
    if not isinstance(items, Iterable):
        raise ConfigError(f"items: got {items!r}, expected an iterable of mappings")


def check_counts(**counts: int | None) -> None:
    """Raises ConfigError for a number of items that is neither None nor a whole number of at least 1."""
    for name, given in counts.items():
        if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
            raise ConfigError(f"{name}: got {given!r}, expected a whole number of at least 1")


def seconds(method: str, **given: float) -> float:
    """The one duration that a control method takes. Raises ConfigError."""
    (value,) = checks.checked(method, given, SECONDS).values()
    return float(value)


def reporter(show: ShowProgress) -> Callable[..., None]:
    """What is called with each report of progress. Raises ConfigError."""
    if callable(show):
        return show
    if not isinstance(show, bool):
        raise ConfigError(f"progress: got {show!r}, expected True, False or a function of a Progress")
    return Bar() if show else _ignore


def close(report: Callable[..., None]) -> None:
    """The stream that was reported on has ended."""
    if isinstance(report, Bar):
        with suppress(OSError, ValueError):  # a terminal that is gone
            report.close()


def _ignore(report: Progress) -> None:
    """Nobody asked for reports."""
