"""Which other types a command may return, and what each becomes.

The first row that fits decides, once for each class:

| value | becomes |
|---|---|
| int, float, str subclasses (numpy.float64, IntEnum, StrEnum) | the plain number or string |
| other Enum | its value |
| namedtuple (`_asdict`) | object of its fields |
| dict, list, tuple, set subclasses | as their base |
| arrays, tables, bytes, numpy scalars | kinds.py decides; arrays of strings and objects become nested lists |
| other Mapping | object |
| dataclass; pydantic (`model_dump`) | object of its fields |
| numpy dtype | its name |
| pandas.NA, pandas.NaT | null |
| `isoformat` (dates and times); Path, UUID, Decimal | string |
| `to_dict`; `tolist` | what they give |
| anything else | an error that names the path and says what to send instead |

snakepit_ray/docs/values.md has every kind of value with what both sides do with it.

Rule: a library is only looked at when its module is loaded already; a value of its types cannot exist before.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum

from snakepit_bridge.tensors import kinds
from snakepit_bridge.tensors.tensors import NotCarried, OfObjects
from snakepit_bridge.values.hints import hint_for, kind_of
from snakepit_bridge.values.tags import Binary, Refused

_CACHE_LIMIT = 1000
_MISSING = frozenset(("NAType", "NaTType"))
_by_type: dict = {}


def convert(value):
    """A simpler value for `value`, or raises Refused."""
    kind = type(value)
    try:
        converter = _by_type.get(kind)
        if converter is None:
            if len(_by_type) >= _CACHE_LIMIT:  # a program that makes classes without end
                _by_type.clear()
            converter = _by_type[kind] = _converter(kind, value)
        return converter(value)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - the user's to_dict, model_dump, ...
        raise Refused(f"cannot encode {kind_of(value)}: {type(error).__name__}: {error}", value) from None


def _converter(kind: type, value):
    for find in (_basic, _base):
        converter = find(kind)
        if converter is not None:
            return converter
    encode = kinds.encoder(value)
    if encode is not None:
        return lambda value: _carried(encode, value)
    for find in (_mapping, _record, _numpy_dtype, _missing, _text, _method):
        converter = find(kind)
        if converter is not None:
            return converter
    return _refuse


def _refuse(value):
    raise Refused(f"cannot encode {kind_of(value)}: {hint_for(value)}", value)


def _basic(kind: type):
    if issubclass(kind, int):
        return int.__index__
    if issubclass(kind, float):
        return float.__float__
    if issubclass(kind, str):
        return str.__str__
    return (lambda value: value.value) if issubclass(kind, Enum) else None


def _base(kind: type):
    if issubclass(kind, tuple) and callable(getattr(kind, "_asdict", None)):
        return lambda value: dict(value._asdict())
    for base in (dict, list, tuple, set, frozenset):
        if issubclass(kind, base):
            return base
    return None


def _mapping(kind: type):
    return dict if issubclass(kind, Mapping) else None


def _carried(encode, value):
    """An array, a table or bytes as a Binary; a scalar, or nested lists."""
    try:
        tag, buffer = kinds.carried(encode, value)
    except OfObjects as found:
        return found.array.tolist()
    except NotCarried as error:
        raise Refused(f"cannot encode {kind_of(value)}: {error}", value) from None
    return tag["value"] if buffer is None else Binary(buffer, kind=tag.pop("tag"), **tag)


def _record(kind: type):
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import fields  # loaded already: a dataclass has been made

        return lambda value: {field.name: getattr(value, field.name) for field in fields(value)}
    if callable(getattr(kind, "model_dump", None)):
        return lambda value: value.model_dump()
    if callable(getattr(kind, "_asdict", None)):
        return lambda value: dict(value._asdict())
    return None


def _numpy_dtype(kind: type):
    numpy = sys.modules.get("numpy")
    return str if hasattr(numpy, "dtype") and issubclass(kind, numpy.dtype) else None


def _missing(kind: type):
    is_missing = kind.__name__ in _MISSING and str(kind.__module__).partition(".")[0] == "pandas"
    return (lambda value: None) if is_missing else None


def _text(kind: type):
    if callable(getattr(kind, "isoformat", None)):
        return lambda value: value.isoformat()
    if hasattr(kind, "__fspath__"):
        return lambda value: value.__fspath__()
    if (kind.__module__, kind.__name__) in {("uuid", "UUID"), ("decimal", "Decimal")}:
        return str
    return None


def _method(kind: type):
    if callable(getattr(kind, "to_dict", None)):
        return lambda value: value.to_dict()
    if callable(getattr(kind, "tolist", None)):
        return lambda value: value.tolist()
    return None
