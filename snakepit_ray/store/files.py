"""Large parts of values as files beside the database, because a database that they lie in holds up all
writers.

- A file is named by what is in it, so that the same data is there once.
- It is whole and on the disk before a row names it.
- What no row names is removed, but not what somebody has asked for a short time ago: its row is on its way.
- Reading maps the file. A file that is removed stays until nobody reads it any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import secrets
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from snakepit_ray.errors import EncodingError

LARGE = 65_536  # bytes of a buffer from which on it is a file
FRESH_SECONDS = 600.0


class Filed(NamedTuple):
    """A buffer that is a file, of so many bytes."""

    name: str
    size: int

    def __len__(self) -> int:
        return self.size


class Files:
    """The files of one store. `clock`: seconds of a monotonic clock. One thread at a time writes and
    sweeps."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._clock = clock
        self._fresh: dict[str, float] = {}

    def keep(self, buffer: Any) -> Filed:
        """Writes the buffer. Raises OSError."""
        view = memoryview(buffer).cast("B")
        filed = Filed(hashlib.blake2b(view, digest_size=32).hexdigest(), view.nbytes)
        self._fresh[filed.name] = self._clock()
        path = self._path(filed.name)
        try:
            if path.stat().st_size == filed.size:
                return filed
        except FileNotFoundError:
            pass
        self._write(path, view)
        return filed

    def _write(self, path: Path, view: memoryview) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                while view:
                    view = view[file.write(view) :]
                os.fsync(descriptor)
            os.replace(unfinished, path)
            _sync(path.parent)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def open(self, filed: Filed) -> memoryview:
        """The buffer, mapped. Raises EncodingError where the file is damaged or gone."""
        path = self._path(filed.name)
        try:
            with path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise EncodingError(f"the file of a value cannot be read: {error}", path=str(path)) from error
        if len(content) != filed.size:
            raise EncodingError(f"{path} has {len(content)} bytes, not {filed.size}", path=str(path))
        return memoryview(content)

    def sweep(self, named: Collection[str]) -> int:
        """Removes what is not `named` by a row. Returns how many files."""
        oldest = self._clock() - FRESH_SECONDS
        self._fresh = {name: since for name, since in self._fresh.items() if since > oldest}
        gone = 0
        for path in self.folder.glob("*/*"):
            if path.name not in named and path.name not in self._fresh:
                with contextlib.suppress(OSError):
                    path.unlink()
                    gone += 1
        return gone

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.glob("*/*"))

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name


def _sync(folder: Path) -> None:
    """The name of a new file is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
