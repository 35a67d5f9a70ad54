"""Watches an event loop: does anything hold it?

Three things are noted while a callback of the loop runs:

- It took more than LIMIT seconds of processor time of the loop's own thread. A machine that is busy makes
  wall-clock time longer, not this.
- The loop's thread slept in a system call for LIMIT seconds: in a full pipe, a wait for a process. A thread
  that waits for a processor is not asleep, and one that waits for the GIL sleeps in futex(2), which is not
  counted.
- It asked for something that may take any time on another machine, however quick it is here: listing or
  removing directories, opening files for writing, starting processes (Python's audit events).

To collect the garbage of all tests before takes 0.2 to 0.4 s of processor time, in whichever callback it
happens. So Python does not look at what exists already while a loop is watched."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIMIT = 0.05
LOOK_SECONDS = 0.005
FUTEX = {"x86_64": "202", "aarch64": "98"}.get(os.uname().machine)
FILES = ("os.listdir", "os.scandir", "os.remove", "os.rmdir", "os.mkdir", "os.rename", "shutil.rmtree")
BLOCKING = {*FILES, "tempfile.mkdtemp", "subprocess.Popen", "os.fork", "os.posix_spawn", "time.sleep"}

_active: LoopWatch | None = None
_hooked = False


class LoopWatch:
    """What was noted, in words. Use `watching()`."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.callbacks = 0
        self._thread = threading.get_ident()
        self._native = threading.get_native_id()
        self._running: tuple[float, str] | None = None  # since when (wall clock), and what
        self._over = threading.Event()

    def run(self, real: Any, handle: asyncio.Handle) -> None:
        """One callback of the loop."""
        if threading.get_ident() != self._thread:
            real(handle)
            return
        self.callbacks += 1
        self._running = time.monotonic(), repr(handle)
        began = time.thread_time()
        try:
            real(handle)
        finally:
            took, self._running = time.thread_time() - began, None
            if took > LIMIT:
                self.noted.append(f"{took * 1000:.0f} ms of processor time: {handle!r}")

    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        """An audit event of this thread, while a callback runs."""
        if event in BLOCKING or (event == "open" and _writes(args)):
            where = "".join(traceback.format_stack(limit=8)[:-2])
            self.noted.append(f"{event}{args[:1]!r} on the event loop:\n{where}")

    def sample(self) -> None:
        """Looks again and again whether the loop's thread is asleep within one callback."""
        asleep, what = 0.0, None
        while not self._over.wait(LOOK_SECONDS):
            running, now = self._running, time.monotonic()
            if running is None or running != what or not self._sleeps():
                asleep, what = now, running
            elif now - asleep > LIMIT:
                frame = sys._current_frames().get(self._thread)
                stack = "".join(traceback.format_stack(frame, limit=8)) if frame is not None else ""
                self.noted.append(f"asleep for {(now - asleep) * 1000:.0f} ms: {running[1]}\n{stack}")
                asleep = now + 3600  # once a callback

    def _sleeps(self) -> bool:
        folder = Path(f"/proc/self/task/{self._native}")
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            call = (folder / "syscall").read_text().split()[0]
        except OSError:  # this system does not show it
            return False
        return state in "SD" and call not in ("running", FUTEX)


@contextlib.contextmanager
def watching() -> Iterator[LoopWatch]:
    """Watches the loop that runs in this thread. Fails nothing itself: ask `noted`."""
    global _active, _hooked
    watch, real = LoopWatch(), asyncio.Handle._run  # type: ignore[attr-defined]
    if not _hooked:
        sys.addaudithook(_hook)  # for as long as the process lives
        _hooked = True
    asyncio.Handle._run = lambda handle: watch.run(real, handle)  # type: ignore[attr-defined]
    looker = threading.Thread(target=watch.sample, daemon=True)
    looker.start()
    gc.freeze()
    _active = watch
    try:
        yield watch
    finally:
        _active = None
        gc.unfreeze()
        asyncio.Handle._run = real  # type: ignore[attr-defined]
        watch._over.set()
        looker.join()


def _hook(event: str, args: tuple[Any, ...]) -> None:
    watch = _active
    if watch is not None and watch._running is not None and threading.get_ident() == watch._thread:
        watch.heard(event, args)


def _writes(args: tuple[Any, ...]) -> bool:
    """Whether a file is opened for writing: arguments of the event are path, mode and flags."""
    path, _, flags = args
    return isinstance(path, (str, bytes, os.PathLike)) and bool(
        flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )
