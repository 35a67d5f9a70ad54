"""What an encoded value is, without its data: arrays by their dtype and shape, tables and bytes as such.

Nothing is read from a buffer, and neither numpy nor pyarrow is imported. Every number in a tag is checked
against the size of its buffer, as in decoding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snakepit_ray.core.state.types import Array
from snakepit_ray.wire.codec.decoding import Source, decode_with
from snakepit_ray.wire.codec.tensors import DTYPE, NotCarried

_KINDS = {
    "b": "bool",
    "i": "int",
    "u": "uint",
    "f": "float",
    "c": "complex",
    "M": "datetime64",
    "m": "timedelta64",
}


@dataclass(frozen=True)
class Opaque:
    """A value that no type of variable looks into: `what` it is, and its bytes."""

    what: str
    size: int

    def __repr__(self) -> str:
        return f"{self.what} of {self.size} bytes"


def outline(raw: bytes, buffers: Sequence[Any] = (), root: str = "value") -> Any:
    """The value of a payload, with `Array` and `Opaque` in place of what is in buffers. Raises
    EncodingError."""
    return decode_with(raw, Source(buffers, _array, _table, _bytes), root)


def _array(buffer: Any, dtype: Any, shape: Any) -> Array:
    if not isinstance(dtype, str) or not DTYPE.fullmatch(dtype):
        raise NotCarried(f"dtype {dtype!r:.80} is not a little-endian typestr of kind b i u f c M m")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise NotCarried(f"shape {shape!r:.200} is not a list of whole numbers from 0")
    letters = dtype.lstrip("|<")
    kind = letters[0]
    width = int(letters[1:].partition("[")[0])
    if math.prod(shape) * width != len(buffer):
        raise NotCarried(f"{dtype} of shape {shape!r:.200} has not {len(buffer)} bytes as the buffer")
    more = letters[2:] if kind in "Mm" else "" if kind == "b" else str(8 * width)
    return Array(_KINDS[kind] + more, kind, tuple(shape))


def _table(buffer: Any) -> Opaque:
    return Opaque("a table", len(buffer))


def _bytes(buffer: Any) -> Opaque:
    return Opaque("bytes", len(buffer))
