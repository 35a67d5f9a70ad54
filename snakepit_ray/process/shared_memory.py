"""One piece of memory that this process shares with its child, through a descriptor that the child
inherits.

- It has no name, so it is gone with the last process that has it.
- Its size is sealed, so that nobody can take away what another one reads (memfd_create(2)).
- Pages exist from the first write to `drop`, and are asked for before they are stored to, so that memory
  that has run out is an error and not a signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import threading
import weakref
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any

NAME = "snakepit-arena"
SEALS = 0x1 | 0x2 | 0x4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW of fcntl(2)
ADD_SEALS = 1033  # F_ADD_SEALS


class SharedMemory:
    """`size` bytes. Raises OSError or ValueError where the system has no such memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memfd_create")
        self.descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, size)
            fcntl.fcntl(self.descriptor, ADD_SEALS, SEALS)
            self._map = mmap.mmap(self.descriptor, size)
        except BaseException:
            os.close(self.descriptor)
            raise
        self._views: dict[int, weakref.ref[Any]] = {}
        self._backed = 0  # every page before this one exists
        self._lock = threading.Lock()

    def write(self, offset: int, data: Any) -> None:
        """Copies a buffer to `offset`; without the GIL. Raises OSError when there is no more memory."""
        with memoryview(data) as given, given.cast("B") as view:
            self._ask_for(offset, len(view))
            into = ctypes.c_char.from_buffer(self._map, offset)
            with _address(view) as source:
                ctypes.memmove(ctypes.addressof(into), source, len(view))

    def _ask_for(self, offset: int, size: int) -> None:
        with self._lock:
            if offset + size > self._backed:
                os.posix_fallocate(self.descriptor, offset, size)
                if offset <= self._backed:
                    self._backed = offset + size

    def view(self, offset: int, size: int, dead: Callable[[], None]) -> memoryview:
        """`size` > 0 bytes at `offset`, without a copy; `dead()` is called, in any thread, when nothing looks
        at them any more. Raises ValueError outside of the memory."""
        if offset < 0 or size <= 0 or offset + size > self.size:
            raise ValueError(f"{size} bytes at {offset} of a shared memory of {self.size}")
        guard = (ctypes.c_char * size).from_buffer(self._map, offset)
        key = id(guard)

        def gone(_: object, views: dict[int, Any] = self._views) -> None:
            del views[key]
            dead()

        self._views[key] = weakref.ref(guard, gone)
        return PickleBuffer(guard).raw().toreadonly()

    def drop(self, offset: int, size: int) -> None:
        """Gives the pages of a range of whole pages back to the system; they read as zeros."""
        with self._lock:
            self._backed = min(self._backed, offset)
        with contextlib.suppress(OSError, ValueError):  # a system that cannot: they stay until the end
            self._map.madvise(mmap.MADV_REMOVE, offset, size)

    @property
    def resident(self) -> int:
        """Bytes that exist now; 0 when it is closed."""
        return os.fstat(self.descriptor).st_blocks * 512 if self.descriptor >= 0 else 0

    def close(self) -> None:
        """This process is done with it; views that live stay good. Safe to repeat. It takes a quarter of a
        second for a GiB that is used, and holds no GIL."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        with contextlib.suppress(BufferError):  # the last view's end unmaps it
            self._map.close()


def copied(view: memoryview) -> bytearray:
    """A copy of some bytes, made without the GIL."""
    copy = bytearray(len(view))
    if copy:
        into = (ctypes.c_char * len(copy)).from_buffer(copy)
        with _address(view) as source:
            ctypes.memmove(ctypes.addressof(into), source, len(copy))
    return copy


# ---- the address of a buffer ---------------------------------------------------------------------------


class _PyBuffer(ctypes.Structure):
    """Py_buffer of the C API, which is the only way to the address of a buffer that is read-only."""

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


@contextlib.contextmanager
def _address(view: memoryview) -> Any:
    """Where its bytes are, for as long as this is open."""
    buffer = _PyBuffer()
    _get_buffer(view, ctypes.byref(buffer), 0)
    try:
        yield buffer.buf
    finally:
        _release_buffer(ctypes.byref(buffer))
