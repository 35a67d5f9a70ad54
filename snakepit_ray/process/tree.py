"""Knows which processes carry an incarnation token, whoever their parent is now, and signals exactly those.

Rules: a process is (pid, start time), never a pid alone; a signal goes through a pidfd opened before the
token is read again, so that a pid that was reused in between is not hit; one that is executing a program just
now has no environment for a moment, and is waited for. `/proc` is read directly: a scan of 300 processes
takes about 5 ms."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from snakepit_ray.process.launch import TOKEN_VARIABLE

PROC = os.path.isdir("/proc/self")
LOOK_AGAIN_SECONDS = 0.005  # a killed process takes a moment to end, a large one longer
EXEC_SECONDS = 0.2  # an exec takes less, unless its file comes from a slow disk
MARK = f"{TOKEN_VARIABLE}=".encode()


class Identity(NamedTuple):
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started: str


def identity(pid: int) -> Identity | None:
    """The process that has `pid` now; None for one that is gone or a zombie."""
    started = _started(pid)
    return None if started is None else Identity(pid, started)


def find(token: str) -> list[Identity]:
    """Every living process of this user that carries `token` in its environment."""
    return [process for process in _processes() if token in _tokens(process.pid)]


def carriers() -> dict[str, list[Identity]]:
    """Every token that living processes of this user carry, and these processes, from one scan."""
    found: dict[str, list[Identity]] = {}
    for process in _processes():
        for token in _tokens(process.pid):
            found.setdefault(token, []).append(process)
    return found


def send(token: str, number: signal.Signals) -> int:
    """Signals every process that carries `token`; returns how many were signalled."""
    return sum(_signal_one(process, token, number) for process in find(token))


def end(tokens: Collection[str], seconds: float) -> tuple[list[int], set[str]]:
    """SIGKILL to every process that carries one of `tokens`, until there is none or `seconds` have passed.

    Returns the pids, and the tokens that are carried still. One that forks meanwhile is found the next time
    round."""
    deadline = time.monotonic() + seconds
    killed: dict[int, None] = {}  # in order, each once
    while True:
        left = {token: found for token, found in carriers().items() if token in tokens}
        if not left or time.monotonic() > deadline:
            return list(killed), set(left)
        for token, found in left.items():
            hit = (process.pid for process in found if _signal_one(process, token, signal.SIGKILL))
            killed.update(dict.fromkeys(hit))
        time.sleep(LOOK_AGAIN_SECONDS)


def resident(processes: Collection[Identity]) -> int:
    """Bytes of memory that these processes hold, those that are gone not counted."""
    total = 0
    for process in processes:
        try:
            total += psutil.Process(process.pid).memory_info().rss if identity(process.pid) == process else 0
        except psutil.Error:
            continue
    return total


def _processes() -> Iterator[Identity]:
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit()) if PROC else psutil.pids()
    for pid in pids:
        if (process := identity(pid)) is not None:
            yield process


def _started(pid: int) -> str | None:
    """Start time in clock ticks since boot, or None for one that is gone or a zombie (proc(5): fields 3 and
    22)."""
    try:
        if not PROC:
            return str(psutil.Process(pid).create_time())
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (OSError, psutil.Error):
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def _tokens(pid: int) -> set[str]:
    """What the environment of `pid` names as its token: none or one, several in an odd environment."""
    try:
        if not PROC:
            return {psutil.Process(pid).environ()[TOKEN_VARIABLE]}
        environ = _environ(pid)
    except (OSError, psutil.Error, KeyError):
        return set()  # gone, somebody else's, or without a token
    if MARK not in environ:
        return set()
    return {
        item[len(MARK) :].decode("utf-8", "replace") for item in environ.split(b"\0") if item.startswith(MARK)
    }


def _environ(pid: int) -> bytes:
    """The environment of `pid`. In an exec there is none until the new program's is in place (met by 5 % of
    looks right after `subprocess.Popen`), so what is empty is read again while that may be."""
    deadline = time.monotonic() + EXEC_SECONDS
    while not (environ := Path(f"/proc/{pid}/environ").read_bytes()):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        memory, start, end = fields[20], fields[47], fields[48]  # proc(5): fields 23, 50 and 51
        really_empty = memory == b"0" or start == end != b"0"  # a kernel thread, one that ends, or so started
        if really_empty or time.monotonic() > deadline:
            break
        time.sleep(0.0005)
    return environ


def _signal_one(process: Identity, token: str, number: signal.Signals) -> bool:
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        return False
    try:
        if identity(process.pid) != process or token not in _tokens(process.pid):
            return False
        signal.pidfd_send_signal(descriptor, number)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
