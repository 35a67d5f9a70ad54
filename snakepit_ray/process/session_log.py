"""Which strict sessions have their state in one worker's interpreters, also after its process was killed.

- A log (state_files.py) that is appended to when a session comes, moves to another interpreter or leaves,
  and written anew when most of it is past.
- The newest `limit` sessions are known.
- A record is whole or the log ends before it.
- What cannot be written is forgotten, never an error.
- `keep` takes 5 microseconds.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from snakepit_ray.process import node, state_files
from snakepit_ray.process.state_files import Base

SUFFIX = ".sessions"
MAGIC = b"sessions"
VERSION = struct.Struct("=Q").pack(1)
HEAD = MAGIC + VERSION
# Checksum of what follows; what happened, bytes of the session's id, the home's fields; then the id itself.
CHECKSUM = struct.Struct("=I")
RECORD = struct.Struct("=IIdQQQ")
KEPT, DROPPED = 1, 2
SLACK = 256  # records that may be past in a log of any length


class Home(NamedTuple):
    """Where a session's state is: which interpreter has it, under which version of its binding, and when the
    router last confirmed that (seconds since 1970)."""

    confirmed_at: float
    epoch: tuple[int, int]
    version: int


class SessionLog:
    """The log of one worker; `homes` are the sessions that are in it. Make it with `SessionLog.open`."""

    def __init__(self, path: Path, limit: int, homes: dict[str, Home]) -> None:
        self.path = path
        self.homes = homes
        self._limit = limit
        self._records = 0
        self._file: int | None = None
        self._ended = False
        self._write_anew()

    @classmethod
    def open(cls, worker_id: str, limit: int, base: Base = None) -> SessionLog:
        """The log of `worker_id`, with the sessions that an earlier process left in it.

        Raises ConfigError when the node directory is not ours alone, OSError when it cannot be made."""
        path = state_files.path_of(worker_id, SUFFIX, base)
        return cls(path, limit, _read(path))

    def keep(self, session: str, home: Home) -> None:
        """The session's state is there from now on."""
        self.homes.pop(session, None)  # the oldest are the first, and the first to go
        self.homes[session] = home
        self._append(_record(KEPT, session, home))
        while len(self.homes) > self._limit:
            self.drop(next(iter(self.homes)))

    def drop(self, session: str) -> None:
        """The session lives elsewhere, or not at all."""
        if self.homes.pop(session, None) is not None:
            self._append(_record(DROPPED, session, Home(0.0, (0, 0), 0)))

    def _append(self, record: bytes) -> None:
        self._records += 1
        if self._file is None or self._records > 2 * len(self.homes) + SLACK:
            self._write_anew()
            return
        try:
            whole = os.write(self._file, record) == len(record)
        except OSError:
            whole = False
        if not whole:  # nothing after it would be read
            self._let_go()

    def _write_anew(self) -> None:
        """Leaves the file as it was where that fails: the next record tries again."""
        self._let_go()
        if self._ended:
            return
        records = [_record(KEPT, session, home) for session, home in self.homes.items()]
        with contextlib.suppress(OSError):
            node.write(self.path, HEAD + b"".join(records))
            self._file, _ = state_files.hold(self.path, os.O_WRONLY | os.O_APPEND)
        self._records = len(records)

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def remove(self) -> None:
        """For a worker that ends politely; what is kept later is for nobody. Safe to repeat."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def close(self) -> None:
        """Lets go of the file and leaves it as it is. Safe to repeat."""
        self._ended = True
        self._let_go()


def _record(what: int, session: str, home: Home) -> bytes:
    name = session.encode(errors="surrogatepass")
    facts = RECORD.pack(what, len(name), home.confirmed_at, *home.epoch, home.version) + name
    return CHECKSUM.pack(zlib.crc32(facts)) + facts


def _read(path: Path) -> dict[str, Home]:
    """The sessions in a log, up to its first record that is not whole."""
    try:
        descriptor, _ = state_files.hold(path, os.O_RDONLY)
        if descriptor is None:
            return {}
        with os.fdopen(descriptor, "rb") as file:
            data = file.read()
    except OSError:
        return {}
    homes: dict[str, Home] = {}
    at = len(HEAD) if data.startswith(HEAD) else len(data)
    while (end := _end_of_record(data, at)) is not None:
        what, size, confirmed_at, incarnation, number, version = RECORD.unpack_from(data, at + CHECKSUM.size)
        session = data[end - size : end].decode(errors="surrogatepass")
        homes.pop(session, None)
        if what == KEPT:
            homes[session] = Home(confirmed_at, (incarnation, number), version)
        at = end
    return homes


def _end_of_record(data: bytes, at: int) -> int | None:
    """None where no whole record begins."""
    begin = at + CHECKSUM.size
    if len(data) < begin + RECORD.size:
        return None
    end = begin + RECORD.size + RECORD.unpack_from(data, begin)[1]
    (checksum,) = CHECKSUM.unpack_from(data, at)
    return end if end <= len(data) and checksum == zlib.crc32(data[begin:end]) else None
