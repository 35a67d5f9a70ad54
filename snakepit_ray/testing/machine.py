"""This machine's processes, sockets and files as far as storms need them: who is alive, who is killed, what
is left.

- A process is hit only through a pidfd opened before it was recognised again, by its incarnation token or
  as Ray's, so that no innocent is ever hit.
- Reads `/proc`, so Linux only.
"""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from snakepit_ray.process.launch import TOKEN_VARIABLE
from snakepit_ray.testing.witness import Incarnation

SHARED_MEMORY = "/dev/shm"
LOOK_BYTES = 1 << 20  # of a file that may name us


def token_of(pid: int) -> str | None:
    """The incarnation token that a living process carries."""
    mark = f"{TOKEN_VARIABLE}=".encode()
    for item in _read(f"/proc/{pid}/environ").split(b"\0"):
        if item.startswith(mark) and is_alive(pid):
            return item[len(mark) :].decode()
    return None


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in (b"Z", b"X")


def serves(one: Incarnation) -> bool:
    """Whether an interpreter is alive."""
    return token_of(one.pid) == one.token


def is_rays(pid: int) -> bool:
    """Whether a living process is one of Ray's workers, as an actor is."""
    return is_alive(pid) and _read(f"/proc/{pid}/cmdline").startswith(b"ray::")


def supervised(one: Incarnation) -> bool:
    """Whether an interpreter is alive and still is the child of the worker actor that started it, or of a
    forker of that."""
    return serves(one) and one.parent in _above(one.pid) and is_rays(one.parent)


def _above(pid: int) -> list[int]:
    """Its parent, and the parent of that."""
    above = [int(fields[1]) for fields in [_stat(pid)] if fields]
    return above + [int(fields[1]) for parent in above for fields in [_stat(parent)] if fields]


def kill(pid: int, recognised: Callable[[], bool]) -> bool:
    """SIGKILL to the process, if it is still the one that `recognised` knows; whether it was sent."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not recognised():
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def carriers(tokens: Collection[str]) -> dict[int, str]:
    """Living processes that carry one of the tokens: interpreters, and what they started."""
    found = {}
    for name in os.listdir("/proc"):
        token = token_of(int(name)) if name.isdigit() else None
        if token in tokens and token is not None:
            found[int(name)] = token
    return found


# ---- files -----------------------------------------------------------------------------------------------


def directories(pids: Iterable[int]) -> set[str]:
    """Where sockets and files of a pool may be: the temporary directories of these processes and our own."""
    found = {tempfile.gettempdir()}
    for pid in pids:
        environ = _read(f"/proc/{pid}/environ").split(b"\0")
        found |= {item[len(b"TMPDIR=") :].decode() for item in environ if item.startswith(b"TMPDIR=")}
        if environ != [b""] and not any(item.startswith(b"TMPDIR=") for item in environ):
            found.add("/tmp")
    return found


def files(places: Iterable[str]) -> set[str]:
    """Everything named snakepit* there and in shared memory."""
    patterns = (os.path.join(place, "snakepit*") for place in (*places, SHARED_MEMORY))
    return {path for pattern in patterns for path in glob.glob(pattern)}


def stale_files(new: Iterable[str], names: Collection[str]) -> Iterator[str]:
    """Of these paths, socket directories in which nobody listens, and files whose name or content has one of
    `names`."""
    wanted = [name.encode() for name in names]
    listening = {line.rpartition(" ")[2] for line in Path("/proc/net/unix").read_text().splitlines()}
    for path in sorted(new):
        inside = [path] if os.path.isfile(path) else [str(one) for one in Path(path).rglob("*")]
        sockets = not os.path.isfile(path) and all(not os.path.isfile(one) for one in inside)
        if sockets and os.path.isdir(path) and not listening & set(inside):
            yield f"socket directory {path}"
        for one in inside:
            if os.path.isfile(one) and any(name in one.encode() + _read(one) for name in wanted):
                yield f"file {one}"


def _read(path: str) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(LOOK_BYTES)
    return b""


def _stat(pid: int) -> list[bytes]:
    """The fields after the name (proc(5)): state, parent, ..."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
