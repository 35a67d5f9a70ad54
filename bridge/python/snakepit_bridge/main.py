"""Knows the order in which an interpreter starts and stops.

Rules: stdin is taken away before any user's code runs; a start that fails says why in one line and exits
with status 3; stopping is bounded and
ends whatever commands have started.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from snakepit_bridge import lifeline, loading, protocol, requirements
from snakepit_bridge.config import Config, error_line, ready_line
from snakepit_bridge.deferred import defer, uncollected
from snakepit_bridge.loading import StartError

START_FAILED_STATUS = 3
SESSIONS_REMEMBERED = 100_000  # for on_session_start; of more, the oldest may be greeted again
STOP_SECONDS = 1.0  # for cancelled commands to end; the host sends SIGKILL after its own grace (2 s)


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
    os.set_inheritable(ready, False)
    return ready


class Bridge:
    """One interpreter process from start to end."""

    def __init__(self, ready: int) -> None:
        self._ready = ready
        self._stop = threading.Event()
        self._grace = 0.0
        self._serving = False

    def run(self, descriptor: int, parent: int) -> None:
        """Starts, serves, stops, exits."""
        lifeline.free_interrupt_signal()
        signal.signal(signal.SIGTERM, self._terminated)
        lifeline.ask_for_parent_death_signal(parent)
        try:
            self._config = self._configure(lifeline.read_line(descriptor))
            lifeline.watch(descriptor, self._config.socket)
            _demand(requirements.require_installed)
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
        # Our own directory goes last: `import main` of a user must not find ours.
        ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        others = [path for path in sys.path if os.path.abspath(path) != ours]
        sys.path[:] = [*config.code_paths, config.cwd, *others, ours]
        sys.argv[1:] = []
        return config

    def _load(self) -> None:
        defer("asyncio")  # before gRPC, or a user, imports it for commands that may never run
        protocol.inside(self.serve)
        kind = loading.find_class(self._config.adapter, self._config.cwd)
        if kind is not None:
            self.serve(loading.create(kind, self._config.adapter_args, self._config.threaded))

    def serve(self, adapter) -> None:
        """Serves the commands of `adapter` until the interpreter is asked to stop. Raises StartError."""
        from snakepit_bridge.adapter import find_commands

        try:
            loading.require_thread_safe(type(adapter), self._config.threaded)
            commands = find_commands(adapter)
            hooks = _hooks(adapter)
        except Exception as error:
            raise StartError("init", error) from error
        try:
            with uncollected():
                from snakepit_bridge import server, session
        except Exception as error:
            _demand(requirements.require_versions)
            raise StartError("serve", error) from error
        _demand(requirements.require_versions)
        try:
            dispatcher = session.Dispatcher(commands, self._config, *hooks)
        except Exception as error:
            raise StartError("serve", error) from error
        self._hook("setup", adapter, dispatcher)
        line = ready_line(self._config, commands, dispatcher.arena.usable)
        try:
            running = server.start(dispatcher, line, self._asked_to_stop)
        except Exception as error:
            raise StartError("serve", error) from error
        self._serving = True
        self._say(line)
        self._stop.wait()
        self._wind_up(adapter, dispatcher, running)

    def _hook(self, name: str, adapter, dispatcher) -> None:
        try:
            _call_hook(adapter, name, dispatcher)
        except (Exception, SystemExit) as error:
            raise StartError("setup", error) from error

    def _wind_up(self, adapter, dispatcher, running) -> None:
        running.leave()
        dispatcher.stopping = True
        _until_idle(dispatcher, self._grace)
        dispatcher.stop()
        _until_idle(dispatcher, STOP_SECONDS)
        try:
            _call_hook(adapter, "teardown", dispatcher)
        except BaseException:  # noqa: BLE001 - the user's own; it is too late for anything but words
            import traceback

            traceback.print_exc()
        dispatcher.close()
        running.stop()

    def _terminated(self, *_) -> None:
        if not self._serving:
            self._exit(0)
        self._stop.set()

    def _asked_to_stop(self, grace: float) -> None:
        self._grace = grace
        self._stop.set()

    def _say(self, line: bytes) -> None:
        data = line + b"\n"
        try:
            while data:
                data = data[os.write(self._ready, data) :]
        except BrokenPipeError:  # nobody waits for us any more: the lifeline says the rest
            pass
        os.close(self._ready)

    def _exit(self, status: int) -> None:
        """Ends without joining threads, which a stuck command would hold for ever; `atexit` functions are
        called.
        """
        import atexit

        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            lifeline.end(status)


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


def _call_hook(adapter, name: str, dispatcher) -> None:
    hook = getattr(adapter, name, None)
    if hook is None or _is_default(hook):
        return
    result = hook()
    if hasattr(result, "__await__"):
        dispatcher.executor.wait(result)


def _is_default(hook) -> bool:
    from snakepit_bridge.adapter import Adapter

    return getattr(hook, "__func__", None) is vars(Adapter).get(getattr(hook, "__name__", ""))


def _hooks(adapter):
    """(on_session_start once a session, set_session_context before each command), None where the adapter has
    none.
    """
    session = getattr(adapter, "on_session_start", None)
    context = getattr(adapter, "set_session_context", None)
    if session is None or _is_default(session):
        return None, context
    import inspect

    if inspect.iscoroutinefunction(session):
        raise TypeError("on_session_start cannot be async: a command waits for it")
    seen: dict[str, None] = {}
    lock = threading.Lock()

    def start_session(session_id: str) -> None:
        if session_id in seen:
            return
        with lock:
            if session_id not in seen:
                session(session_id)
                if len(seen) >= SESSIONS_REMEMBERED:
                    del seen[next(iter(seen))]
                seen[session_id] = None

    return start_session, context
