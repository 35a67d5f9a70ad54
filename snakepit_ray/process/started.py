"""A process that was started, however: its pipes, its end, and how it is killed.

- `Executed` is one that we have executed, and so our child.
- process/forker.py has the other kind, which a forker has forked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
from typing import IO, Protocol


class Started(Protocol):
    """What `Child` must know of a process. `kill` is safe to repeat, and never hits another process."""

    pid: int
    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def ended(self) -> asyncio.Future[int]:
        """Done at its end with the exit code, as subprocess gives it (negative: a signal). Called once, in
        the event loop that waits."""

    def kill(self) -> None:
        """SIGKILL to this process alone."""


class Executed:
    """A process that this one has executed."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        assert popen.stdin is not None
        assert popen.stdout is not None
        assert popen.stderr is not None
        self.pid = popen.pid
        self.stdin, self.stdout, self.stderr = popen.stdin, popen.stdout, popen.stderr
        self._popen = popen

    def ended(self) -> asyncio.Future[int]:
        """As `Started.ended`."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # no pidfd on this system, or no descriptor is left: a thread waits
            args = (loop, ended)
            threading.Thread(target=self._wait, args=args, name="snakepit-exit", daemon=True).start()
            return ended

        def gone() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self._reap(ended)

        loop.add_reader(descriptor, gone)
        return ended

    def _wait(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[int]) -> None:
        self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(self._reap, ended)

    def _reap(self, ended: asyncio.Future[int]) -> None:
        returncode = self._popen.wait()
        if not ended.done():
            ended.set_result(returncode)

    def kill(self) -> None:
        """As `Started.kill`."""
        self._popen.kill()  # where it was reaped this does nothing
