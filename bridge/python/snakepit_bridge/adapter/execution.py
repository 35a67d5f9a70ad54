"""Where commands run: in the main thread, one after the other, or in threads, several at a time.

What runs where:
- Process profile (`MainThread`): `setup`, commands, hooks and `teardown` run in the interpreter's main
  thread, as in a plain program. Async commands run there too, on the main thread's event loop. That loop
  also runs while no command does: tasks that a command has left go on then, and wait for sync commands.
- Thread profile (`Threads`): sync commands run in `capacity` threads, async commands on one loop in a thread
  of its own, `setup` and `teardown` in the main thread. Threads begin with the ContextVars that `setup` set.

Rules:
- At most `capacity` runs have begun and not ended; the others begin in the order in which they came.
- Nothing that a command or a signal handler raises ends a thread that serves, however late it arrives.
- An event loop and its thread start when they are first needed. If they cannot, only that run fails.
"""

from __future__ import annotations

import sys
import threading
from queue import SimpleQueue

from snakepit_bridge.adapter.serving import (
    adopt,
    call,
    cancel,
    complain,
    get,
    keep,
    loop_of_this_thread,
    recover,
    with_context,
)

# After a sync command the next one is expected for so long before the loop has its turn again: waking a loop
# costs a quarter of a call (measured), and the loop has waited for the whole command already.
BREATH_SECONDS = 0.002


def executor_for(config):
    """What runs the commands of an interpreter with this configuration."""
    asyncio = sys.modules.get("asyncio.events")
    in_a_loop = (
        asyncio is not None and asyncio._get_running_loop() is not None
    )  # of a script that serves itself
    if config.threaded or config.capacity > 1 or in_a_loop:
        from snakepit_bridge.adapter.threads import Threads  # no start of the process profile pays for it

        return Threads(config.capacity)
    return MainThread()


class MainThread:
    """Runs everything in the thread that calls `serve`, which must be the main one."""

    def __init__(self) -> None:
        self._queue: SimpleQueue = SimpleQueue()
        self._loop = None
        self._sleeps_in = None  # the loop in which the main thread waits for the next run
        self._finished = False
        self._awaited = False  # the last run was an async command

    def start(self) -> None:
        """Nothing has to be started: `serve` does the work."""

    def submit(self, run) -> None:
        """Runs it when those before it have ended."""
        self._queue.put(run)
        loop = self._sleeps_in
        if loop is not None:
            call(loop, loop.stop)

    def cancel(self, run, kind: int) -> None:
        """Cancels a run, wherever it is."""
        cancel(run, kind, self._loop)

    def serve(self) -> None:
        """Runs what is submitted until `finish` is called."""
        keep(self._serve, lambda: self._finished)

    def _serve(self, taken: list, error: BaseException | None) -> None:
        while not self._finished:
            try:
                if error is not None:
                    recover(taken, error)
                    error = None
                if not taken:
                    self._take(taken)
                if taken[0] is not None:
                    self.perform(taken[0])
                taken.clear()
            except BaseException as late:  # noqa: BLE001 - e.g. of a signal handler, after its command ended
                error = late

    def beside(self, run) -> bool:
        """Runs an async command on the loop in which another one waits; False where no loop runs."""
        loop = self._loop
        if loop is None or not loop.is_running() or loop is self._sleeps_in:
            return False
        call(loop, lambda: run.execute() and run.start_task(loop))
        return True

    def finish(self) -> None:
        """Has `serve` return once the command that runs has ended. Called from another thread."""
        self._finished = True
        self.submit(None)

    def wait(self, awaitable):
        """The result of an awaitable of a hook, such as an async setup. The ContextVars that it sets stay."""
        result, context = self._main_loop().run_until_complete(with_context(awaitable))
        adopt(context)
        return result

    def is_alive(self) -> bool:
        """Whether the main thread serves."""
        return threading.main_thread().is_alive()

    def _take(self, taken: list) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            if not self._awaited and get(self._queue, taken, BREATH_SECONDS):
                return
            self._sleeps_in = loop
            try:
                while self._queue.empty():
                    loop.run_forever()
            finally:
                self._sleeps_in = None
        get(self._queue, taken)

    def perform(self, run) -> None:
        """Runs it here, in the main thread."""
        self._awaited = False
        while run.execute():
            self._awaited = True
            self._await(run)
            if not run.has_rest:
                return

    def _await(self, run) -> None:
        loop = self._main_loop()
        task = run.start_task(loop)
        task.add_done_callback(lambda _: loop.stop())
        while not task.done():
            try:
                loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - SystemExit of another task, a signal handler's
                if self._finished or loop.is_closed():
                    run.lose(run.outcome(error))
                    return
                complain(error)

    def _main_loop(self):
        if self._loop is None or self._loop.is_closed():
            self._loop = loop_of_this_thread()
        return self._loop
