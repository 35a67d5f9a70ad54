"""Where the store's files are: private, of one store at a time, and kept apart from other clusters'.

- The default path is the cluster's own, in this node's directory, so that a store that is started again finds
  what it had, and the next cluster finds nothing.
- One file, one store: a lock that ends with its process.
- What is damaged at the default path is set aside under a name with the time. Where the user has named the
  path, that is an error: nobody but the user knows what the file is worth.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path
from urllib.parse import quote

from snakepit_ray.errors import ConfigError
from snakepit_ray.process import node
from snakepit_ray.process.state_files import Base

FOLDER = "stores"
FILE = "sessions.db"
ASIDE = ".damaged-"
SUFFIXES = ("-wal", "-shm", ".files")  # of what belongs to a database
UNUSED_SECONDS = 7 * 86_400.0  # after so long, what an ended cluster has left is removed
LOCK_SECONDS = 3.0  # for a store that was killed to be gone


def default_path(cluster: str, base: Base = None) -> Path:
    """The path of the store of that cluster; its folder is made. Raises ConfigError."""
    folder = node.make(FOLDER, base) / quote(cluster, safe="")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    return folder / FILE


def sweep(now: float, base: Base = None) -> list[Path]:
    """Removes the folders of clusters whose store was not used for UNUSED_SECONDS. Returns them. `now`:
    seconds since 1970."""
    folder = node.find(FOLDER, base)
    gone = []
    for path in sorted(folder.iterdir()) if folder is not None else ():
        with contextlib.suppress(OSError, ConfigError):
            if now - _last_use(path) > UNUSED_SECONDS:
                lock = Lock(path / FILE, 0.0)
                shutil.rmtree(path)
                lock.release()
                gone.append(path)
    return gone


def _last_use(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))


class Lock:
    """This process alone has the store at `path`. Raises ConfigError where another one has it for longer than
    `seconds`, or where nobody can write there."""

    def __init__(self, path: Path, seconds: float = LOCK_SECONDS) -> None:
        self._descriptor = _open_lock(path)
        deadline = time.monotonic() + seconds
        while not self._try():
            if time.monotonic() >= deadline:
                self.release()
                raise ConfigError(
                    f"the session store {path} is in use by another process; one file has one store: give "
                    'this cluster a path of its own, session_store="sqlite:/another/path"',
                    key="session_store",
                )
            time.sleep(0.05)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Another store may have it. Safe to repeat."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open_lock(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(path)
        return os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise cannot_write(path, error) from error


def _make(path: Path) -> None:
    """The database's own file, so that its rights are ours; SQLite gives its logs the same."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def cannot_write(path: Path, error: Exception) -> ConfigError:
    """For a path where no store can be."""
    return ConfigError(
        f"the session store cannot be kept at {path}: {error}; give it a path that can be written, "
        'session_store="sqlite:/another/path", or keep it in memory, session_store="memory"',
        key="session_store",
    )


def damaged(path: Path, error: Exception) -> ConfigError:
    """For a file of the user's that is no store."""
    return ConfigError(
        f"the session store {path} is damaged, or no store at all: {error}; restore it from a copy, move it "
        "away, or name another path",
        key="session_store",
    )


def set_aside(path: Path, wall: float) -> Path:
    """Moves a damaged store away, with its logs and its files. Returns its new path."""
    name = f"{path.name}{ASIDE}{time.strftime('%Y%m%d-%H%M%S', time.gmtime(wall))}"
    for suffix in (*SUFFIXES, ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(path.with_name(name + suffix))
    return path.with_name(name)


def aside(path: Path) -> str:
    """The newest of the damaged stores that lie here, "" where there is none."""
    found = [one for one in path.parent.glob(f"{path.name}{ASIDE}*") if not one.name.endswith(SUFFIXES)]
    return str(max(found)) if found else ""
