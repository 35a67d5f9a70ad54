"""How this process ends when its host does, and that what its commands started ends with it.

- End of file on the lifeline means that the host is gone.
- Descendants are found by the token in their environment, by the mark of their host and by their parents,
  never by group or name.
- The parent-death signal only makes us look, because it also comes when the thread that started us ends and
  its process lives on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

from snakepit_bridge.lifeline import forks, signals

TOKEN_VARIABLE = "SNAKEPIT_TOKEN"
HOST_GONE_STATUS = 1
EXEC_SECONDS = 0.01
RLIMIT_LOCKS = (
    10  # linux/resource.h: a limit that Linux ignores; the host marks us with it (bridge/README.md)
)
LEAST_MARK = 2**61
_PR_SET_PDEATHSIG = 1

_sockets: list[str] = []  # ours, once it is known


def take_stdin() -> int:
    """Moves stdin to a descriptor of our own, which commands never see; theirs is /dev/null."""
    lifeline = forks.keep(os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null != 0:
        os.close(null)
    return lifeline


def read_line(descriptor: int) -> bytes:
    """The first line on `descriptor`, b"" if it ends without one."""
    data = bytearray()
    while not data.endswith(b"\n"):
        part = os.read(descriptor, 65536)
        if not part:
            return b""
        data += part
    return bytes(data)


def watch(descriptor: int, sockets: list[str]) -> None:
    """Ends this process, what it started and its `sockets` at end of file on `descriptor`."""
    _sockets[:] = sockets

    def wait() -> None:
        while os.read(descriptor, 65536):
            pass  # the host says nothing more on its lifeline
        end(HOST_GONE_STATUS)

    threading.Thread(target=wait, name="snakepit-lifeline", daemon=True).start()


def ask_for_parent_death_signal(parent: int, handle=signals.handle, leave=None) -> None:
    """Has the kernel tell us that `parent` has died; the lifeline could be held open by another child of it.
    `handle` installs the handler, and `leave(status)` is the end, which is `end` unless it is given. Linux
    only.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    def look(*_) -> None:
        if os.getppid() != parent:
            (leave or end)(HOST_GONE_STATUS)

    handle(signal.SIGRTMIN + 7, look)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGRTMIN + 7), 0, 0, 0)
    look()  # it may have died before we asked


def end(status: int) -> None:
    """Ends this process at once, its descendants first; its socket and the directory made for it go with
    it."""
    try:
        kill_descendants()
        remove_socket()
    finally:
        os._exit(status)


def remove_socket() -> None:
    """A host that was killed removes nothing, so we do; an empty directory only, and safe to repeat."""
    for path in _sockets:
        with contextlib.suppress(OSError):
            os.unlink(path)
    for directory in {os.path.dirname(path) for path in _sockets}:
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def kill_descendants() -> list[int]:
    """SIGKILL to every other process that carries our token or our mark, or descends from one that does,
    until none is left; the pids."""
    if not _token():
        return []
    killed: list[int] = []
    settled = False
    for _ in range(10):  # one that forks while we look is found the next time round
        found = descendants()
        if not found and settled:
            break
        settled = not found
        if settled:  # in the midst of an exec a process has no environment: one more look, a moment later
            time.sleep(EXEC_SECONDS)
        for pid in found:
            _kill(pid)
        killed += found
    return killed


def descendants() -> list[int]:
    """Other living processes that carry our token or our mark, or descend from one that does or from us."""
    token = _token()
    return _family(TOKEN_VARIABLE.encode() + b"=" + token, _mark()) if token else []


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    return _look(pid) is None


def _token():
    return os.environb.get(TOKEN_VARIABLE.encode())


def _mark() -> bytes:
    """The limit of file locks that our host has set for us. What we start inherits it, whatever environment
    it is given."""
    try:
        import resource

        limit = resource.getrlimit(RLIMIT_LOCKS)[0]
    except (ImportError, OSError, ValueError):
        return b""
    return str(limit).encode() if limit >= LEAST_MARK else b""


def _family(entry: bytes, mark: bytes) -> list[int]:
    """Other living processes with `entry` in their environment or with the `mark`, and their descendants and
    ours."""
    if not os.path.isdir("/proc/self"):
        return []
    ours, parents, family = os.getpid(), {}, set()
    oldest = _look(ours)[1]
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        looked = _look(pid)
        if looked is None:
            continue
        parents[pid], started = looked
        # What was there before us is no child of ours: most processes are not looked at any closer.
        if started >= oldest and ((mark and _file_locks(pid) == mark) or entry in _environment(pid)):
            family.add(pid)
    known = {ours} | family
    while born := [pid for pid, parent in parents.items() if parent in known and pid not in known]:
        known.update(born)
    return sorted(known - {ours})


def _look(pid: int):
    """(its parent, when it was started in ticks); None for a process that is gone or a zombie (proc(5), stat:
    fields 3, 4 and 22)."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (int(fields[1]), int(fields[19])) if fields and fields[0] not in (b"Z", b"X") else None


def _file_locks(pid: int) -> bytes:
    words = _read(f"/proc/{pid}/limits").partition(b"Max file locks")[2].split(None, 1)
    return words[0] if words else b""


def _environment(pid: int) -> list[bytes]:
    return _read(f"/proc/{pid}/environ").split(b"\0")  # empty for a zombie


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # gone, or another user's
        return b""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
