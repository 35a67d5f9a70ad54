"""The files in which a worker of this node leaves word for its next life.

Rules:
- They lie in one folder of the node directory and begin with their worker's name.
- One that a living process holds (a shared lock) is never swept.
- What is no such file (a link, another's, the wrong size) is damage, and damage is a fresh file, never an
  error.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

from snakepit_ray.process import node

Base: TypeAlias = str | os.PathLike[str] | None

FOLDER = "journals"
UNUSED_SECONDS = 3600.0


class Opened(NamedTuple):
    """A worker's file in memory; `found`: an earlier process left it; `damaged`: what was left cannot be
    read, and this is a new one."""

    content: mmap.mmap
    descriptor: int  # has the lock
    found: bool
    damaged: bool


class MappedFile:
    """A worker's file in memory; `_words` are its aligned words, each of which is stored at once, never by
    halves."""

    def __init__(self, path: Path, opened: Opened) -> None:
        self.path = path
        self.found = opened.found
        self.damaged = opened.damaged
        self.descriptor = opened.descriptor
        self._map = opened.content
        whole = memoryview(opened.content)
        self._words = whole[: len(whole) // 8 * 8].cast("Q")

    def remove(self) -> None:
        """For a worker that ends politely; what is stored later is for nobody. Safe to repeat."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def close(self) -> None:
        """Lets go of the file and leaves it as it is. Nothing can be stored afterwards. Safe to repeat."""
        self._words.release()
        self._map.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def is_ours_alone(self) -> bool:
        """Whether no other process holds the file, nor what it has started: only we store in it."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            fcntl.flock(self.descriptor, fcntl.LOCK_SH)  # a try that fails has lost it (flock(2))
        return True


def path_of(worker_id: str, suffix: str, base: Base = None) -> Path:
    """Where that file of that worker is, or would be; its folder is made.

    Raises ConfigError when the node directory is not ours alone, OSError when it cannot be made."""
    return node.make(FOLDER, base) / f"{_name(worker_id)}{suffix}"


def hold(path: Path, flags: int = os.O_RDWR) -> tuple[int | None, bool]:
    """A descriptor of the file, locked against sweeps until it is closed (a duplicate keeps the lock); None
    where there is none, and whether what is there instead is damage."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None, False
    except OSError:  # a link, a directory, somebody else's
        return None, True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        facts = os.fstat(descriptor)
    except OSError:
        os.close(descriptor)
        return None, True
    ours = stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid()
    if ours and facts.st_nlink:
        return descriptor, False
    os.close(descriptor)
    return None, not ours  # ours without a name: a sweep removed it just now


def open_map(path: Path, fresh: bytes, is_whole: Callable[[mmap.mmap], bool]) -> Opened:
    """The file's memory, `fresh` where there was none or it was damaged; it may be longer than `fresh`.
    Raises OSError when no file can be made."""
    opened, damaged = _map(path, len(fresh), is_whole)
    if opened is None:
        # Zeros that are written, not a hole: a store into a hole of a full disk ends the process.
        node.write(path, fresh)
        anew, _ = _map(path, len(fresh), is_whole)
        if anew is None:
            raise OSError(f"{path}: the file that was written just now is not there")
        opened = anew._replace(found=False, damaged=damaged)
    with contextlib.suppress(OSError):
        os.utime(path, follow_symlinks=False)
    return opened


def _map(path: Path, size: int, is_whole: Callable[[mmap.mmap], bool]) -> tuple[Opened | None, bool]:
    descriptor, damaged = hold(path)
    if descriptor is None:
        return None, damaged
    try:
        if os.fstat(descriptor).st_size >= size:
            content = mmap.mmap(descriptor, 0)
            if is_whole(content):
                return Opened(content, descriptor, found=True, damaged=False), False
            content.close()
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None, True


def name_of(worker_id: str, actor_id: str) -> str:
    """The name that a worker's files begin with. Its actor is a part of that, because another cluster of this
    machine may have a pool of the same name."""
    return f"{worker_id}-{actor_id}"


def touch(workers: Collection[str], base: Base = None) -> None:
    """Notes that the files of `workers` are of use."""
    for path in _paths(base):
        if _is_of(path.name, workers):
            with contextlib.suppress(OSError):
                os.utime(path, follow_symlinks=False)


def sweep(workers: Collection[str], now: float, base: Base = None) -> list[Path]:
    """Removes what no living process holds, belongs to none of `workers` and was not of use for
    UNUSED_SECONDS; returns it."""
    return [path for path in _paths(base) if not _is_of(path.name, workers) and _remove_unused(path, now)]


def _paths(base: Base) -> list[Path]:
    folder = node.find(FOLDER, base)
    return [folder / name for name in sorted(os.listdir(folder))] if folder else []


def _is_of(name: str, workers: Collection[str]) -> bool:
    """A worker actor's files have its actor's id after the worker's own."""
    stem = name.rpartition(".")[0]
    return any(stem == one or stem.startswith(name_of(one, "")) for one in map(_name, workers))


def _name(worker_id: str) -> str:
    return quote(worker_id, safe="", errors="replace")


def _remove_unused(path: Path, now: float) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # a link, or gone
        return node.remove_if_ours(path, UNUSED_SECONDS, now)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return node.remove_if_ours(path, UNUSED_SECONDS, now)
    except OSError:  # somebody holds it
        return False
    finally:
        os.close(descriptor)
