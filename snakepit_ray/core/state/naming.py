"""What sessions, variables and programs may be called, and what metadata may be.

Callers look here before they ask the store, and workers do for their interpreters. Each check returns what is
kept, and raises InvalidArguments that says what was got and what was expected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from snakepit_ray.errors import InvalidArguments

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LONGEST_ID = 1024  # bytes of UTF-8
MOST_ENTRIES = 32  # of metadata
MOST_METADATA = 4096  # bytes of its JSON
SHOWN = 80  # characters of a value in a message


def variable_name(value: Any) -> str:
    """The name of a variable."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        expected = "1 to 64 of A-Z a-z 0-9 _ - . starting with a letter or digit"
        raise _wrong("the name of a variable", shown(value), expected)
    return value


def variable_names(values: Any) -> tuple[str, ...]:
    """Names of variables: a list of strings, and not one string, whose letters would pass for names."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise _wrong("the names of variables", shown(values), "a list of names")
    return tuple(map(variable_name, values))


def session_id(value: Any) -> str:
    """The id of a session."""
    return _text("the id of a session", value)


def program_id(value: Any) -> str:
    """The id of a program."""
    return _text("the id of a program", value)


def pattern(value: Any) -> str:
    """A pattern of names or ids, in which `*` stands for any characters."""
    return _text("a pattern", value)


def patterns(values: Any) -> tuple[str, ...]:
    """Patterns: one string, or a list of them."""
    if isinstance(values, str):
        return (pattern(values),)
    if not isinstance(values, Iterable):
        raise _wrong("the names to watch", shown(values), "a pattern such as 'loss.*', or a list of them")
    found = tuple(map(pattern, values))
    if not found:
        raise _wrong("the names to watch", "none", "at least one")
    return found


def metadata(value: Any) -> dict[str, Any]:
    """Metadata as it is kept: a copy of its own."""
    expected = (
        f"a mapping from strings to JSON values, at most {MOST_ENTRIES} entries and {MOST_METADATA:,} bytes"
    )
    if not isinstance(value, Mapping):
        raise _wrong("metadata", shown(value), expected)
    if len(value) > MOST_ENTRIES:
        raise _wrong("metadata", f"{len(value)} entries", expected)
    try:
        _refuse_other_keys(value)
        text = json.dumps(dict(value), allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise _wrong("metadata", shown(value), f"{expected} ({error})") from error
    if size > MOST_METADATA:
        raise _wrong("metadata", f"{size:,} bytes", expected)
    kept: dict[str, Any] = json.loads(text)
    return kept


def shown(value: Any) -> str:
    """A value and its type, short."""
    text = repr(value)
    return f"{text if len(text) <= SHOWN else text[: SHOWN - 3] + '...'} ({type(value).__name__})"


def _refuse_other_keys(value: Any) -> None:
    """json.dumps would write 1, True and None as "1", "true" and "null" where they are keys."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r:.80} ({type(key).__name__}) is no string")
            _refuse_other_keys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_other_keys(item)


def _text(what: str, value: Any) -> str:
    expected = f"a string of 1 to {LONGEST_ID} bytes of UTF-8"
    if not isinstance(value, str) or not value:
        raise _wrong(what, shown(value), expected)
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise _wrong(what, shown(value), expected) from error
    if size > LONGEST_ID:
        raise _wrong(what, f"{size} bytes", expected)
    return value


def _wrong(what: str, got: str, expected: str) -> InvalidArguments:
    return InvalidArguments(f"{what}: got {got}, expected {expected}")
