"""What a test has said of coming calls, and what became of those that came. Plain data."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from snakepit_ray.config import CallOptions
from snakepit_ray.errors import ConfigError


class RecordedCall(NamedTuple):
    """One call that reached a fake pool: what its command got, and the options that it was made with. Each
    item of a batch or a map is a call."""

    command: str
    args: Any
    options: CallOptions


@dataclass(frozen=True)
class Failure:
    """Calls of one command, by their numbers from 1 on, that end with `error`; streams after so many
    values."""

    first: int
    last: float
    error: Exception
    after: int

    def raised(self) -> Exception:
        """A copy: an exception that is raised twice collects two tracebacks."""
        return copy.copy(self.error)


class Script:
    """The failures of one fake pool, and its record."""

    def __init__(self) -> None:
        self.calls: list[RecordedCall] = []
        self._failures: dict[str, list[Failure]] = {}
        self._counts: Counter[str] = Counter()

    def fail(self, command: str, error: Exception, call: int, times: int | None, after: int) -> None:
        """Says that coming calls of `command` fail. Raises ConfigError for what is no error or number."""
        if not isinstance(error, Exception):
            raise ConfigError(f"error: got {error!r}, expected an exception, such as ValueError('no')")
        for name, number, least in (("call", call, 1), ("times", times, 1), ("after", after, 0)):
            if number is not None and (isinstance(number, bool) or number < least):
                raise ConfigError(f"{name}: got {number!r}, expected a whole number of at least {least}")
        first = self._counts[command] + call
        last = float("inf") if times is None else first + times - 1
        self._failures.setdefault(command, []).append(Failure(first, last, error, after))

    def came(self, call: RecordedCall) -> Failure | None:
        """Writes a call down. How it is to fail, None where it is to run."""
        self.calls.append(call)
        self._counts[call.command] += 1
        number = self._counts[call.command]
        failures = self._failures.get(call.command, ())
        return next((one for one in failures if one.first <= number <= one.last), None)
