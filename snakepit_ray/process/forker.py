"""A forker in the hands of its worker: orders to it, and the processes that it has forked
(bridge/README.md section 8).

- An order goes over the forker's socket. Everything about one process comes over a socket of its own: a pidfd
  first, its exit code at the end.
- A process is signalled through its pidfd. Its parent is the forker, which may reap it at any moment, so its
  pid alone would say nothing.
- The end of a forker is the end of what it has forked: nobody else learns how that ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

from snakepit_ray.process import tree
from snakepit_ray.process.child import Child
from snakepit_ray.process.launch import TOKEN_VARIABLE, Launch

ANSWER_SECONDS = 5.0  # for a fork, which takes a millisecond; a forker that is hung is given up
LONGEST_ANSWER = 4096


class NotForked(Exception):
    """The forker forks nothing, now or any more: says why. `is_lost`: it is gone, or does not answer."""

    def __init__(self, why: str, is_lost: bool = False) -> None:
        super().__init__(why)
        self.is_lost = is_lost


class Ends(NamedTuple):
    """Two ends of a pipe or a pair of sockets: what we keep, and what the process gets."""

    ours: int
    theirs: int


class Forked:
    """A process that a forker has forked (see `Started`)."""

    def __init__(
        self, pid: int, pidfd: int, report: socket.socket, pipes: tuple[IO[bytes], IO[bytes], IO[bytes]]
    ) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = pipes
        self._pidfd = pidfd
        self._report = report

    def ended(self) -> asyncio.Future[int]:
        """As `Started.ended`. Without a forker that could say it, the exit code is that of SIGKILL."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        loop.add_reader(self._report, self._reported, loop, ended)
        return ended

    def _reported(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[int]) -> None:
        try:
            data = self._report.recv(LONGEST_ANSWER)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        loop.remove_reader(self._report)
        if data:
            self._over(ended, int(json.loads(data)["exited"]))
            return
        self.kill()  # it ends by itself when its forker does; now it does so at once
        loop.add_reader(self._pidfd, self._gone, loop, ended)

    def _gone(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[int]) -> None:
        loop.remove_reader(self._pidfd)
        self._over(ended, -signal.SIGKILL)

    def _over(self, ended: asyncio.Future[int], returncode: int) -> None:
        self._report.close()
        descriptor, self._pidfd = self._pidfd, -1
        os.close(descriptor)
        if not ended.done():
            ended.set_result(returncode)

    def kill(self) -> None:
        """As `Started.kill`."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


class Forker:
    """A forker that has said that it is ready. `orders`: our end of its socket, which is the forker's from
    now on."""

    def __init__(self, child: Child, orders: socket.socket) -> None:
        self.child = child
        self._orders = orders
        orders.settimeout(ANSWER_SECONDS)

    def fork(self, launch: Launch, ready_fd: int, inherited: Sequence[int] = ()) -> Forked:
        """Has it fork what `launch` would execute; as `spawn`, it blocks for a few ms. The descriptors
        `inherited` are those that the start line names.

        Raises NotForked, also where the environment is another than the forker's; OSError without
        descriptors."""
        if _without_token(launch) != _without_token(self.child.launch):
            raise NotForked("the environment has changed")
        with contextlib.ExitStack() as undo:
            report, given = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(report.close)
            with given, contextlib.ExitStack() as theirs:
                pipes = [_pipe(writes=number == 0) for number in range(3)]
                for ends in pipes:
                    undo.callback(os.close, ends.ours)
                    theirs.callback(os.close, ends.theirs)
                received = [given.fileno(), *(ends.theirs for ends in pipes), ready_fd, *inherited]
                self._order(launch.env[TOKEN_VARIABLE], inherited, received)
            pid, pidfd = _answer(report)
            undo.pop_all()
        report.setblocking(False)
        modes = ("wb", "rb", "rb")
        files = tuple(
            os.fdopen(ends.ours, mode, buffering=0) for ends, mode in zip(pipes, modes, strict=True)
        )
        return Forked(pid, pidfd, report, files)  # type: ignore[arg-type]

    def _order(self, token: str, inherited: Sequence[int], received: list[int]) -> None:
        order = {"token": token, "mark": tree.mark_to_set(token), "numbers": list(inherited)}
        try:
            socket.send_fds(self._orders, [json.dumps(order).encode()], received)
        except OSError as error:
            raise NotForked(f"it takes no order: {error}", is_lost=True) from error

    def retire(self) -> None:
        """It forks no more, and ends when the last that it has forked has ended. Safe to repeat, also while
        an order is given in a thread."""
        with contextlib.suppress(OSError):  # it is gone
            self._orders.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """For when its process is gone. Safe to repeat."""
        self._orders.close()


def _without_token(launch: Launch) -> dict[str, str]:
    return {**launch.env, TOKEN_VARIABLE: ""}


def _pipe(*, writes: bool) -> Ends:
    reading, writing = os.pipe()
    return Ends(writing, reading) if writes else Ends(reading, writing)


def _answer(report: socket.socket) -> tuple[int, int]:
    """The pid and the pidfd of what was forked. Raises NotForked."""
    report.settimeout(ANSWER_SECONDS)
    try:
        data, descriptors, _, _ = socket.recv_fds(report, LONGEST_ANSWER, 1)
    except OSError as error:
        raise NotForked(f"it does not answer: {error}", is_lost=True) from error
    said: dict[str, Any] = json.loads(data) if data else {}
    if not descriptors:
        raise NotForked(str(said.get("refused", "it ended at an order")), is_lost="refused" not in said)
    os.set_inheritable(descriptors[0], False)
    return int(said["pid"]), descriptors[0]
