"""What a value of each kind of setting must look like.

Rules:
- A check takes what the user wrote and returns what is kept.
- The text of its ValueError completes the sentence "expected ...".
- Nothing is converted silently: a string is not a number, True is not 1.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from snakepit_ray.config import units
from snakepit_ray.config.languages import LATER, WITH_BRIDGE
from snakepit_ray.errors import ConfigError, did_you_mean

Check = Callable[[Any], Any]
V = TypeVar("V")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MAX_BUDGET = 4_000_000.0  # seconds, 46 days: a budget travels as a 32-bit number of milliseconds
MAX_SESSION_ID = 1024  # bytes of UTF-8


class FrozenMap(Mapping[str, V]):
    """A mapping that does not change, so that a configuration can be shared, pickled and hashed."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, V] | Iterable[tuple[str, V]] = ()) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(json.dumps(self._items, sort_keys=True))

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenMap, (self._items,)


def checked(what: str, values: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Every value through its check; ONE ConfigError lists all that are wrong: what was got, what was
    expected."""
    kept: dict[str, Any] = {}
    wrong: list[str] = []
    first = None
    for key, value in values.items():
        try:
            kept[key] = checks[key](value)
        except ValueError as error:
            first = first or key
            wrong.append(f"{key}: got {shown(value)}, expected {error}")
    if wrong:
        raise ConfigError(f"{what}: " + "; ".join(wrong), key=first)
    return kept


def shown(value: object) -> str:
    """The value and its type, short: `'4' (str)`."""
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


# ---- kinds of values ---------------------------------------------------------------------------------------


def optional(check: Check) -> Check:
    """None, or what `check` takes."""

    def run(value: Any) -> Any:
        if value is None:
            return None
        try:
            return check(value)
        except ValueError as error:
            raise ValueError(f"{error}, or None") from error

    return run


def whole(low: int, high: int | None = None) -> Check:
    """A whole number from `low` to `high`."""
    expected = f"a whole number of at least {low}" + (f" and at most {high:,}" if high is not None else "")

    def run(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(expected)
        if high is not None and value > high:
            raise ValueError(expected)
        return int(value)

    return run


def number(low: float, high: float = math.inf) -> Check:
    """A finite number from `low` to `high`."""
    expected = f"a number of at least {low:g}" + (f" and at most {high:g}" if high < math.inf else "")

    def run(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(expected)
        if not low <= value <= high:
            raise ValueError(expected)
        return value

    return run


def gpus(value: Any) -> float:
    """As Ray counts accelerators: a share of one, or some whole ones."""
    kept: float = number(0)(value)
    if kept > 1 and kept != int(kept):
        raise ValueError("a share of one GPU (0 to 1) or a whole number of them")
    return kept


def seconds(*, zero: bool, most: float = math.inf) -> Check:
    """A duration; `zero` says whether 0 is one."""

    def run(value: Any) -> float:
        result = units.duration(value)
        if result == 0 and not zero:
            raise ValueError("more than 0 seconds")
        if result > most:
            raise ValueError(f"at most {most:g} seconds")
        return result

    return run


def byte_size(low: int = 0) -> Check:
    def run(value: Any) -> int:
        result = units.size(value)
        if result < low:
            raise ValueError(f"at least {low} bytes")
        return result

    return run


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def one_of(*choices: str) -> Check:
    def run(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"one of {', '.join(map(repr, choices))}{did_you_mean(value, choices)}")
        return value

    return run


def name(value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError("1 to 64 of A-Z a-z 0-9 _ - . starting with a letter or digit")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a string that is not empty")
    return value


def path(value: Any) -> str:
    return text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def session_id(value: Any) -> str:
    expected = f"a string of 1 to {MAX_SESSION_ID} bytes of UTF-8"
    if not isinstance(value, str) or not value:
        raise ValueError(expected)
    try:
        length = len(value.encode())
    except UnicodeEncodeError as error:
        raise ValueError(expected) from error
    if length > MAX_SESSION_ID:
        raise ValueError(expected)
    return value


def session_store(value: Any) -> str:
    """ "sqlite", "memory", or "sqlite:" and an absolute path."""
    if isinstance(value, str):
        kind, colon, path = value.partition(":")
        if value in ("sqlite", "memory") or (kind == "sqlite" and colon and path.startswith("/")):
            return value
    raise ValueError('"sqlite", "memory", or "sqlite:/an/absolute/path"')


def runtime(value: Any) -> Any:
    """A language's name, "module:ClassOrInstance", or a Runtime object."""
    if not isinstance(value, str):
        if isinstance(getattr(value, "name", None), str) and callable(getattr(value, "executable", None)):
            return value
        raise ValueError('"python", "module:Runtime" or a Runtime object (subclass snakepit_ray.BaseRuntime)')
    if value in LATER:
        raise ValueError(f'"python" or a Runtime of your own: {value!r} is not in this version')
    if value in WITH_BRIDGE or ":" in value.strip(":"):
        return value
    raise ValueError(f'"python", "module:Runtime" or a Runtime object{did_you_mean(value, WITH_BRIDGE)}')


def map_of(check: Check, what: str) -> Check:
    """A mapping from non-empty strings to what `check` takes; kept as a FrozenMap."""

    def run(value: Any) -> FrozenMap[Any]:
        if not isinstance(value, Mapping):
            raise ValueError(f"a mapping from names to {what}")
        kept = {}
        for key, item in value.items():
            try:
                kept[text(key)] = check(item)
            except ValueError as error:
                raise ValueError(f"a mapping from names to {what}; {key!r} has {shown(item)}") from error
        return FrozenMap(kept)

    return run


def environment_value(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("a string")
    return value


def json_map(value: Any) -> FrozenMap[Any]:
    """A mapping that JSON can carry (a deep copy of it is kept): keys are strings at every depth."""
    expected = "a mapping from strings to JSON values"
    if not isinstance(value, Mapping):
        raise ValueError(expected)
    try:
        _refuse_other_keys(value, "")
        return FrozenMap(json.loads(json.dumps(dict(value), allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{expected} ({error})") from error


def _refuse_other_keys(value: Any, path: str) -> None:
    """json.dumps would write 1, True and None as "1", "true" and "null" where they are keys."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                where = f" in {path}" if path else ""
                raise TypeError(f"the key {key!r:.80} ({type(key).__name__}){where} is no string")
            _refuse_other_keys(item, f"{path}[{key!r:.80}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_other_keys(item, f"{path}[{index}]")
