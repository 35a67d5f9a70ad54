"""One running child: its pipes, its ready line, its exit, and the ladder that ends it.

Rules: the child stays in our process group (Ray sweeps the group of a dead Ray worker, so no setsid). Its
stdin is its lifeline and carries the start configuration. Nothing is killed by pid alone (process/tree.py).
Every wait has a bound, and stopping is safe to repeat."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from snakepit_ray.process import tree
from snakepit_ray.process.launch import TOKEN_VARIABLE, Launch
from snakepit_ray.process.output import LineReader, Output, OutputReader, Reader
from snakepit_ray.process.started import Executed, Started
from snakepit_ray.process.threads import aside

DRAIN_SECONDS = 0.5
HELPERS_SECONDS = 0.5  # for what a dead process leaves, such as Python's tracker of shared memory
KILL_SECONDS = 10.0  # a machine that is busy takes seconds to end some thousand processes
log = logging.getLogger("snakepit_ray.worker")


@dataclass(frozen=True)
class Exit:
    """How a child ended: `returncode` as subprocess gives it (negative = signal), and the last of what it
    printed to stderr."""

    returncode: int
    stderr_tail: str
    argv: tuple[str, ...]


def spawn(launch: Launch, ready_fd: int, inherited: Sequence[int] = ()) -> Started:
    """Executes `launch` and marks the process; it blocks for a few ms. It inherits `ready_fd`, the write end
    of the ready pipe, and the descriptors `inherited`, under their numbers.

    Raises OSError when the executable cannot be executed."""
    popen = subprocess.Popen(
        [*launch.argv, "--ready-fd", str(ready_fd)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(launch.env),
        cwd=launch.cwd,
        pass_fds=(ready_fd, *inherited),
        bufsize=0,
    )
    # Before it has its configuration, and so before it has run anybody's code.
    tree.mark(popen.pid, launch.env[TOKEN_VARIABLE])
    return Executed(popen)


class Child:
    """A process that was `started`, with the read end of its ready pipe, which is the child's from now on.
    Its output goes to `forward` as (stream, line). It waits for `connect`."""

    def __init__(
        self,
        launch: Launch,
        started: Started,
        ready_fd: int,
        forward: Callable[[str, str], None],
    ) -> None:
        self.launch = launch
        self.pid = started.pid
        self._oldest = tree.born_at(started.pid)
        self.stdout = Output(lambda line: forward("stdout", line))
        self.stderr = Output(lambda line: forward("stderr", line))
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.stays = False  # the last `stop` could not end everything
        self._started = started
        self._ready = LineReader(os.fdopen(ready_fd, "rb", buffering=0))
        self._readers: list[Reader] = [
            OutputReader(started.stdout, self.stdout),
            OutputReader(started.stderr, self.stderr),
            self._ready,
        ]
        self._lifeline: asyncio.WriteTransport | None = None
        started.ended().add_done_callback(self._ended)

    async def connect(self, line: bytes) -> None:
        """Sends the configuration `line`, as the child reads it: a line is longer than a pipe when the
        adapter's arguments are large."""
        self._lifeline, _ = await asyncio.get_running_loop().connect_write_pipe(
            asyncio.BaseProtocol, self._started.stdin
        )
        self._lifeline.write(line)

    @property
    def ready_line(self) -> asyncio.Future[bytes]:
        """Done with the first line that the child writes to its ready pipe, b"" if it ends without one."""
        return self._ready.line

    # ---- its exit ------------------------------------------------------------------------------------------

    def _ended(self, ended: asyncio.Future[int]) -> None:
        if not ended.cancelled():
            self._reaping = asyncio.ensure_future(self._gone(ended.result()))

    async def _gone(self, returncode: int) -> None:
        try:
            # Descendants may hold the pipes open: what they print is not worth more than DRAIN_SECONDS.
            await asyncio.wait([reader.closed for reader in self._readers], timeout=DRAIN_SECONDS)
            self._close_pipes()
        finally:
            if not self.exited.done():
                self.exited.set_result(Exit(returncode, self.stderr.tail, self.launch.argv))

    def _close_pipes(self) -> None:
        for reader in self._readers:
            reader.close()
        if self._lifeline is not None:
            if not self._lifeline.is_closing():  # the end of the child was seen there first
                self._lifeline.abort()
        else:
            self._started.stdin.close()

    @property
    def alive(self) -> bool:
        """Whether the process has not been reaped."""
        return not self.exited.done()

    # ---- its end -------------------------------------------------------------------------------------------

    async def stop(self, grace: float) -> Exit:
        """SIGTERM, `grace` seconds, SIGKILL, to the child and to whatever it started. What it started gets
        HELPERS_SECONDS more, because some of that cleans up when the child is gone. Safe to repeat; returns
        the exit.

        When something does not end by SIGKILL within KILL_SECONDS (a system call on a dead disk), that is
        logged and `stays` is true."""
        if not self.exited.done():
            await aside(tree.send, self._token, signal.SIGTERM, self._oldest)
            await asyncio.wait([self.exited], timeout=grace)
        self.kill_now()
        _, left = await aside(tree.end, {self._token}, KILL_SECONDS, HELPERS_SECONDS, self._oldest)
        await asyncio.wait([self.exited], timeout=KILL_SECONDS)
        self.stays = bool(left) or not self.exited.done()
        if self.stays:
            log.error(
                "process %d, or what it started, has not ended %g s after SIGKILL: the kernel holds it; "
                "a later sweep of this machine ends it (snakepit-ray cleanup)",
                self.pid,
                KILL_SECONDS,
            )
            return Exit(-signal.SIGKILL, self.stderr.tail, self.launch.argv)
        return self.exited.result()

    def kill_now(self) -> None:
        """SIGKILL to the child alone; `stop` sees to what it started. Safe to repeat."""
        if not self.exited.done():
            self._started.kill()

    def kill_tree_now(self) -> None:
        """SIGKILL to the child and to whatever it started, without waiting for their end."""
        self.kill_now()
        tree.send(self._token, signal.SIGKILL, self._oldest)

    @property
    def _token(self) -> str:
        return self.launch.env[TOKEN_VARIABLE]
