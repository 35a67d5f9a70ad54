"""What to send instead of a value that cannot be carried: the end of an error's message.

This file is the same in snakepit_ray/wire/codec and in the Python bridge (a test compares them), so that both
sides give the same advice. The advice is an expression of `value`; tests of the value table evaluate it.
"""

from __future__ import annotations

from typing import Any

_BY_CLASS = {
    "set": "send sorted(value) or list(value)",
    "frozenset": "send sorted(value) or list(value)",
    "range": "send list(value)",
    "generator": "send list(value)",
    "deque": "send list(value)",
    "NaTType": "send None",
    "NAType": "send None",
    "date": "send value.isoformat()",
    "time": "send value.isoformat()",
    "Timedelta": "send value.isoformat()",
    "timedelta": "send value.total_seconds()",
    "tzinfo": "send str(value)",
    "Decimal": "send str(value) or float(value)",
    "Fraction": "send str(value) or float(value)",
    "UUID": "send str(value)",
    "PurePath": "send str(value)",
    "dtype": "send str(value)",
    "Enum": "send value.value",
    "complex": "send [value.real, value.imag] or numpy.complex128(value)",
    "function": "code does not travel: make it a command of the adapter",
    "method": "code does not travel: make it a command of the adapter",
    "builtin_function_or_method": "code does not travel: make it a command of the adapter",
    "ObjectRef": "send refs at the top level of the arguments, or ray.get it first",
    "LazyFrame": "send value.collect()",
}
# Where the class itself says nothing: the first of these names that it has.
_BY_METHOD = {
    "__dataclass_fields__": "send dataclasses.asdict(value)",
    "__attrs_attrs__": "send attrs.asdict(value)",
    "model_dump": "send value.model_dump()",
    "as_py": "send value.as_py()",
    "__array_interface__": "send numpy.asarray(value)",
    "_asdict": "send value._asdict()",
    "keys": "send dict(value)",
    "__iter__": "send list(value)",
}


def kind_of(value: Any) -> str:
    """The name of its class, with the module unless it is a builtin."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def hint_for(value: Any) -> str:
    """What to send instead of it."""
    if not isinstance(value, type):
        for kind in type(value).__mro__:
            if kind.__name__ in _BY_CLASS:
                return _BY_CLASS[kind.__name__]
        for name, hint in _BY_METHOD.items():
            if hasattr(type(value), name):
                return hint
    return "send JSON values, an array, a table or bytes made from it"
