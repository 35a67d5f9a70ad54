"""Knows what to pass instead of a value that cannot be carried: the end of an EncodingError's message."""

from __future__ import annotations

import dataclasses
from typing import Any


def kind_of(value: Any) -> str:
    """The name of its class, with the module unless it is a builtin."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


_HINTS = {
    "set": "pass sorted(value) or list(value)",
    "frozenset": "pass sorted(value) or list(value)",
    "range": "pass list(value)",
    "generator": "pass list(value)",
    "deque": "pass list(value)",
    "date": "pass value.isoformat()",
    "time": "pass value.isoformat()",
    "timedelta": "pass value.total_seconds()",
    "Decimal": "pass str(value) or float(value)",
    "Fraction": "pass str(value) or float(value)",
    "UUID": "pass str(value)",
    "PurePath": "pass str(value)",
    "Enum": "pass value.value",
    "complex": "pass [value.real, value.imag] or numpy.complex128(value)",
    "function": "code does not travel: make it a command of the adapter",
    "ObjectRef": "pass refs at the top level of the arguments, or ray.get it first",
}


def hint_for(value: Any) -> str:
    """What to pass instead of it."""
    if dataclasses.is_dataclass(value):
        return "pass dataclasses.asdict(value)"
    for kind in type(value).__mro__:
        if kind.__name__ in _HINTS:
            return _HINTS[kind.__name__]
    return "pass JSON values, an array, a table or bytes made from it"
