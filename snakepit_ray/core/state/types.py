"""The types of session variables: which values each of them takes, and as what it keeps them.

- A value that means the same number is taken as that: an integer for a float, a whole float for an integer.
- Nothing else is converted. "true" is no boolean, 1 is none either, and a boolean is no number.
- An array is described by what is known of it here, its dtype and shape: its data is elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from snakepit_ray.errors import VariableTypeError

SHOWN = 60  # characters of a value in a message
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
NUMBERS = "iuf"  # kinds of dtypes whose elements are real numbers


class VariableType(str, Enum):
    """What a variable holds."""

    FLOAT = "float"
    INTEGER = "integer"
    STRING = "string"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    MODULE = "module"
    LIST = "list"
    DICT = "dict"
    EMBEDDING = "embedding"
    TENSOR = "tensor"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Array:
    """An array whose data is elsewhere. `kind` is that of its dtype as numpy says it ("f": floats, "i" and
    "u": integers, "b": booleans), `dtype` its name."""

    dtype: str
    kind: str
    shape: tuple[int, ...]

    def __repr__(self) -> str:
        return f"an array of {self.dtype}, shape {list(self.shape)}"


def accepted(type_: VariableType, value: Any, name: str) -> Any:
    """The value as the variable `name` of this type keeps it. Raises VariableTypeError."""
    taken = _TAKES[type_](value)
    if taken is _REFUSED:
        raise VariableTypeError(
            f"variable {name!r} is {_article(type_)}: {MEANING[type_]}; got {shown(value)} "
            f"({_kind_of(value)}); pass such a value, or delete the variable and register it anew",
            variable=name,
            expected=type_.value,
            value=shown(value),
        )
    return taken


def inferred(value: Any) -> VariableType:
    """The type of a variable that is registered by its first assignment."""
    if isinstance(value, bool):
        return VariableType.BOOLEAN
    for kind, type_ in _INFERRED:
        if isinstance(value, kind):
            return type_
    raise VariableTypeError(
        f"no type of variable holds {shown(value)} ({_kind_of(value)}); the types are "
        f"{', '.join(type_.value for type_ in VariableType)}",
        expected="any",
        value=shown(value),
    )


MEANING: Mapping[VariableType, str] = {
    VariableType.FLOAT: "a number",
    VariableType.INTEGER: "an integer, or a float that is whole",
    VariableType.STRING: "a string",
    VariableType.BOOLEAN: "True or False",
    VariableType.CHOICE: "a string, which its choices list",
    VariableType.MODULE: "the dotted name of a module or class, as a string",
    VariableType.LIST: "a list",
    VariableType.DICT: "a mapping with strings as keys",
    VariableType.EMBEDDING: "a list of numbers, or an array of them with one dimension",
    VariableType.TENSOR: "an array, or a mapping of its shape and its data",
}
"""What each type takes, in words."""


def shown(value: Any) -> str:
    """A value in a message, shortened."""
    text = repr(value[:20] if isinstance(value, list) else value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


# ---- one function for each type ----------------------------------------------------------------------------

_REFUSED = object()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _float(value: Any) -> Any:
    if not _is_number(value):
        return _REFUSED
    try:
        return float(value)
    except OverflowError:
        return _REFUSED


def _integer(value: Any) -> Any:
    if not _is_number(value):
        return _REFUSED
    if isinstance(value, float):
        return int(value) if value.is_integer() else _REFUSED
    return value


def _instance(kind: type) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, kind) else _REFUSED


def _module(value: Any) -> Any:
    return value if isinstance(value, str) and MODULE.fullmatch(value) else _REFUSED


def _dict(value: Any) -> Any:
    good = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return value if good else _REFUSED


def _embedding(value: Any) -> Any:
    if isinstance(value, Array):
        return value if len(value.shape) == 1 and value.kind in NUMBERS else _REFUSED
    if not isinstance(value, list):
        return _REFUSED
    floats = [_float(element) for element in value]
    return _REFUSED if _REFUSED in floats else floats


def _tensor(value: Any) -> Any:
    if isinstance(value, Array):
        return value
    if not isinstance(value, Mapping) or set(value) != {"shape", "data"}:
        return _REFUSED
    shape, data = value["shape"], value["data"]
    good = isinstance(shape, list) and isinstance(data, (list, Array)) and all(map(_is_length, shape))
    return value if good and _elements(data) == math.prod(shape) else _REFUSED


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _elements(data: Any) -> int:
    """How many numbers are in `data`, nested lists or an array; -1 where something else is in it."""
    if isinstance(data, Array):
        return math.prod(data.shape)
    count, lists = 0, [data]
    while lists:
        for element in lists.pop():
            if isinstance(element, list):
                lists.append(element)
            elif _is_number(element):
                count += 1
            else:
                return -1
    return count


_TAKES: Mapping[VariableType, Callable[[Any], Any]] = {
    VariableType.FLOAT: _float,
    VariableType.INTEGER: _integer,
    VariableType.STRING: _instance(str),
    VariableType.BOOLEAN: _instance(bool),
    VariableType.CHOICE: _instance(str),
    VariableType.MODULE: _module,
    VariableType.LIST: _instance(list),
    VariableType.DICT: _dict,
    VariableType.EMBEDDING: _embedding,
    VariableType.TENSOR: _tensor,
}
_INFERRED: Sequence[tuple[type, VariableType]] = (
    (int, VariableType.INTEGER),
    (float, VariableType.FLOAT),
    (str, VariableType.STRING),
    (list, VariableType.LIST),
    (Mapping, VariableType.DICT),
    (Array, VariableType.TENSOR),
)


def _article(type_: VariableType) -> str:
    return f"{'an' if type_.value[0] in 'aeiou' else 'a'} {type_.value}"


def _kind_of(value: Any) -> str:
    return "None" if value is None else "bool" if isinstance(value, bool) else type(value).__name__
