"""Knows one running child: its pipes, its ready line, its exit, and the ladder that ends it.

Rules: the child stays in our process group (Ray sweeps the group of a dead Ray worker, so no setsid); stdin
is its lifeline and carries the start configuration; nothing is killed by pid alone, only by incarnation token
(process/tree.py); every wait has a bound; stopping is safe to repeat."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from snakepit_ray.process import tree
from snakepit_ray.process.launch import TOKEN_VARIABLE, Launch
from snakepit_ray.process.output import Output, OutputProtocol

READY_LIMIT = 16 * 1024 * 1024
DRAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Exit:
    """How a child ended: `returncode` as subprocess gives it (negative = signal), and the last of what it
    printed to stderr."""

    returncode: int
    stderr_tail: str
    argv: tuple[str, ...]


class Child:
    """A started process. Create with `await Child.start(...)`."""

    def __init__(
        self, launch: Launch, popen: subprocess.Popen[bytes], stdout: Output, stderr: Output
    ) -> None:
        self.launch = launch
        self.pid = popen.pid
        self.stdout = stdout
        self.stderr = stderr
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._popen = popen
        self._pipes: list[tuple[asyncio.BaseTransport, asyncio.Future[None]]] = []

    @classmethod
    async def start(
        cls,
        launch: Launch,
        config: Mapping[str, object],
        ready_fd: int,
        forward: Callable[[str, str], None],
        inherited: Sequence[int] = (),
    ) -> Child:
        """Executes `launch`, writes `config` as one line to its stdin and forwards its output as (stream,
        line). It inherits the descriptors `inherited`, under their numbers.

        `ready_fd` is the write end of the ready pipe; it is closed here once the child has it. Raises OSError
        when the executable cannot be executed."""
        argv = [*launch.argv, "--ready-fd", str(ready_fd)]
        try:
            popen = subprocess.Popen(  # noqa: ASYNC220 - vfork and exec: a few ms
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(launch.env),
                cwd=launch.cwd,
                pass_fds=(ready_fd, *inherited),
            )
        finally:
            os.close(ready_fd)
        child = cls(
            launch, popen, Output(lambda s: forward("stdout", s)), Output(lambda s: forward("stderr", s))
        )
        try:
            await child._connect(config)
        except BaseException:  # cancelled: whoever starts it will not have it, so nobody else could end it
            popen.kill()
            popen.wait()
            raise
        return child

    async def _connect(self, config: Mapping[str, object]) -> None:
        loop = asyncio.get_running_loop()
        for pipe, output in ((self._popen.stdout, self.stdout), (self._popen.stderr, self.stderr)):
            transport, protocol = await loop.connect_read_pipe(partial(OutputProtocol, output), pipe)
            self._pipes.append((transport, protocol.closed))
        self._watch_exit(loop)
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: the exit says how
            self._popen.stdin.write(json.dumps(config).encode() + b"\n")
            self._popen.stdin.flush()

    def _watch_exit(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # no pidfd on this system: a thread waits
            task = loop.run_in_executor(None, self._popen.wait)
            task.add_done_callback(lambda _: loop.create_task(self._gone()))
            return

        def gone() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self._reaping = loop.create_task(self._gone())

        loop.add_reader(descriptor, gone)

    async def _gone(self) -> None:
        returncode = self._popen.wait()
        # Descendants may hold the pipes open: what they print is not worth more than DRAIN_SECONDS.
        await asyncio.wait([closed for _, closed in self._pipes], timeout=DRAIN_SECONDS)
        for transport, _ in self._pipes:
            transport.close()
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()
        if not self.exited.done():
            self.exited.set_result(Exit(returncode, self.stderr.tail, self.launch.argv))

    @property
    def alive(self) -> bool:
        """Whether the process has not been reaped."""
        return not self.exited.done()

    async def stop(self, grace: float) -> Exit:
        """SIGTERM, `grace` seconds, SIGKILL, to the child and to whatever it started. Safe to repeat; returns
        the exit."""
        for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, grace)):
            if self.exited.done():
                break
            await asyncio.to_thread(tree.send, self._token, number)
            await asyncio.wait([self.exited], timeout=wait)
        await asyncio.to_thread(tree.send, self._token, signal.SIGKILL)  # descendants that outlived it
        if not self.exited.done():
            self._popen.kill()  # its environment could not be read (a setuid program): it is our own child
        return await self.exited

    def kill_now(self) -> None:
        """SIGKILL to the child alone; `stop` sees to what it started. Safe to repeat."""
        if not self.exited.done():
            self._popen.kill()  # it is not reaped yet, so the pid is its own

    def kill_tree_now(self) -> None:
        """SIGKILL to the child and to whatever it started, without waiting for their end."""
        self.kill_now()
        tree.send(self._token, signal.SIGKILL)

    @property
    def _token(self) -> str:
        return self.launch.env[TOKEN_VARIABLE]


async def read_ready_line(descriptor: int) -> bytes:
    """The first line that arrives on `descriptor` (b"" if it closes without one); the descriptor is
    closed."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=READY_LIMIT)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        return await reader.readline()
    except ValueError:  # longer than READY_LIMIT: no ready line
        return b""
    finally:
        transport.close()
