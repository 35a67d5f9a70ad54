"""How JSON and buffers become values again (bridge/README.md section 4).

- What arrives may be damaged or hostile, and every fault of it is an EncodingError (never a RecursionError,
  a MemoryError or a value that claims more than its buffer holds).
- Payloads without tags cost one json parse and no walk. An integer that should have been tagged and was not
  is a float beyond 64 bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

from snakepit_ray.errors import EncodingError
from snakepit_ray.wire.codec import tensors
from snakepit_ray.wire.codec.tags import TAG, Progress, Unserializable

_FLOATS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
_INTEGER = re.compile(r"-?[0-9]{1,4300}")  # as many digits as Python converts by default
_RAW_TAG = b'"$snakepit"'
_ESCAPED_DOLLAR = b"\\u0024"  # a tag's key may be written with it


class _Damaged(Exception):
    """The payload is not what section 4 says; the text says how."""


class Source(NamedTuple):
    """The buffers that tags name, and what is made of each kind of them."""

    buffers: Sequence[Any]
    tensor: Callable[[Any, Any, Any], Any] = tensors.decode_tensor
    table: Callable[[Any], Any] = tensors.decode_table
    binary: Callable[[Any], Any] = tensors.decode_bytes


def decode_value(raw: bytes, buffers: Sequence[Any] = (), root: str = "value") -> Any:
    """The value of a payload; arrays are read-only views of their buffers. Raises EncodingError."""
    return decode_with(raw, Source(buffers), root)


def decode_with(raw: bytes, source: Source, root: str = "value") -> Any:
    """The value of a payload, with the arrays that `source` makes. Raises EncodingError."""
    try:
        value = orjson.loads(raw)
        if _RAW_TAG in raw or _ESCAPED_DOLLAR in raw:
            value = _untag(value, source)
    except (_Damaged, ValueError, RecursionError) as error:
        raise _unreadable(root, error) from error
    return value


def decode_values(
    raw: bytes, buffers: Sequence[Any], count: int, root: str = "results", begin: int = 0
) -> tuple[list[Any], dict[int, EncodingError]]:
    """The `count` outcomes of one payload, each decoded by itself: (values, errors by index). An outcome that
    cannot be read is None among the values. `begin` is the number of the first, for error messages."""
    try:
        values = orjson.loads(raw)
        if type(values) is not list or len(values) != count:
            raise _Damaged(f"it is not an array of all {root}")
    except (_Damaged, ValueError, RecursionError) as error:
        return [None] * count, {
            index: _unreadable(f"{root}[{begin + index}]", error) for index in range(count)
        }
    errors: dict[int, EncodingError] = {}
    if _RAW_TAG in raw or _ESCAPED_DOLLAR in raw:
        source = Source(buffers)
        for index, value in enumerate(values):
            try:
                values[index] = _untag(value, source)
            except (_Damaged, ValueError, RecursionError) as error:
                values[index] = None
                errors[index] = _unreadable(f"{root}[{begin + index}]", error)
    return values, errors


def _unreadable(path: str, error: Exception) -> EncodingError:
    if isinstance(error, RecursionError):
        found = EncodingError(f"{path}: the payload is nested too deep", path=path)
    else:
        found = EncodingError(f"{path}: the payload is damaged: {error}", path=path)
    found.__cause__ = error
    return found


# ---- tags ----------------------------------------------------------------------------------------------


def _untag(value: Any, source: Source) -> Any:
    """The value with its tags replaced; containers are changed in place (json has just made them)."""
    if type(value) is list:
        if not {dict, list}.isdisjoint(map(type, value)):
            value[:] = [_untag(item, source) if type(item) in (dict, list) else item for item in value]
        return value
    if type(value) is not dict:
        return value
    if TAG in value:
        return _replace(value, source)
    for key, item in value.items():
        if type(item) in (dict, list):
            value[key] = _untag(item, source)
    return value


def _replace(tag: dict[str, Any], source: Source) -> Any:
    name = tag[TAG]
    found = _TAGS.get(name) if isinstance(name, str) else None
    if found is None:
        raise _Damaged(f"unknown tag {name!r:.100} (there are: {', '.join(_TAGS)})")
    fields, read = found
    if tag.keys() != fields:
        raise _Damaged(f"{name}: it has {sorted(tag)!r:.200}, expected {sorted(fields)}")
    try:
        return read(tag, source)
    except tensors.NotCarried as error:
        raise _Damaged(f"{name}: {error}") from error


def _buffer(tag: dict[str, Any], source: Source) -> Any:
    buffers = source.buffers
    index = tag.get("buffer")
    if type(index) is not int or not 0 <= index < len(buffers):
        raise _Damaged(f"{tag[TAG]}: buffer {index!r:.100} of {len(buffers)}")
    return buffers[index]


def _float(tag: dict[str, Any], source: Source) -> float:
    text = tag.get("value")
    if not isinstance(text, str) or text not in _FLOATS:
        raise _Damaged(f"float: {text!r:.100} is none of nan, inf, -inf")
    return _FLOATS[text]


def _int(tag: dict[str, Any], source: Source) -> int:
    text = tag.get("value")
    if not isinstance(text, str) or not _INTEGER.fullmatch(text):
        raise _Damaged(f"int: {text!r:.100} is not a decimal number")
    return int(text)


def _object(tag: dict[str, Any], source: Source) -> dict[str, Any]:
    items = tag.get("items")
    if not isinstance(items, list):
        raise _Damaged("object: items is not a list")
    value: dict[str, Any] = {}
    for item in items:
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
            raise _Damaged(f"object: an item is no pair of a string and a value: {item!r:.100}")
        value[item[0]] = _untag(item[1], source)
    return value


def _unserializable(tag: dict[str, Any], source: Source) -> Unserializable:
    kind = tag.get("type")
    if not isinstance(kind, str):
        raise _Damaged(f"unserializable: type {kind!r:.100} is not a string")
    return Unserializable(kind)


def _progress(tag: dict[str, Any], source: Source) -> Progress:
    done, total, message = (_untag(tag.get(name), source) for name in ("done", "total", "message"))
    numbers = type(done) in (int, float) and (total is None or type(total) in (int, float))
    if not numbers or not isinstance(message, str):
        raise _Damaged(f"progress: no two numbers and a string: {tag!r:.100}")
    return Progress(done, total, message)


def _tensor(tag: dict[str, Any], source: Source) -> Any:
    return source.tensor(_buffer(tag, source), tag["dtype"], tag["shape"])


_Read = Callable[[dict[str, Any], Source], Any]
_TAGS: dict[str, tuple[frozenset[str], _Read]] = {
    "float": (frozenset({TAG, "value"}), _float),
    "int": (frozenset({TAG, "value"}), _int),
    "bytes": (frozenset({TAG, "buffer"}), lambda tag, source: source.binary(_buffer(tag, source))),
    "tensor": (frozenset({TAG, "buffer", "dtype", "shape"}), _tensor),
    "table": (frozenset({TAG, "buffer"}), lambda tag, source: source.table(_buffer(tag, source))),
    "object": (frozenset({TAG, "items"}), _object),
    "unserializable": (frozenset({TAG, "type"}), _unserializable),
    "progress": (frozenset({TAG, "done", "total", "message"}), _progress),
}
