"""Arrays, tables and bytes: a tag and one buffer each.

This file is the same in snakepit_ray/wire/codec and in the Python bridge (a test compares them): one
contract, one reading of it. kinds.py says which classes come here. The rules:

- Data is little-endian or one byte wide, row-major, and copied only where it must be.
- What comes back is read-only. Every number in a tag is checked against the buffer before anything is made.
- numpy and pyarrow are imported when a value needs them, never before.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any

Tagged = tuple[dict[str, Any], Any]
DTYPE = re.compile(
    r"(\|b1|\|?[iu]1|<[iu][248]|<f[248]|<c(8|16)|<[Mm]8\[([1-9][0-9]*)?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])"
)
MAX_DIMENSIONS = 32  # what every supported numpy can make
_BYTE_FORMATS = ("B", "b", "c")


class NotCarried(Exception):
    """The value (or the tag) is not one that can be carried; the text says what to do, or is empty."""


class OfObjects(NotCarried):
    """An array of strings or Python objects: no tensor, but nested lists of its elements exist."""

    def __init__(self, hint: str, array: Any) -> None:
        super().__init__(hint)
        self.array = array


# ---- arrays and bytes --------------------------------------------------------------------------------------


def encode_bytes(value: Any) -> Tagged:
    """Bytes, and subclasses of them."""
    return {"tag": "bytes"}, value


def encode_scalar(value: Any) -> Tagged:
    """A numpy scalar: a plain number, or an array without dimensions."""
    import numpy as np

    if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        return {"value": value.item()}, None
    if value.dtype.kind == "f":
        raise NotCarried(f"a number of dtype {value.dtype} is not portable; send float(value)")
    if value.dtype.names:
        raise NotCarried(
            "its field names would be lost; send {name: value[name] for name in value.dtype.names}"
        )
    return encode_array(np.asarray(value))


def encode_torch(value: Any) -> Tagged:
    """Without its history of gradients, which has no meaning in another process."""
    if any(getattr(value, "names", ())):
        raise NotCarried("the names of its dimensions would be lost; send value.rename(None)")
    if str(value.layout) != "torch.strided":
        raise NotCarried(f"its layout is {value.layout}; send value.to_dense()")
    if value.is_quantized:
        raise NotCarried("it is quantized; send value.dequantize()")
    if str(value.dtype) == "torch.bfloat16":
        raise NotCarried("no other library has its bfloat16; send value.float()")
    return encode_array(value.detach().cpu().resolve_conj().resolve_neg().numpy())


def encode_elements(value: Any) -> Tagged:
    """What has DLPack, through numpy."""
    import numpy as np

    return encode_array(np.asarray(value) if hasattr(type(value), "__array__") else np.from_dlpack(value))


def encode_buffer(value: Any) -> Tagged:
    """Whatever has Python's buffer protocol: 1-D bytes as bytes, anything else as an array."""
    view = memoryview(value)
    if view.ndim == 1 and view.format in _BYTE_FORMATS:
        return {"tag": "bytes"}, view.cast("B") if view.contiguous else view.tobytes()
    if view.ndim > MAX_DIMENSIONS:
        raise NotCarried(_too_many(view.ndim))
    data = view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()
    return {"tag": "tensor", "dtype": _typestr(view), "shape": list(view.shape or ())}, data


def _typestr(view: memoryview) -> str:
    """The NumPy typestr of a buffer's elements, found without numpy."""
    letter = view.format.lstrip("@=<" if sys.byteorder == "little" else "<")
    for kind, letters in (("i", "bhilqn"), ("u", "BHILQN"), ("f", "efd"), ("b", "?"), ("c", ("Zf", "Zd"))):
        if letter and letter in letters:
            typestr = f"{'|' if view.itemsize == 1 else '<'}{kind}{view.itemsize}"
            if DTYPE.fullmatch(typestr):
                return typestr
    raise NotCarried(f"a buffer of format {view.format!r} is not portable; send numpy.asarray(value)")


def encode_array(array: Any) -> Tagged:
    """A numpy array as ({"tag": "tensor", "dtype", "shape"}, its bytes). Raises NotCarried for other
    dtypes."""
    import numpy as np

    if array.dtype.kind in _OBJECTS:
        raise OfObjects(_OBJECTS[array.dtype.kind], array)
    little = array.dtype.newbyteorder("<")
    if not DTYPE.fullmatch(little.str):
        raise NotCarried(_dtype_hint(array.dtype))
    if array.ndim > MAX_DIMENSIONS:
        raise NotCarried(_too_many(array.ndim))
    rows = np.asarray(array, dtype=little, order="C")
    flat: Any = rows.reshape(-1).view(np.uint8)
    return {"tag": "tensor", "dtype": little.str, "shape": list(array.shape)}, memoryview(flat)


def _too_many(dimensions: int) -> str:
    return f"it has {dimensions} dimensions; reshape it to at most {MAX_DIMENSIONS}"


_OBJECTS = {
    "O": "an array of objects; send value.tolist(), or value.astype(float) where it holds numbers",
    "U": "an array of strings; send value.tolist()",
    "S": "an array of byte strings; send value.tolist()",
    "T": "an array of strings; send value.tolist()",
}


def _dtype_hint(dtype: Any) -> str:
    if dtype.names:
        return "its field names would be lost; send {name: value[name] for name in value.dtype.names}"
    if dtype.kind == "V" and dtype.type.__name__ == "void":
        return "its elements are bytes without a type; send value.tobytes()"
    hints = {
        "M": "datetime64 without a unit; send value.astype('datetime64[ns]')",
        "m": "timedelta64 without a unit; send value.astype('timedelta64[ns]')",
        "V": f"dtype {dtype} is not portable; send value.astype('float32')",
        "c": f"dtype {dtype} is not portable; send value.astype('complex128')",
    }
    return hints.get(dtype.kind, f"dtype {dtype} is not portable; send value.astype('float64')")


# ---- tables ------------------------------------------------------------------------------------------------


def encode_pandas(value: Any) -> Tagged:
    """A pandas DataFrame as a table whose metadata bring back its index, its labels and its attrs."""
    pa = _arrow()
    _check_labels(pa, value)
    try:
        table = pa.Table.from_pandas(value)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise NotCarried(
            f"Arrow has no table for it ({type(error).__name__}: {error}); "
            "send value.astype({column: str}), or each column otherwise of one type that Arrow has"
        ) from error
    return _table(pa, table)


def _check_labels(pa: Any, value: Any) -> None:
    """Raises NotCarried for labels and attrs that would come back changed."""
    if not value.columns.is_unique:
        raise NotCarried("two columns have one name; send value.set_axis(range(value.shape[1]), axis=1)")
    if value.attrs and not _survives_json(value.attrs):
        raise NotCarried("its attrs would be changed; send pandas.DataFrame(dict(value)), which has none")
    if not all(name is None or type(name) is str for name in value.index.names):
        raise NotCarried("the names of its index would be changed; send value.rename_axis(index=str)")
    columns = value.columns
    if columns.inferred_type not in ("string", "empty") and not _comes_back(pa, value, columns):
        raise NotCarried(
            "its column labels would be changed; send value.set_axis(value.columns.map(str), axis=1)"
        )


def _comes_back(pa: Any, value: Any, columns: Any) -> bool:
    """Whether the metadata bring these labels back: tried without rows, because pyarrow alone knows."""
    if str(columns.inferred_type).startswith("mixed-"):  # pyarrow would warn, and make strings of them
        return False
    try:
        back = pa.Table.from_pandas(value.iloc[:0]).to_pandas().columns
    except (pa.ArrowException, TypeError, ValueError):
        return False
    return bool(back.equals(columns) and back.names == columns.names)


def _survives_json(attrs: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(attrs)) == attrs)
    except (TypeError, ValueError, RecursionError):
        return False


def encode_polars(value: Any) -> Tagged:
    """A polars DataFrame. Its columns of Python objects would be exported as addresses."""
    if any(str(kind) == "Object" for kind in value.dtypes):
        raise NotCarried("it has a column of Python objects; send value.to_dicts()")
    return encode_stream(value)


def encode_stream(value: Any) -> Tagged:
    """A table, or whatever has an Arrow stream of one."""
    pa = _arrow()
    if isinstance(value, pa.Table):
        return _table(pa, value)
    try:
        table = pa.RecordBatchReader.from_stream(value).read_all()
    except pa.ArrowException as error:
        raise NotCarried(
            f"Arrow cannot read its stream as a table ({error}); send "
            'pyarrow.table({"value": pyarrow.chunked_array(value)}) of a column, or types that Arrow has'
        ) from error
    return _table(pa, table)


def _table(pa: Any, table: Any) -> Tagged:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return {"tag": "table"}, memoryview(sink.getvalue())


# ---- decode ------------------------------------------------------------------------------------------------


def decode_bytes(buffer: Any) -> bytes:
    """The buffer as bytes: itself, or a copy."""
    return buffer if type(buffer) is bytes else bytes(memoryview(buffer))


def decode_tensor(buffer: Any, dtype: Any, shape: Any) -> Any:
    """A read-only numpy array over the buffer, without a copy. Raises NotCarried when the three do not
    agree."""
    if not isinstance(dtype, str) or not DTYPE.fullmatch(dtype):
        raise NotCarried(f"dtype {dtype!r:.80} is not a little-endian typestr of kind b i u f c M m")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise NotCarried(f"shape {shape!r:.200} is not a list of whole numbers from 0")
    try:
        import numpy as np
    except ImportError as error:
        raise NotCarried(f"{_needed('numpy')} for an array ({error})") from None
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
    pa = _arrow()
    try:
        table = pa.ipc.open_stream(pa.py_buffer(buffer)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, ValueError, TypeError, KeyError, OSError, MemoryError, OverflowError) as error:
        raise NotCarried(f"the buffer is no valid Arrow IPC stream: {error}") from error
    return table


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise NotCarried(f"{_needed('pyarrow')} for a table ({error})") from None
    return pyarrow


def _needed(library: str) -> str:
    return f"{library} is needed in {sys.executable}"
