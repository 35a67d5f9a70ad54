"""Where the bytes of a buffer are, and how they are copied without the GIL.

- Imported by who needs it: ctypes costs time at the start of an interpreter.
"""

from __future__ import annotations

import ctypes


class _PyBuffer(ctypes.Structure):
    """Py_buffer of the C API: the only way to the address of a buffer that is read-only."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


# Prototypes of our own: what ctypes.pythonapi has belongs to everybody in this process.
_get_buffer = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_int)(
    ("PyObject_GetBuffer", ctypes.pythonapi)
)
_release_buffer = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("PyBuffer_Release", ctypes.pythonapi))


def part(memory, offset: int, size: int):
    """`size` bytes of a mapping at `offset`, as an object of its own that can be watched."""
    return (ctypes.c_char * size).from_buffer(memory, offset)


def copy(data, memory, offset: int) -> None:
    """Copies the bytes of a contiguous buffer into a mapping that can be written."""
    into = ctypes.c_char.from_buffer(memory, offset)
    buffer = _PyBuffer()
    _get_buffer(data, ctypes.byref(buffer), 0)
    try:
        ctypes.memmove(ctypes.addressof(into), buffer.buf, buffer.len)
    finally:
        _release_buffer(ctypes.byref(buffer))
