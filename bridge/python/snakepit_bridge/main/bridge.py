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
from functools import partial
from queue import SimpleQueue

from snakepit_bridge.adapter import loading, protocol
from snakepit_bridge.adapter.context import Cancelled
from snakepit_bridge.adapter.loading import StartError
from snakepit_bridge.lifeline import forks, lifeline, signals
from snakepit_bridge.main import requirements
from snakepit_bridge.main.config import Config, error_line, ready_line
from snakepit_bridge.server.deferred import uncollected

START_FAILED_STATUS = 3
STOP_SECONDS = 1.0  # for cancelled commands to end; the host sends SIGKILL after its own grace (2 s)
LEAVE_SECONDS = 0.2  # for the main thread to leave a command, before and after it is interrupted
FORK_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"


def main() -> None:
    """Runs the interpreter until its host wants it no more; does not return."""
    parent = os.getppid()
    descriptor = lifeline.take_stdin()
    ready = _ready_descriptor(sys.argv)
    Bridge(ready).run(descriptor, parent)


def _ready_descriptor(argv: list[str]) -> int:
    if "--ready-fd" not in argv[:-1] or not argv[argv.index("--ready-fd") + 1].isdigit():
        sys.exit("usage: main.py --ready-fd N (a snakepit_ray worker starts this program: bridge/README.md)")
    ready = int(argv[argv.index("--ready-fd") + 1])
    return forks.keep(ready)


class Bridge:
    """One interpreter process from start to end."""

    def __init__(self, ready: int) -> None:
        self._ready = ready
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
            if self._config.frames and requirements.lacks_only_grpc():
                self._config.alone = True  # the ready line says so
            _demand(partial(requirements.require_installed, grpc=not self._config.alone))
            self._load()
        except StartError as failed:
            self._say(error_line(failed.stage, failed.cause))
            self._exit(START_FAILED_STATUS)
        self._exit(0)

    def _configure(self, line: bytes) -> Config:
        try:
            config = Config(line)
        except Exception as error:
            raise StartError("config", error) from error
        loading.shelter(config.adapter)
        # Our own directory goes last: `import main` of a user must not find ours.
        ours = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        others = [path for path in sys.path if os.path.abspath(path) != ours]
        sys.path[:] = [*config.code_paths, config.cwd, *others, ours]
        sys.argv[1:] = []
        return config

    def _load(self) -> None:
        self._import_server()
        protocol.inside(self.serve)
        kind = loading.find_class(self._config.adapter, self._config.cwd)
        if kind is not None:
            self.serve(loading.create(kind, self._config.adapter_args, self._config.threaded))

    def serve(self, adapter) -> None:
        """Serves the commands of `adapter` until the interpreter is asked to stop. Raises StartError."""
        from snakepit_bridge.adapter import hooks
        from snakepit_bridge.adapter.commands import find_commands

        threaded = self._config.threaded
        try:
            loading.require_thread_safe(type(adapter), threaded)
            loading.require_threads()
            commands = find_commands(adapter)
            called = hooks.session_hook(adapter), hooks.context_hook(adapter, threaded)
        except Exception as error:
            raise StartError("init", error) from error
        dispatcher = self._dispatcher(commands, called)
        try:
            hooks.call(adapter, "setup", dispatcher.executor)
            loading.require_threads()
        except (Exception, SystemExit) as error:
            raise StartError("setup", error) from error
        running = self._start_server(dispatcher, commands)
        ender = threading.Thread(target=self._lead_the_end, args=(dispatcher, running), name="snakepit-end")
        ender.daemon = True
        ender.start()
        dispatcher.executor.serve()
        self._left.set()
        self._tear_down(adapter, dispatcher)
        dispatcher.close()
        running.stop()

    def _import_server(self) -> None:
        """Before any user's code: grpc is imported with stand-ins, which nobody else may see."""
        # gRPC's own handlers crash or hang in forked children, which have no use for this process's gRPC.
        self._forks_without_grpc = FORK_SUPPORT not in os.environ
        os.environ.setdefault(FORK_SUPPORT, "0")
        versions = partial(requirements.require_versions, grpc=not self._config.alone)
        try:
            with uncollected():
                if self._config.threaded:  # two threads must not import it at one moment (deferred.py)
                    import asyncio  # noqa: F401
                self._servers()
        except Exception as error:
            _demand(versions)
            raise StartError("serve", error) from error
        _demand(versions)

    def _servers(self) -> list:
        """The modules that serve, each with `start`."""
        found = []
        if not self._config.alone:
            from snakepit_bridge.server import transport

            found.append(transport)
        if self._config.frames is not None:
            from snakepit_bridge.server import frames

            found.append(frames)
        return found

    def _dispatcher(self, commands: dict, called: tuple):
        from snakepit_bridge.server import dispatcher

        try:
            return dispatcher.Dispatcher(commands, self._config, *called)
        except Exception as error:
            raise StartError("serve", error) from error

    def _start_server(self, dispatcher, commands: dict):
        line = ready_line(self._config, commands, dispatcher.arena.usable)
        running = _Servers()
        try:
            dispatcher.executor.start()
            for server in self._servers():
                running.all.append(server.start(dispatcher, line, self._stops.put))
        except Exception as error:
            raise StartError("serve", error) from error
        if self._forks_without_grpc:  # gRPC has read it; programs that commands start choose for themselves
            os.environ.pop(FORK_SUPPORT, None)
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


def _demand(check) -> None:
    """Raises StartError("interpreter") where this environment does not meet `check`."""
    try:
        check()
    except requirements.InterpreterUnfit as error:
        raise StartError("interpreter", error) from error


def _until_idle(dispatcher, seconds: float) -> None:
    import time

    end = time.monotonic() + seconds
    while dispatcher.running() and time.monotonic() < end:
        time.sleep(0.005)
