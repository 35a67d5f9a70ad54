"""Where the socket of a worker's lane lies, and how it is reached: a directory for each worker actor, in the
node directory.

- The directory is ours alone (0700), and so is what lies above it (process/node.py).
- Its maker holds a lock on it for as long as it lives. One that nobody holds is swept.
- Who connects looks whose process is at the other end.
- A socket's name has at most 107 bytes: a long TMPDIR gives way to a short directory (process/sockets.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import TypeAlias

from snakepit_ray.process import node, sockets

Base: TypeAlias = str | os.PathLike[str] | None

FOLDER = "lanes"
PREFIX = "lane-"
SOCKET = "s"
ROOM = len(f"/snakepit-4294967295/{FOLDER}/{PREFIX}12345678/{SOCKET}")
YOUNG_SECONDS = 1.0  # between the making of a directory and its lock


class LaneDirectory:
    """A directory of a lane, in the hands of its maker. `path` is the socket's, which is not there yet."""

    def __init__(self, directory: str, descriptor: int) -> None:
        self.directory = directory
        self.path = os.path.join(directory, SOCKET)
        self._descriptor = descriptor

    def remove(self) -> None:
        """For a worker that ends politely. Safe to repeat."""
        if self._descriptor >= 0:
            shutil.rmtree(self.directory, ignore_errors=True)
            os.close(self._descriptor)
            self._descriptor = -1


def make(base: Base = None) -> LaneDirectory:
    """A directory for a lane's socket. `base`: where the node directory is, when it is not the usual place.

    Raises ConfigError when the node directory is not ours alone, OSError when nothing can be made there."""
    directory = tempfile.mkdtemp(prefix=PREFIX, dir=node.make(FOLDER, base or sockets.short_base(ROOM)))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.isdir(directory):
            raise OSError(f"{directory} was swept while it was made")
    except BaseException:
        os.close(descriptor)
        raise
    return LaneDirectory(directory, descriptor)


class NoLane(Exception):
    """There is no way by this lane, or not now. The text says why."""


def connect(path: str) -> socket.socket:
    """A socket that does not block, to the lane at `path`. The worker may not have accepted it yet. Raises
    NoLane."""
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:  # too many files are open
        raise NoLane(str(error)) from None
    try:
        connection.setblocking(False)
        connection.connect(path)
        user = sockets.peer_user(connection)
        if user != os.geteuid():
            raise NoLane(f"the worker runs as user {user}, this process as {os.geteuid()}")
    except (OSError, ValueError) as error:
        connection.close()
        raise NoLane(f"{path}: {error}") from None
    except BaseException:
        connection.close()
        raise
    return connection


def try_out(base: Base = None) -> str:
    """Makes a lane as a worker does, connects to it as a caller does, and removes it. The directory in which
    the lanes of this user lie. Raises ConfigError, OSError and NoLane where there can be none."""
    directory = make(base)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(directory.path)
            listening.listen()
            connect(directory.path).close()
    finally:
        directory.remove()
    return os.path.dirname(directory.directory)


def sweep(now: float, base: Base = None) -> list[Path]:
    """Removes the directories whose makers are gone; returns them."""
    bases = {os.fspath(base)} if base else {tempfile.gettempdir(), sockets.short_base(ROOM)}
    folders = [folder for one in sorted(bases) if (folder := node.find(FOLDER, one)) is not None]
    paths = [folder / name for folder in folders for name in sorted(os.listdir(folder))]
    return [path for path in paths if path.name.startswith(PREFIX) and _remove_unused(path, now)]


def _remove_unused(path: Path, now: float) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # a link, or gone
        return False
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
            return False
        if now - facts.st_mtime < YOUNG_SECONDS:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except OSError:  # its maker lives
        return False
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    return True
