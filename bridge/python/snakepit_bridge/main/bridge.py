"""The order in which an interpreter starts and stops.

Rules:
- stdin is taken away before any user's code runs.
- A start that fails says why in one line and exits with status 3.
- The main thread belongs to the user's code (execution.py). A thread waits for the order to stop and leads
  the end; the lifeline and the signals have threads of their own.
- Stopping is bounded and ends whatever commands have started.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from queue import SimpleQueue

from snakepit_bridge.adapter import forkable, loading, protocol
from snakepit_bridge.adapter.context import Cancelled
from snakepit_bridge.adapter.loading import StartError
from snakepit_bridge.lifeline import forks, lifeline, signals
from snakepit_bridge.main import preparing
from snakepit_bridge.main.config import Config, error_line, ready_line

START_FAILED_STATUS = 3
STOP_SECONDS = 1.0  # for cancelled commands to end; the host sends SIGKILL after its own grace (2 s)
LEAVE_SECONDS = 0.2  # for the main thread to leave a command, before and after it is interrupted


def main() -> None:
    """Runs the interpreter, or a forker of interpreters, until its host wants it no more; does not return."""
    parent = os.getppid()
    descriptor = lifeline.take_stdin()
    ready = forks.keep(_descriptor_of("--ready-fd", sys.argv))
    if "--forker-fd" in sys.argv:
        from snakepit_bridge.main import forker

        born = forker.serve(descriptor, ready, _descriptor_of("--forker-fd", sys.argv), parent)
        Bridge(born.ready, born).run(lifeline.take_stdin(), born.parent)
    Bridge(ready).run(descriptor, parent)


def _descriptor_of(flag: str, argv: list[str]) -> int:
    if flag not in argv[:-1] or not argv[argv.index(flag) + 1].isdigit():
        sys.exit("usage: main.py --ready-fd N (a snakepit_ray worker starts this program: bridge/README.md)")
    return int(argv[argv.index(flag) + 1])


class Bridge:
    """One interpreter process from start to end. `born`: what a forker has imported for it (forker.py)."""

    def __init__(self, ready: int, born=None) -> None:
        self._ready = ready
        self._born = born
        self._stops: SimpleQueue = SimpleQueue()  # of graces; a signal handler may put while it is read
        self._serving = False
        self._interrupting = False
        self._left = threading.Event()  # the main thread runs no commands any more

    def run(self, descriptor: int, parent: int) -> None:
        """Starts, serves, stops, exits."""
        signals.listen()
        signals.handle(signal.SIGTERM, self._terminated)
        lifeline.ask_for_parent_death_signal(parent)
        try:
            self._config = self._configure(lifeline.read_line(descriptor))
            sockets = [self._config.socket, *([self._config.frames] if self._config.frames else [])]
            lifeline.watch(descriptor, sockets)
            self._load()
        except StartError as failed:
            self._say(error_line(failed.stage, failed.cause))
            self._exit(START_FAILED_STATUS)
        self._exit(0)

    def _configure(self, line: bytes) -> Config:
        return preparing.configure(line) if self._born is None else self._born.configure(line)

    def _load(self) -> None:
        if self._born is not None:
            self._forks_without_grpc, kind = self._born.without_grpc, self._born.kind
        else:
            preparing.check(self._config)
            self._forks_without_grpc = preparing.import_server(self._config)
            protocol.inside(self.serve)
            kind = loading.find_class(self._config.adapter, self._config.cwd)
        if kind is not None:
            self.serve(loading.create(kind, self._config.adapter_args, self._config.threaded))

    def serve(self, adapter) -> None:
        """Serves the commands of `adapter` until the interpreter is asked to stop. Raises StartError."""
        from snakepit_bridge.adapter import hooks
        from snakepit_bridge.adapter.commands import HOST_ONLY, find_commands

        threaded = self._config.threaded
        try:
            loading.require_thread_safe(type(adapter), threaded)
            loading.require_threads()
            commands = find_commands(adapter)
            called = hooks.session_hook(adapter), hooks.context_hook(adapter, threaded)
            host_only = hooks.session_commands(adapter, called[0])
        except Exception as error:
            raise StartError("init", error) from error
        dispatcher = self._dispatcher({**commands, **host_only}, called)
        try:
            hooks.call(adapter, "setup", dispatcher.executor)
            loading.require_threads()
        except (Exception, SystemExit) as error:
            raise StartError("setup", error) from error
        line = ready_line(
            self._config,
            commands,
            arena=dispatcher.arena.usable,
            forks=forkable.allows(type(adapter)),
            moves=HOST_ONLY + "session_save" in host_only,
            ends=HOST_ONLY + "session_end" in host_only,
        )
        running = self._start_server(dispatcher, line)
        ender = threading.Thread(target=self._lead_the_end, args=(dispatcher, running), name="snakepit-end")
        ender.daemon = True
        ender.start()
        dispatcher.executor.serve()
        self._left.set()
        self._tear_down(adapter, dispatcher)
        dispatcher.close()
        running.stop()

    def _dispatcher(self, commands: dict, called: tuple):
        from snakepit_bridge.server import dispatcher

        try:
            return dispatcher.Dispatcher(commands, self._config, *called)
        except Exception as error:
            raise StartError("serve", error) from error

    def _start_server(self, dispatcher, line: bytes):
        running = _Servers()
        try:
            dispatcher.executor.start()
            for server in preparing.servers(self._config):
                running.all.append(server.start(dispatcher, line, self._stops.put))
        except Exception as error:
            raise StartError("serve", error) from error
        if self._forks_without_grpc:  # gRPC has read it; programs that commands start choose for themselves
            os.environ.pop(preparing.FORK_SUPPORT, None)
        self._serving = True
        self._say(line)
        return running

    def _lead_the_end(self, dispatcher, running) -> None:
        """The thread that ends the service; the main thread does the rest once no command keeps it."""
        grace = self._stops.get()
        running.leave()
        dispatcher.leave()
        _until_idle(dispatcher, grace)
        dispatcher.stop()
        _until_idle(dispatcher, STOP_SECONDS)
        dispatcher.executor.finish()
        if self._left.wait(LEAVE_SECONDS) or self._interrupted():
            return
        print("snakepit_bridge: a command does not let go of the main thread: no teardown", file=sys.stderr)
        dispatcher.close()
        running.stop()
        self._exit(0)

    def _interrupted(self) -> bool:
        """Raises Cancelled in the command that has the main thread; whether it has let go."""
        self._interrupting = True
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
        return self._left.wait(LEAVE_SECONDS)

    def _tear_down(self, adapter, dispatcher) -> None:
        from snakepit_bridge.adapter import hooks

        try:
            hooks.call(adapter, "teardown", dispatcher.executor)
        except BaseException:  # noqa: BLE001 - the user's own; it is too late for anything but words
            import traceback

            traceback.print_exc()

    def _terminated(self, number: int = 0, frame=None) -> None:
        """SIGTERM came. In the main thread with its number, in the one that watches signals without."""
        self._stops.put(0.0)
        if not number:
            return
        if not self._serving:
            self._exit(0)
        if self._interrupting and not self._left.is_set():
            raise Cancelled("the interpreter is stopping")

    def _say(self, line: bytes) -> None:
        data = line + b"\n"
        try:
            while data:
                data = data[os.write(self._ready, data) :]
        except BrokenPipeError:  # nobody waits for us any more: the lifeline says the rest
            pass
        forks.close(self._ready)

    def _exit(self, status: int) -> None:
        """Ends as a program does, without joining threads that a stuck command would hold for ever."""
        from snakepit_bridge.lifeline import farewell

        farewell.end(status)


class _Servers:
    """What serves: gRPC, frames or both."""

    def __init__(self) -> None:
        self.all: list = []

    def leave(self) -> None:
        """Health says that it does not serve, from now on."""
        for one in self.all:
            one.leave()

    def stop(self) -> None:
        """Ends every connection; what has been answered is delivered first."""
        for one in self.all:
            one.stop()


def _until_idle(dispatcher, seconds: float) -> None:
    import time

    end = time.monotonic() + seconds
    while dispatcher.running() and time.monotonic() < end:
        time.sleep(0.005)
