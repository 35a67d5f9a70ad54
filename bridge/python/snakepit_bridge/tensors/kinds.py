"""Which values are arrays, tables or bytes, and which only look so.

This file is the same in snakepit_ray/wire/codec and in the Python bridge (a test compares them), so that an
argument and a result of one class meet one decision. The rules:

- An object is carried when its elements are all of it. Whatever has more (labels, a mask, units, field names)
  is refused with advice. A class that is not known to be elements alone counts as more.
- The class decides, not the value: a column is refused with and without nulls.
- Nothing is imported to recognise a class: its name and its module do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import tensors
from .tensors import NotCarried, Tagged

Encode = Callable[[Any], Tagged]
_MOST_KNOWN = 1000
_known: dict[type, Encode | None] = {}
_PLAIN_ARRAYS = frozenset(("ndarray", "matrix", "memmap", "recarray", "chararray"))
_PLAIN_TENSORS = frozenset(("Tensor", "Parameter", "Buffer"))
_TABLES = frozenset(("Table", "RecordBatch", "RecordBatchReader"))


def encoder(value: Any) -> Encode | None:
    """What turns values of this class into (tag without its buffer index, buffer), or for a scalar into
    ({"value": it}, None); None where the class is neither array nor table nor bytes. It raises NotCarried.
    """
    kind = type(value)
    try:
        return _known[kind]
    except KeyError:
        if len(_known) >= _MOST_KNOWN:  # a program that makes classes without end
            _known.clear()
        found = _known[kind] = _found(kind, value)
        return found


def _found(kind: type, value: Any) -> Encode | None:
    if issubclass(kind, bytes):
        return tensors.encode_bytes
    if issubclass(kind, type):
        return None
    found = _of_library(kind) or _of_protocol(kind)
    return found or (tensors.encode_buffer if _has_buffer(value) else None)


def carried(found: Encode, value: Any) -> Tagged:
    """`found(value)`. Raises NotCarried, whatever another library's object raises when it is asked."""
    try:
        return found(value)
    except NotCarried:
        raise
    except Exception as error:
        raise NotCarried(f"its data cannot be read: {type(error).__name__}: {error}") from error


def _of_library(kind: type) -> Encode | None:
    """The decision for classes of numpy, pandas, polars, pyarrow and torch, and for subclasses of them."""
    for base in kind.__mro__:
        decide = _LIBRARIES.get(_root(base))
        found = decide(base, kind) if decide is not None else None
        if found is not None:
            return found
    return None


def _of_protocol(kind: type) -> Encode | None:
    if hasattr(kind, "magnitude") and hasattr(kind, "units"):
        return _refused("its unit would be lost; send [value.magnitude, str(value.units)]")
    has_array = hasattr(kind, "__array__")
    if hasattr(kind, "todense"):
        return _refused("send value.todense()" if not hasattr(kind, "toarray") else "send value.toarray()")
    if hasattr(kind, "__arrow_c_stream__") and not has_array:
        return tensors.encode_stream
    if hasattr(kind, "__dlpack__") or (has_array and _root(kind) == "tensorflow"):
        return tensors.encode_elements
    if has_array or hasattr(kind, "__arrow_c_array__"):
        return _labelled(kind)
    return None


def _root(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]


def _has_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    except (ValueError, BufferError):  # it has the protocol, and cannot serve just now
        return True
    return True


def _refused(text: str) -> Encode:
    def refuse(value: Any) -> Tagged:
        raise NotCarried(text)

    return refuse


def _labelled(kind: type) -> Encode:
    """The refusal of what can be read as an array and may be more than one."""
    whole = "value.to_dict() for all of it, or " if hasattr(kind, "to_dict") else ""
    if hasattr(kind, "to_pandas") and hasattr(kind, "columns"):
        whole = "value.to_pandas() for a table, or "
    return _refused(
        "what it has beside its elements (labels, nulls, a mask, a unit) would be lost; "
        f"send {whole}numpy.asarray(value) for the elements alone"
    )


# ---- the libraries: (the base class of theirs, the class itself) -> an encoder, or None --------------------


def _numpy(base: type, kind: type) -> Encode | None:
    name = base.__name__
    if name == "generic":
        return tensors.encode_scalar
    if name == "MaskedConstant":
        return _refused("it is no number; send None")
    if name == "MaskedArray":
        return _refused(
            "its mask would be lost; send [value.filled(), numpy.ma.getmaskarray(value)], filled as you "
            "choose"
        )
    if name != "ndarray":
        return None
    if _root(kind) == "numpy" and kind.__name__ in _PLAIN_ARRAYS:
        return tensors.encode_array
    return _refuse_subclass


def _refuse_subclass(value: Any) -> Tagged:
    """A subclass of ndarray; some have their unit in the class, others in the object."""
    for name in ("unit", "units"):
        if hasattr(value, name):
            raise NotCarried(f"its unit would be lost; send [numpy.asarray(value), str(value.{name})]")
    raise NotCarried("a subclass of ndarray may be more than its elements; send numpy.asarray(value)")


def _pandas(base: type, kind: type) -> Encode | None:
    if base.__name__ == "DataFrame":
        if _root(kind) == "pandas":
            return tensors.encode_pandas
        return _refused("a subclass of DataFrame may be more than its columns; send pandas.DataFrame(value)")
    if not hasattr(base, "__array__"):
        return None
    if hasattr(base, "to_frame"):
        return _refused(
            "its labels would be lost; send value.to_frame() for a table with them, or value.to_numpy() for "
            "the elements alone"
        )
    return _column('pandas.DataFrame({"value": value})')


def _polars(base: type, kind: type) -> Encode | None:
    if base.__name__ == "DataFrame":
        return tensors.encode_polars
    return _column("value.to_frame()") if base.__name__ == "Series" else None


def _pyarrow(base: type, kind: type) -> Encode | None:
    if base.__name__ in _TABLES:
        return tensors.encode_stream
    if base.__name__ in ("Array", "ChunkedArray"):
        return _column('pyarrow.table({"value": value})')
    return _refused("send value.to_numpy()") if base.__name__ == "Tensor" else None


def _torch(base: type, kind: type) -> Encode | None:
    if base.__name__ != "Tensor":
        return None
    if _root(kind) == "torch" and kind.__name__ in _PLAIN_TENSORS:
        return tensors.encode_torch
    return _refused(
        "a subclass of Tensor may be more than its elements; send value.as_subclass(torch.Tensor)"
    )


def _column(whole: str) -> Encode:
    return _refused(
        f"as an array a column would lose its nulls or its type; send {whole} for a table, or "
        "value.to_numpy() for the elements alone"
    )


_LIBRARIES: dict[str, Callable[[type, type], Encode | None]] = {
    "numpy": _numpy,
    "pandas": _pandas,
    "polars": _polars,
    "pyarrow": _pyarrow,
    "torch": _torch,
}
