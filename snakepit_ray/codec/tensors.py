"""Knows arrays, tables and bytes: a tag and one buffer each. The only place that imports numpy and pyarrow,
when it must.

Rules: little-endian or one byte wide, row-major; nothing is copied that need not be; what comes back is
read-only; every number in a tag is checked against the buffer before anything is made of it.
"""

from __future__ import annotations

import math
import re
from typing import Any

Tagged = tuple[dict[str, Any], Any]
DTYPE = re.compile(
    r"(\|b1|\|?[iu]1|<[iu][248]|<f[248]|<c(8|16)|<[Mm]8\[([1-9][0-9]*)?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])"
)
MAX_DIMENSIONS = 32  # what every supported numpy can make
_BYTE_FORMATS = ("B", "b", "c")


class NotCarried(Exception):
    """The value (or the tag) is not one that can be carried; the text says what to do, or is empty."""


# ---- encode ------------------------------------------------------------------------------------------------


def encode(value: Any) -> Tagged:
    """A value that is no JSON as (tag without its buffer index, buffer); a scalar as ({"value": it}, None).

    Raises NotCarried.
    """
    if isinstance(value, bytes):
        return {"tag": "bytes"}, value
    if isinstance(value, type):
        raise NotCarried("")
    kind = type(value)
    try:
        if hasattr(kind, "__arrow_c_stream__"):
            return _encode_stream(value)
        if hasattr(kind, "__array__") or hasattr(kind, "__dlpack__"):
            return _encode_array_like(value)
        return _encode_buffer(value)
    except NotCarried:
        raise
    except Exception as error:  # whatever another library's object says when it is asked for its data
        raise NotCarried(f"its data cannot be read: {type(error).__name__}: {error}") from error


def _encode_stream(value: Any) -> Tagged:
    import pyarrow as pa

    if isinstance(value, pa.RecordBatchReader):
        return _encode_table(value.read_all())
    try:
        table = value if isinstance(value, pa.Table) else pa.table(value)
    except (TypeError, ValueError, pa.ArrowException):  # one column: a Series, a ChunkedArray
        if hasattr(type(value), "__array__"):
            return _encode_array_like(value)
        raise
    return _encode_table(table)


def _encode_table(table: Any) -> Tagged:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return {"tag": "table"}, memoryview(sink.getvalue())


def _encode_array_like(value: Any) -> Tagged:
    import numpy as np

    if isinstance(value, np.generic) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        return {"value": value.item()}, None
    if isinstance(value, np.ma.MaskedArray):
        raise NotCarried("the mask would be lost; pass value.filled(...) and the mask as two arrays")
    has_array = hasattr(type(value), "__array__")
    return encode_array(np.asarray(value) if has_array else np.from_dlpack(value))


def _encode_buffer(value: Any) -> Tagged:
    """Whatever has Python's buffer protocol: 1-D bytes as bytes, anything else as an array."""
    try:
        view = memoryview(value)
    except TypeError:
        raise NotCarried("") from None
    if view.ndim == 1 and view.format in _BYTE_FORMATS:
        return {"tag": "bytes"}, view.cast("B") if view.contiguous else view.tobytes()
    import numpy as np

    return encode_array(np.asarray(view))


def encode_array(array: Any) -> Tagged:
    """A numpy array as ({"tag": "tensor", "dtype", "shape"}, its bytes). Raises NotCarried for other
    dtypes."""
    import numpy as np

    little = array.dtype.newbyteorder("<")
    if not DTYPE.fullmatch(little.str):
        raise NotCarried(_dtype_hint(array.dtype))
    if array.ndim > MAX_DIMENSIONS:
        raise NotCarried(f"it has {array.ndim} dimensions; reshape it to at most {MAX_DIMENSIONS}")
    rows = np.asarray(array, dtype=little, order="C")
    flat: Any = rows.reshape(-1).view(np.uint8)
    return {"tag": "tensor", "dtype": little.str, "shape": list(array.shape)}, memoryview(flat)


def _dtype_hint(dtype: Any) -> str:
    hints = {
        "O": "an array of objects; pass value.tolist(), or value.astype(float) where it holds numbers",
        "U": "an array of strings; pass value.tolist()",
        "S": "an array of byte strings; pass value.tolist() of decoded strings",
        "T": "an array of strings; pass value.tolist()",
        "V": "a structured array; pass each field, or a table: pyarrow.table({name: value[name], ...})",
        "M": "datetime64 without a unit; pass value.astype('datetime64[ns]')",
        "m": "timedelta64 without a unit; pass value.astype('timedelta64[ns]')",
    }
    return hints.get(dtype.kind, f"dtype {dtype} is not portable; pass value.astype('float64')")


# ---- decode ------------------------------------------------------------------------------------------------


def decode_bytes(buffer: Any) -> bytes:
    return buffer if type(buffer) is bytes else bytes(memoryview(buffer))


def decode_tensor(buffer: Any, dtype: Any, shape: Any) -> Any:
    """A read-only numpy array over the buffer, without a copy. Raises NotCarried when the three do not
    agree."""
    if not isinstance(dtype, str) or not DTYPE.fullmatch(dtype):
        raise NotCarried(f"dtype {dtype!r} is not a little-endian typestr of kind b i u f c M m")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise NotCarried(f"shape {shape!r:.200} is not a list of whole numbers from 0")
    import numpy as np

    view = memoryview(buffer)
    try:
        element = np.dtype(dtype)
        if math.prod(shape) * element.itemsize != view.nbytes:
            raise NotCarried(f"{dtype} of shape {shape!r:.200} has not {view.nbytes} bytes as the buffer")
        array: Any = np.ndarray(shape, element, view)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise NotCarried(f"{dtype} of shape {shape!r:.200} cannot be made: {error}") from error
    array.flags.writeable = False
    return array


def decode_table(buffer: Any) -> Any:
    """A pyarrow Table over the buffer, without a copy, validated. Raises NotCarried when it is damaged."""
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(pa.py_buffer(buffer)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, ValueError, TypeError, KeyError, OSError, MemoryError, OverflowError) as error:
        raise NotCarried(f"the buffer is no Arrow IPC stream: {error}") from error
    return table
