"""Knows arrays and tables: the tags `tensor` and `table`, written from any library and read as numpy and
pyarrow.

Rules: numpy and pyarrow are imported when a value needs them, never before; what is read is checked against
its buffer first, so that hostile data
is an error and never a crash; arrays of Python objects never travel as such.
"""

from __future__ import annotations

import re
import sys

from snakepit_bridge.values import Binary, Refused, type_name

# NumPy typestr of what the wire carries: little-endian or one byte wide.
_DTYPE = re.compile(r"\|b1|[|<][iu]1|<[iu][248]|<f(2|4|8|16)|<c(8|16|32)|<[Mm]8\[[^\[\]]{1,16}\]")
_MAX_DIMENSIONS = 32
_FRAME_LIBRARIES = frozenset(("pandas", "polars", "pyarrow"))


def tensor(value):
    """The Binary of an array, row-major and little-endian; nested lists for arrays of strings and objects."""
    array = _as_numpy(value)
    if array.dtype.kind in "OSUVT":
        return array.tolist()
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    name = array.dtype.str
    if not _DTYPE.fullmatch(name):
        raise Refused(f"cannot encode an array of dtype {array.dtype}", value)
    return Binary(_flat(array), kind="tensor", dtype=name, shape=list(array.shape))


def _flat(array):
    """Its elements in C order, without a copy where they lie so already."""
    import numpy

    rows = numpy.ascontiguousarray(array).reshape(-1)
    return memoryview(rows.view(numpy.uint8)) if rows.size else b""


def _as_numpy(value):
    import numpy

    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
    if hasattr(value, "__array__"):
        return numpy.asarray(value)
    return numpy.from_dlpack(value)


def is_frame(kind: type) -> bool:
    """Whether a type with the Arrow stream interface is a table, not a single column."""
    if kind.__module__.partition(".")[0] not in _FRAME_LIBRARIES:
        return True
    return kind.__name__ in {"DataFrame", "Table", "RecordBatch", "RecordBatchReader", "LazyFrame"}


def table(value) -> Binary:
    """The Binary of a table: an Arrow IPC stream."""
    pyarrow = _pyarrow(f"to carry a {type_name(value)}", value)
    sink = pyarrow.BufferOutputStream()
    frame = _as_arrow(pyarrow, value)
    with pyarrow.ipc.new_stream(sink, frame.schema) as writer:
        writer.write_table(frame)
    return Binary(memoryview(sink.getvalue()), kind="table")


def _as_arrow(pyarrow, value):
    if isinstance(value, pyarrow.Table):
        return value
    if isinstance(value, pyarrow.RecordBatch):
        return pyarrow.Table.from_batches([value])
    if type(value).__module__.partition(".")[0] == "pandas":
        return pyarrow.Table.from_pandas(value)
    return pyarrow.table(value)


def read_tensor(data, dtype, shape):
    """A read-only numpy array over `data`."""
    if type(dtype) is not str or not _DTYPE.fullmatch(dtype):
        raise Refused(f"cannot decode the dtype {dtype!r:.80}: a little-endian NumPy typestr is expected")
    if type(shape) is not list or len(shape) > _MAX_DIMENSIONS:
        raise Refused(
            f"cannot decode the shape {shape!r:.80}: a list of at most {_MAX_DIMENSIONS} sizes is expected"
        )
    if not all(type(size) is int and size >= 0 for size in shape):
        raise Refused(f"cannot decode the shape {shape!r:.80}: sizes are integers of 0 or more")
    try:
        import numpy
    except ImportError as error:
        raise Refused(
            f"cannot decode an array in {sys.executable}: numpy is needed there ({error})"
        ) from None
    try:
        kind = numpy.dtype(dtype)
        elements = 1
        for size in shape:
            elements *= size
        if elements * kind.itemsize != len(data):
            expected = elements * kind.itemsize
            words = f"{expected} expected"
            raise Refused(f"cannot decode {len(data)} bytes as {dtype} of shape {shape!r:.80}: {words}")
        array = numpy.frombuffer(data, kind).reshape(shape)
        array.flags.writeable = False
        return array
    except (TypeError, ValueError, OverflowError) as error:
        raise Refused(f"cannot decode an array of dtype {dtype} and shape {shape!r:.80}: {error}") from None


def read_table(data):
    """A pyarrow.Table over `data`, validated: offsets in a damaged stream would otherwise read foreign
    memory.
    """
    pyarrow = _pyarrow("to decode a table")
    try:
        with pyarrow.ipc.open_stream(pyarrow.py_buffer(data)) as reader:
            frame = reader.read_all()
        frame.validate(full=True)
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, MemoryError) as error:
        raise Refused(f"cannot decode a table: {type(error).__name__}: {error}") from None
    return frame


def _pyarrow(purpose: str, value=None):
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise Refused(
            f"cannot encode: pyarrow is needed in {sys.executable} {purpose} ({error})", value
        ) from None
    return pyarrow
