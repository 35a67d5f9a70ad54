"""What an interpreter does before a planned end, so that nothing is lost that a plain program would keep.

The process itself ends by `os._exit`, because joining a stuck thread would take for ever and destroying
libraries below their threads may crash. So the steps of a program's end are taken here, each within bounds:
pools of threads finish, `atexit` functions run, objects are destroyed, open files are flushed, and processes
that commands started are asked to end before they are made to.
"""

from __future__ import annotations

import _io
import contextlib
import gc
import os
import signal
import sys
import threading
import time

from snakepit_bridge.lifeline import lifeline

MOMENT = 0.5  # seconds: for what waits for others; the host sends SIGKILL after its own grace (2 s)
FLUSH_SECONDS = 1.0


def end(status: int) -> None:
    """Takes leave and ends this process."""
    try:
        _within(MOMENT, _finish_pools)
        _run_exit_functions()
        _within(
            FLUSH_SECONDS, _flush_files
        )  # a text file in a cycle would lose what the collector ends first
        gc.collect()  # calls what objects in cycles have as __del__
        _within(FLUSH_SECONDS, _close_files)
        _dismiss_helpers()
    finally:
        lifeline.end(status)


def _within(seconds: float, work) -> None:
    thread = threading.Thread(target=work, name="snakepit-farewell", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread is left
        return
    thread.join(seconds)


def _finish_pools() -> None:
    """What `threading` calls before it joins its threads: thread pools run what they were given."""
    for entry in reversed(getattr(threading, "_threading_atexits", [])):
        with contextlib.suppress(Exception):
            entry()


def _run_exit_functions() -> None:
    import atexit

    with contextlib.suppress(BaseException):  # it has printed each exception, and raises the last one again
        atexit._run_exitfuncs()


def _flush_files() -> None:
    for file in [*_files(), sys.stdout, sys.stderr]:
        with contextlib.suppress(BaseException):
            file.flush()


def _close_files() -> None:
    """Flushes files and closes those whose class is written in Python: a gzip file ends with its length."""
    for file in [*_files(), sys.stdout, sys.stderr]:
        with contextlib.suppress(BaseException):
            file.flush() if _layer(file) else file.close()


def _files() -> list:
    kind = _io._IOBase
    return sorted((one for one in gc.get_objects() if issubclass(type(one), kind)), key=_layer)


def _layer(file) -> int:
    """What writes into others comes before them: Python's classes, text, bytes."""
    if type(file).__module__ not in ("_io", "io"):
        return 0
    return 1 if isinstance(file, _io.TextIOWrapper) else 2


def _dismiss_helpers() -> None:
    """Asks what commands have started to end. The resource tracker of multiprocessing, which removes shared
    memory that nobody has unlinked, does so when its pipe is closed everywhere.
    """
    tracker = _release_tracker()
    others = [pid for pid in lifeline.descendants() if pid != tracker]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in others:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        others = _those_left(others, MOMENT)
    if tracker is not None:
        _those_left([tracker], MOMENT)


def _release_tracker():
    """Closes this process's end of the tracker's pipe; the tracker's pid, None where there is none."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    tracker = getattr(module, "_resource_tracker", None)
    descriptor, pid = getattr(tracker, "_fd", None), getattr(tracker, "_pid", None)
    if descriptor is None or pid is None:
        return None
    with contextlib.suppress(OSError):
        os.close(descriptor)
    return pid


def _those_left(pids: list, seconds: float) -> list:
    """Waits until they have ended; those that have not."""
    end = time.monotonic() + seconds
    while True:
        pids = [pid for pid in pids if not _is_gone(pid)]
        if not pids or time.monotonic() > end:
            return pids
        time.sleep(0.005)


def _is_gone(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # a child of a child
        return lifeline.is_gone(pid)
