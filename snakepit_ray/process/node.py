"""The directory in which this user's interpreters on this node are written down, and how files get in.

Rules:
- It is ours alone (0700, our own, no link), or nothing is read or written there.
- A file appears whole or not at all.
- Looking creates nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

from snakepit_ray.errors import ConfigError


def node_directory(base: str | os.PathLike[str] | None = None) -> Path:
    """`<base>/snakepit-<uid>`; `base` is the temporary directory when it is not given."""
    return Path(base or tempfile.gettempdir()) / f"snakepit-{os.geteuid()}"


def make(folder: str, base: str | os.PathLike[str] | None = None) -> Path:
    """`folder` of the node directory, created where it is not there yet.

    Raises ConfigError when somebody else could write there or it cannot be created."""
    try:
        top = node_directory(base)
        for path in (top, top / folder):
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
            _check(path)
    except OSError as error:
        raise ConfigError(
            f"the directory in which this node's interpreters are written down cannot be made: {error}; set "
            f"TMPDIR, where Ray is started on this node, to a directory that has room and that user "
            f"{os.geteuid()} can write to",
            key="TMPDIR",
        ) from error
    return top / folder


def find(folder: str, base: str | os.PathLike[str] | None = None) -> Path | None:
    """`folder` of the node directory, or None where there is none. Raises ConfigError as `make` does."""
    top = node_directory(base)
    for path in (top, top / folder):
        try:
            _check(path)
        except FileNotFoundError:
            return None
    return top / folder


def write(path: Path, data: bytes) -> None:
    """Puts `data` at `path`, in one step for whoever reads: its old content, or all of the new one. A
    directory that lies there is moved aside: it is not ours, and may be of value to whoever made it."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        unfinished.write_bytes(data)
        try:
            os.replace(unfinished, path)
        except IsADirectoryError:
            path.rename(path.with_name(f"{unfinished.name}.directory"))
            os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def remove_if_ours(path: Path, older_than: float, now: float) -> bool:
    """Removes what is not a directory, is ours and has not changed for `older_than` seconds. Never raises."""
    try:
        facts = path.lstat()
        if stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or now - facts.st_mtime < older_than:
            return False
        path.unlink()
    except OSError:  # another sweep was faster
        return False
    return True


def _check(path: Path) -> None:
    facts, user = path.lstat(), os.geteuid()
    if stat.S_ISLNK(facts.st_mode):
        wrong = "is a symbolic link"
    elif not stat.S_ISDIR(facts.st_mode):
        wrong = "is not a directory"
    elif facts.st_uid != user:
        wrong = f"belongs to user {facts.st_uid}"
    else:
        if stat.S_IMODE(facts.st_mode) != 0o700:
            path.chmod(0o700)
        return
    raise ConfigError(
        f"{path} {wrong}; expected a directory of user {user}, which says what may be killed here: "
        "remove it, or set TMPDIR to another place",
        key="TMPDIR",
    )
