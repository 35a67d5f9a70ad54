"""Knows the threads that run commands: `capacity` of their own for sync ones, one event loop for async ones,
one clock for deadlines.

Rules: whatever a command raises ends only that command; at most `capacity` of them, of either kind, have
begun and not ended, the others begin in the order in which they came; the loop and the clock start when they
are first needed; a run has exactly one outcome, and one cancelled or recalled before it began never begins.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from queue import SimpleQueue
from types import CoroutineType

from snakepit_bridge import context as contexts
from snakepit_bridge.failures import CANCELLED, DEADLINE, Stopped

_NEVER = float("inf")


class Run:
    """One request from its arrival to its outcome. `work(run)` gives the value (or a coroutine), `done(run,
    value, error)` is called once.
    """

    __slots__ = (
        "_begun",
        "_coroutine",
        "_stepped",
        "_task",
        "asynchronous",
        "context",
        "deadline",
        "done",
        "kind",
        "mark",
        "request",
        "started",
        "work",
    )

    def __init__(self, request, context, asynchronous: bool, work, done, mark=None) -> None:
        self.request = request
        self.mark = mark  # of marks.py: where the host reads how much has begun
        self.context = context
        self.asynchronous = asynchronous
        self.deadline = context.deadline if context.deadline is not None else _NEVER
        self.work = work
        self.done = done
        self.kind = 0  # of the cancellation: CANCELLED or DEADLINE once there is one
        self.started = 0
        # whoever gets it first, the thread that runs or the one that cancels, decides
        self._begun = threading.Lock()
        self._task = None
        self._coroutine = None
        self._stepped = False  # of an async command: it has come to its first line

    def begin(self) -> bool:
        """Whether the run may start: nobody has cancelled it."""
        if not self._begun.acquire(False):
            return False
        self.started = time.perf_counter_ns()
        if self.mark is not None:
            words, place = self.mark
            words[place] = 1
        return True

    def cancel(self, kind: int) -> None:
        """Tells the command to stop; the first reason counts. One that has not begun ends here."""
        if self.kind:
            return
        self.kind = kind
        self.context._cancel()
        if self._begun.acquire(False):
            self.done(self, None, self.stopped())

    def recall(self) -> None:
        """The host takes it back: it ends here if it has not begun, else nothing happens."""
        if not self.kind and self._begun.acquire(False):
            self.done(self, None, Stopped(CANCELLED, f"{self.context.command}: it was recalled"))

    def stopped(self) -> Stopped:
        """The error of a cancelled run."""
        words = "its budget ended" if self.kind == DEADLINE else "it was cancelled"
        return Stopped(self.kind, f"{self.context.command}: {words}")

    def execute(self) -> bool:
        """Runs a sync command in this thread; True when it returned a coroutine: the loop's to await."""
        if not self.begin():
            return False
        contexts.bind(self.context)
        try:
            value = self.work(self)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a command is a failure of that command
            self.done(self, None, self.outcome(error))
            return False
        if type(value) is CoroutineType:
            self._coroutine = value
            self.asynchronous = True
            return True
        self.done(self, value, None)
        return False

    # These run on the loop: a cancellation comes before the task's first step or after it.

    def start_task(self, loop, over) -> None:
        """Starts an async command, unless it has been cancelled; `over()` is called when it has ended."""
        self._task = loop.create_task(self._aexecute())
        self._task.add_done_callback(lambda _: self._task_over(over))
        if self.kind:
            self._task.cancel()

    def _task_over(self, over) -> None:
        if not self._stepped:  # cancelled before its first step: nobody has given its outcome
            if self._coroutine is not None:
                self._coroutine.close()
            self.done(self, None, self.stopped())
        over()

    def cancel_task(self) -> None:
        """Cancels the task of an async command that has begun."""
        if self._task is not None:
            self._task.cancel()

    async def _aexecute(self) -> None:
        self._stepped = True
        contexts.bind(self.context)
        try:
            value = self._coroutine if self._coroutine is not None else self.work(self)
            if type(value) is CoroutineType:
                value = await value
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the loop
            self.done(self, None, self.outcome(error))
            return
        self.done(self, value, None)

    def outcome(self, error: BaseException) -> BaseException:
        """What an error of the command is: the end of a run that was told to stop, or itself."""
        return self.stopped() if self.kind and is_cancellation(error) else error


def is_cancellation(error: BaseException) -> bool:
    """Whether an exception says that its command stopped because it was told to."""
    if isinstance(error, contexts.Cancelled):
        return True
    names = (("asyncio", "CancelledError"), ("concurrent.futures", "CancelledError"))
    modules = ((sys.modules.get(module), name) for module, name in names)
    return any(module is not None and isinstance(error, getattr(module, name)) for module, name in modules)


class Executor:
    """Runs what it is given in `capacity` threads, and async commands on one loop."""

    def __init__(self, capacity: int) -> None:
        self._queue: SimpleQueue = SimpleQueue()
        self._free = capacity
        self._waiting: deque = deque()  # those for whom there was no slot
        self._lock = threading.Lock()
        self._loop = None
        self._loop_lock = threading.Lock()
        for number in range(capacity):
            threading.Thread(target=self._work, name=f"snakepit-command-{number}", daemon=True).start()

    def submit(self, run: Run) -> None:
        """Runs it as soon as there is a slot."""
        with self._lock:
            if not self._free:
                self._waiting.append(run)
                return
            self._free -= 1
        self._start(run)

    def _start(self, run: Run | None) -> None:
        """`run` has a slot; one that has been cancelled hands it on."""
        while run is not None:
            if not run.asynchronous:
                self._queue.put(run)
                return
            if run.begin():
                self._on_loop(run)
                return
            run = self._next()

    def _next(self) -> Run | None:
        """The one that gets the slot which has become free."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._free += 1
            return None

    def _over(self) -> None:
        self._start(self._next())

    def cancel(self, run: Run, kind: int) -> None:
        """Cancels a run, wherever it is."""
        if run.kind:
            return
        run.cancel(kind)
        if run.asynchronous:
            self.loop().call_soon_threadsafe(run.cancel_task)

    def wait(self, coroutine):
        """The result of a coroutine, run on the loop; for hooks such as an async setup."""
        import asyncio

        return asyncio.run_coroutine_threadsafe(coroutine, self.loop()).result()

    def loop(self):
        """The event loop of async commands, started now if nobody has needed it."""
        with self._loop_lock:
            if self._loop is None:
                import asyncio

                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run_loop, name="snakepit-loop", daemon=True).start()
        return self._loop

    def _on_loop(self, run: Run) -> None:
        loop = self.loop()
        loop.call_soon_threadsafe(run.start_task, loop, self._over)

    def _work(self) -> None:
        take = self._queue.get
        while True:
            run = take()
            if run.execute():
                self._on_loop(run)
            else:
                self._over()
            run = None  # an idle thread keeps no request alive

    def _run_loop(self) -> None:
        while True:
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - SystemExit in a task that a command started
                print(f"snakepit_bridge: a task raised {error!r} into the event loop", file=sys.stderr)


class Deadlines:
    """Cancels runs whose budget has ended. One thread, asleep until the earliest deadline that it knows: a
    run that ends in time costs a comparison.
    """

    def __init__(self, live, cancel) -> None:
        self._live = live  # () -> the runs that have no outcome yet
        self._cancel = cancel
        self._wakes_at = _NEVER
        self._condition = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    def watch(self, run: Run) -> None:
        """Makes sure that the clock wakes in time for `run`, which is among the live ones already."""
        if run.deadline >= self._wakes_at:
            return
        with self._condition:
            self._wakes_at = min(self._wakes_at, run.deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._tick, name="snakepit-deadlines", daemon=True)
                self._thread.start()
            self._condition.notify()

    def _tick(self) -> None:
        while True:
            with self._condition:
                delay = self._wakes_at - time.monotonic()
                if delay > 0:
                    self._condition.wait(None if delay == _NEVER else delay)
                    continue
                self._wakes_at = _NEVER  # before looking: whoever comes later than the look sets it again
            self._expire()

    def _expire(self) -> None:
        now = time.monotonic()
        for run in self._live():
            if run.deadline <= now:
                self._cancel(run, DEADLINE)
            else:
                self.watch(run)
