"""Knows which other types a command may return, and what each becomes. Tried in this order, once per type:

| value | becomes |
|---|---|
| Enum | its value |
| bool, int, float, str subclasses (numpy.float64 is one) | the plain number or string |
| dataclass; pydantic (`model_dump`); `_asdict` (namedtuple) | object of its fields |
| other dict, list, tuple, set, bytes subclasses | as their base |
| numpy scalar; dtype; array | number; string; tag `tensor` (arrays of strings and objects: nested lists) |
| pyarrow table, record batch; pandas, polars frame (`__arrow_c_stream__`) | tag `table` |
| `__array__`, `__dlpack__` (torch, jax, ...) | tag `tensor` |
| `isoformat` (dates and times); Path, UUID, Decimal | string |
| `to_dict`; `tolist` | what they give |
| anything else | an error that names the path |

Rule: a library is only looked at when its module is loaded already; a value of its types cannot exist before.
"""

from __future__ import annotations

import sys
from enum import Enum

from snakepit_bridge.values import Binary, Refused, type_name

_CACHE_LIMIT = 1000
_by_type: dict = {}


def convert(value):
    """A simpler value for `value`, or raises Refused."""
    kind = type(value)
    converter = _by_type.get(kind)
    if converter is None:
        if len(_by_type) >= _CACHE_LIMIT:  # a program that makes classes without end
            _by_type.clear()
        converter = _by_type[kind] = _converter(kind)
    try:
        return converter(value)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - the user's to_dict, model_dump, ...
        raise Refused(f"cannot encode {type_name(value)}: {type(error).__name__}: {error}", value) from None


def _converter(kind: type):
    for find in (_basic, _record, _base, _numeric_library, _frame, _array, _text, _method):
        converter = find(kind)
        if converter is not None:
            return converter
    return _refuse


def _refuse(value):
    hint = ": wrap it in list(...)" if hasattr(value, "__iter__") else ""
    raise Refused(f"cannot encode a value of type {type_name(value)}{hint}", value)


def _basic(kind: type):
    if issubclass(kind, Enum):
        return lambda value: value.value
    if issubclass(kind, int):
        return int
    if issubclass(kind, float):
        return float
    if issubclass(kind, str):
        return str.__str__
    return None


def _record(kind: type):
    if hasattr(kind, "__dataclass_fields__"):
        return lambda value: {name: getattr(value, name) for name in value.__dataclass_fields__}
    if callable(getattr(kind, "model_dump", None)):
        return lambda value: value.model_dump()
    if callable(getattr(kind, "_asdict", None)):
        return lambda value: dict(value._asdict())
    return None


def _base(kind: type):
    for base in (dict, list, tuple, set, frozenset):
        if issubclass(kind, base):
            return base
    if issubclass(kind, (bytes, bytearray, memoryview)):
        return lambda value: Binary(bytes(value), kind="bytes")
    return None


def _numeric_library(kind: type):
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "generic"):
        return None
    if issubclass(kind, numpy.dtype):
        return str
    if issubclass(kind, numpy.generic):
        return _numpy_scalar
    if issubclass(kind, numpy.ndarray):
        return _tensor
    return None


def _numpy_scalar(value):
    plain = value.item()
    if type(plain) is type(value):  # longdouble, void: Python has no such number
        return _refuse(value)
    return None if plain is None else plain


def _frame(kind: type):
    if not hasattr(kind, "__arrow_c_stream__") and not _is_old_pandas(kind):
        return None
    from snakepit_bridge import tensors

    return tensors.table if tensors.is_frame(kind) else None


def _is_old_pandas(kind: type) -> bool:
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas"


def _array(kind: type):
    return _tensor if hasattr(kind, "__array__") or hasattr(kind, "__dlpack__") else None


def _tensor(value):
    from snakepit_bridge.tensors import tensor

    return tensor(value)


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
