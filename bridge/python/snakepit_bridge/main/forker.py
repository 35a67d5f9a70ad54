"""A forker: imports what an interpreter imports and the adapter's module, and forks interpreters of it
(bridge/README.md section 8).

Rules:
- It has one thread and one state: what it was after the import. It makes no instance and runs no command, so
  every interpreter has memory as fresh as that of an executed one.
- It ends when its host does, or when its host wants no more of it and the last interpreter has ended.
- It reaps what it has forked, and says how that ended. The host got a pidfd before, so no pid is ever taken
  for another process's.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time

from snakepit_bridge import PROTOCOL
from snakepit_bridge.adapter import commands, forkable, loading, protocol
from snakepit_bridge.adapter.loading import StartError
from snakepit_bridge.adapter.sources import Sources
from snakepit_bridge.lifeline import birth, forks, lifeline
from snakepit_bridge.main import preparing
from snakepit_bridge.main.config import Config, error_line

START_FAILED_STATUS = 3
MOST_DESCRIPTORS = 16
LONGEST_ORDER = 4096
# What an interpreter imports after its adapter's module, and so after the fork: imported before it instead.
LATER = (
    "ctypes",
    "resource",
    "snakepit_bridge.adapter.execution",
    "snakepit_bridge.adapter.hooks",
    "snakepit_bridge.lifeline.farewell",
    "snakepit_bridge.server.arena",
    "snakepit_bridge.server.dispatcher",
    "snakepit_bridge.server.marks",
)


class Born:
    """A forked interpreter, before its own start: what was imported for it, and its descriptors."""

    def __init__(self, kind: type, without_grpc: bool, parent: int, order: Order) -> None:
        self.kind = kind
        self.without_grpc = without_grpc
        self.parent = parent
        self.ready = forks.keep(order.ready)
        self._numbers = order.numbers

    def configure(self, line: bytes) -> Config:
        """What the host has said to this interpreter. Raises StartError("config")."""
        try:
            config = Config(line, self._numbers)
            preparing.check(config)
        except StartError:
            raise
        except Exception as error:
            raise StartError("config", error) from error
        return config


class Order:
    """The order to fork one interpreter: its token and mark, its descriptors, and under which numbers its
    start line names the last of them.
    """

    def __init__(self, message: dict, received: list) -> None:
        self.token: str = message["token"]
        self.mark = message["mark"]
        self.received = received
        report, *self.standard, self.ready = received[:5]
        self.numbers = {number: received[5 + place] for place, number in enumerate(message["numbers"])}
        self.report = socket.socket(fileno=report)

    def close(self) -> None:
        """Closes what came with it for the interpreter."""
        for descriptor in self.received[1:]:
            os.close(descriptor)

    def tell(self, fact: dict, descriptors: tuple = ()) -> None:
        """Says something of this interpreter to the host."""
        with contextlib.suppress(OSError):  # the host does not want it any more: it ends by its lifeline
            socket.send_fds(self.report, [json.dumps(fact).encode()], descriptors)


def serve(descriptor: int, ready: int, orders: int, parent: int) -> Born:
    """Runs the forker until it is wanted no more. Returns in each process that it has forked."""
    signal.signal(signal.SIGINT, _belongs_to_the_host)
    # Without the threads that an interpreter has for it: a fork would lose them.
    lifeline.ask_for_parent_death_signal(parent, signal.signal)
    try:
        kind, without_grpc, sources = _prepare(lifeline.read_line(descriptor))
    except StartError as failed:
        _say(ready, error_line(failed.stage, failed.cause))
        lifeline.end(START_FAILED_STATUS)
    # From now on there are interpreters among its descendants, which end in their own way.
    lifeline.ask_for_parent_death_signal(parent, signal.signal, os._exit)
    channel = socket.socket(fileno=orders)
    gc.collect()
    gc.freeze()  # what is here now is not written to by the collectors of those that are forked
    ours = os.getpid()
    _say(ready, json.dumps({"snakepit": PROTOCOL, "pid": ours, "forker": True}).encode())
    return Born(kind, without_grpc, ours, _Forker(channel, descriptor, sources).run())


def _belongs_to_the_host(*_) -> None:
    """A Ctrl-C in a terminal: nothing is to be done."""


def _prepare(line: bytes) -> tuple:
    """(the adapter's class, whether FORK_SUPPORT is ours, the files of its modules). Raises StartError."""
    began = time.time_ns()
    config = preparing.configure(line)
    preparing.check(config)
    if not birth.can_be_renamed():
        raise StartError("fork", OSError("this system does not let a process overwrite its own environment"))
    without_grpc = preparing.import_server(config)
    for name in LATER:
        importlib.import_module(name)
    if not config.alone:
        from snakepit_bridge.server import transport

        transport.prepare()
    before = forkable.Before()
    protocol.inside(_refuse)
    kind = loading.find_class(config.adapter, config.cwd)
    why = before.why_not(kind)
    if why:
        raise StartError("fork", ValueError(why))
    commands.prepare(kind)
    sources = Sources(began)  # of one that is written meanwhile the first order hears
    return kind, without_grpc, sources


def _refuse(adapter) -> None:
    raise StartError("fork", ValueError("it is a script that serves itself"))


def _say(ready: int, line: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # the host is gone
        os.write(ready, line + b"\n")
    forks.close(ready)


class _Forker:
    """Takes orders, forks, reaps."""

    def __init__(self, channel: socket.socket, descriptor: int, sources: Sources) -> None:
        self._channel = channel
        self._lifeline = descriptor
        self._sources = sources
        self._poll = select.poll()
        self._children: dict = {}  # pidfd: (pid, its order)
        self._poll.register(channel, select.POLLIN)
        self._poll.register(descriptor, select.POLLIN)
        self._wanted = True

    def run(self) -> Order:
        """Returns in a forked process."""
        while self._wanted or self._children:
            for descriptor, _ in self._poll.poll():
                order = self._look(descriptor)
                if order is not None:
                    return order
        os._exit(0)

    def _look(self, descriptor: int):
        if descriptor == self._lifeline:
            if not os.read(descriptor, 65536):
                os._exit(lifeline.HOST_GONE_STATUS)
        elif descriptor == self._channel.fileno():
            return self._take()
        else:
            self._reap(descriptor)
        return None

    def _take(self):
        data, received, _, _ = socket.recv_fds(
            self._channel, LONGEST_ORDER, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            self._wanted = False
            self._poll.unregister(self._channel)
            return None
        order = Order(json.loads(data), received)
        changed = self._sources.changed()
        if changed:
            return self._refuse(order, f"{changed} has changed")
        return self._fork(order)

    def _refuse(self, order: Order, why: str) -> None:
        order.close()
        order.tell({"refused": why})
        order.report.close()

    def _fork(self, order: Order):
        sys.stdout.flush()  # what the import has left there is said once
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            return self._refuse(order, f"fork: {error}")
        if pid == 0:
            self._become(order)
            return order
        pidfd = os.pidfd_open(pid)
        order.close()
        self._children[pidfd] = (pid, order)
        self._poll.register(pidfd, select.POLLIN)
        order.tell({"pid": pid}, (pidfd,))
        return None

    def _become(self, order: Order) -> None:
        """In the forked process: everything of the forker is closed, everything of the order in its place."""
        try:
            for pidfd, (_, other) in self._children.items():
                os.close(pidfd)
                other.report.close()
            self._channel.close()
            order.report.close()
            forks.close(self._lifeline)
            for number, descriptor in enumerate(order.standard):
                os.dup2(descriptor, number)
                os.close(descriptor)
            birth.be(order.token, order.mark)
        except BaseException:  # noqa: BLE001 - it must never go on as a second forker
            import traceback

            traceback.print_exc()
            os._exit(START_FAILED_STATUS)

    def _reap(self, pidfd: int) -> None:
        pid, order = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        order.tell({"exited": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})
        order.report.close()
