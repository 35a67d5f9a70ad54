"""Knows which processes carry an incarnation token, whoever their parent is now, and signals exactly those.

Rules: a process is (pid, start time), never a pid alone; a signal goes through a pidfd opened before the
token is read again, so that a pid that was reused in between is not hit. `/proc` is read directly: a scan of
300 processes takes about 5 ms."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from snakepit_ray.process.launch import TOKEN_VARIABLE


class Identity(NamedTuple):
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started: str


def find(token: str) -> list[Identity]:
    """Every living process of this user that carries `token` in its environment."""
    mark = f"{TOKEN_VARIABLE}={token}".encode()
    return [identity for identity in _processes() if _carries(identity.pid, mark)]


def send(token: str, number: signal.Signals) -> int:
    """Signals every process that carries `token`; returns how many were signalled."""
    mark = f"{TOKEN_VARIABLE}={token}".encode()
    return sum(_signal_one(identity, mark, number) for identity in find(token))


def _processes() -> Iterator[Identity]:
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit() and (started := _started(int(name))) is not None:
            yield Identity(int(name), started)
    if not os.path.isdir("/proc/self"):
        for process in psutil.process_iter(["create_time"]):
            yield Identity(process.pid, str(process.info["create_time"]))


def _started(pid: int) -> str | None:
    """Start time in clock ticks since boot, or None for one that is gone or a zombie (proc(5): fields 3 and
    22)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def _carries(pid: int, mark: bytes) -> bool:
    try:
        if os.path.isdir("/proc/self"):
            return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        value: str | None = psutil.Process(pid).environ().get(TOKEN_VARIABLE)
        return value is not None and mark.endswith(b"=" + value.encode())
    except (OSError, psutil.Error):
        return False  # gone, or somebody else's


def _signal_one(identity: Identity, mark: bytes, number: signal.Signals) -> bool:
    try:
        descriptor = os.pidfd_open(identity.pid)
    except (AttributeError, OSError):
        return False
    try:
        if _started(identity.pid) != identity.started or not _carries(identity.pid, mark):
            return False
        signal.pidfd_send_signal(descriptor, number)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
