"""Where sockets of interpreters lie: a directory for each, made for it alone.

Rules: the directory is ours alone (0700), so nobody else can put a socket there. Its path is short enough for
a socket's name, whatever TMPDIR says. A directory of another name or at another place is never removed."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from snakepit_ray.process.node import node_directory

NAME_BYTES = 107 if sys.platform == "linux" else 103  # of a socket, without the NUL (unix(7), sun_path)
PREFIX = "snakepit-"
ROOM = len(f"/{PREFIX}12345678/s")
CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)
SHORT = ("/tmp", "/var/tmp", "/dev/shm")  # a fresh directory with mode 0700 is made in one of them


def new_path() -> str:
    """The path of a directory, which is not there yet, in which a socket's name is not too long. Raises
    OSError where there is none."""
    return os.path.join(short_base(ROOM), PREFIX + secrets.token_hex(4))


def short_base(room: int) -> str:
    """The temporary directory, or another one where a socket's name would be too long there: `room` is how
    many bytes come after it. Raises OSError where there is none."""
    first = tempfile.gettempdir()
    if len(os.fsencode(first)) + room <= NAME_BYTES:
        return first
    for base in SHORT:
        if _is_safe(base) and os.access(base, os.W_OK | os.X_OK):
            return base
    raise OSError(
        f"TMPDIR {first} has {len(os.fsencode(first))} bytes, and a socket's name at most {NAME_BYTES}; "
        f"none of {', '.join(SHORT)} can be used instead"
    )


def peer_user(connection: socket.socket) -> int:
    """The user that runs the process at the other end of a unix socket. Where the system does not say it is
    ours: the directory, which nobody else may enter, and the secret have to do there. Raises OSError."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # not Linux
        return os.geteuid()
    _, user, _ = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, CREDENTIALS.size))
    return int(user)


def remove(directories: Iterable[str], base: str | os.PathLike[str] | None = None) -> list[Path]:
    """Removes those of `directories` that are there and are directories of sockets; returns them. `base`:
    where the registry is that names them, when it is not the temporary directory."""
    bases = {str(node_directory(base).parent), tempfile.gettempdir(), *SHORT}
    removed = []
    for path in map(Path, directories):
        named_so = str(path.parent) in bases and path.name.startswith(PREFIX)
        try:
            facts = path.lstat() if named_so and path != node_directory(path.parent) else None
        except (OSError, ValueError):  # gone already, or no path at all
            continue
        if facts is not None and stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid():
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def _is_safe(base: str) -> bool:
    """Whether nobody else can move or remove a directory of ours there."""
    try:
        facts = os.stat(base)
    except OSError:
        return False
    others_write = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return not others_write or bool(facts.st_mode & stat.S_ISVTX)
