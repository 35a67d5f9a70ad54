"""One request from its arrival to its outcome.

Rules:
- A run has exactly one outcome. A run that was cancelled or recalled before it began never begins.
- Whatever a command raises, SystemExit included, is the outcome of that run and of nothing else.
- What a command does in a process that it forked is no outcome: that process ends where the command does.
"""

from __future__ import annotations

import sys
import time
from types import CoroutineType

from snakepit_bridge.adapter import context as contexts
from snakepit_bridge.lifeline import forks
from snakepit_bridge.values.failures import CANCELLED, DEADLINE, Stopped

_NEVER = float("inf")
_RUNS, _ENDS = "runs", "ends"


class Rest:
    """What an async command leaves to be done where it may block: `work()` gives the value."""

    __slots__ = ("work",)

    def __init__(self, work) -> None:
        self.work = work


class Run:
    """One request. `work(run)` gives the value or a coroutine of it; `done(run, value, error)` sends the
    outcome and appends to `answers` when it has.
    """

    __slots__ = (
        "_claim",
        "_coroutine",
        "_rest",
        "_stepped",
        "_task",
        "answers",
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
        self.answers: list = []  # not empty: it has its outcome
        # What is there first decides: _RUNS of the thread that runs it, or _ENDS of the one that cancels. A
        # claim can be repeated by its side, after an exception that came between claim and use.
        self._claim: dict = {}
        self._task = None
        self._coroutine = None
        self._rest = None
        self._stepped = False  # of an async command: it has come to its first line

    @property
    def answered(self) -> bool:
        """Whether it has its outcome."""
        return bool(self.answers)

    def begin(self) -> bool:
        """Whether the run may start: nobody has cancelled it."""
        if self.started or self._claim.setdefault(0, _RUNS) is not _RUNS:
            return False
        self.started = self.context._started = time.perf_counter_ns()
        if self.mark is not None:
            words, place = self.mark
            words[place] = 1
        return True

    def end(self, value, error: BaseException | None) -> None:
        """Gives the outcome. Where the outcome cannot be made, what prevents it is the outcome."""
        if forks.is_child:
            forks.leave(error)
        if self.answered:
            return
        try:
            self.done(self, value, error)
        except BaseException as broken:  # noqa: BLE001 - an exception of a signal handler, memory, ...
            if not self.answered:
                self.done(self, None, broken)

    def refuse(self, error: BaseException) -> None:
        """It cannot be run: `error` is its outcome, unless it has begun."""
        if self._ends_here():
            self.end(None, error)

    def lose(self, error: BaseException) -> None:
        """Something other than the command failed after the run began: `error` is the outcome if there is
        none yet.
        """
        self.end(None, error)

    def cancel(self, kind: int) -> None:
        """Tells the command to stop; the first reason counts. One that has not begun ends here."""
        if self.kind:
            return
        self.kind = kind
        self.context._cancel()
        if self._ends_here():
            self.end(None, self.stopped())

    def recall(self) -> None:
        """The host takes it back: it ends here if it has not begun, else nothing happens."""
        if not self.kind and self._ends_here():
            self.end(None, Stopped(CANCELLED, f"{self.context.command}: it was recalled"))

    def _ends_here(self) -> bool:
        return self._claim.setdefault(0, _ENDS) is _ENDS and not self.answered

    def stopped(self) -> Stopped:
        """The error of a cancelled run."""
        words = "its budget ended" if self.kind == DEADLINE else "it was cancelled"
        return Stopped(self.kind, f"{self.context.command}: {words}")

    def execute(self) -> bool:
        """Runs in this thread what need not be awaited; True when a coroutine is left for an event loop."""
        rest, self._rest = self._rest, None
        if rest is None and not self.begin():
            return False
        contexts.bind(self.context)
        try:
            value = self.work(self) if rest is None else rest()
        except BaseException as error:  # noqa: BLE001 - SystemExit of a command is a failure of that command
            self.end(None, self.outcome(error))
            return False
        if type(value) is CoroutineType:
            self._coroutine = value
            self.asynchronous = True
            return True
        self.end(value, None)
        return False

    @property
    def ran_us(self) -> int:
        """Microseconds since it began, at least 1; 0 where it never did, which is how a host tells."""
        if not self.started:
            return 0
        return max(1, (time.perf_counter_ns() - self.started) // 1000)

    @property
    def has_rest(self) -> bool:
        """Whether an async command has left something that must run in a thread (`execute` again)."""
        return self._rest is not None

    # These run on the loop: a cancellation comes before the task's first step or after it.

    def start_task(self, loop, over=None):
        """Starts the task of an async command; `over(run)` is called when it has ended."""
        self._task = task = loop.create_task(self._aexecute())
        task.add_done_callback(lambda _: self._task_over(over))
        if self.kind:
            task.cancel()
        return task

    def _task_over(self, over) -> None:
        try:
            if not self._stepped:  # cancelled before its first step: nobody has given its outcome
                if self._coroutine is not None:
                    self._coroutine.close()
                self.end(None, self.stopped())
        finally:
            if over is not None:
                over(self)

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
            self.end(None, self.outcome(error))
            return
        if type(value) is Rest:
            self._rest = value.work
            return
        self.end(value, None)

    def outcome(self, error: BaseException) -> BaseException:
        """What an error of the command is: the end of a run that was told to stop, or itself."""
        return self.stopped() if self.kind and is_cancellation(error) else error


def is_cancellation(error: BaseException) -> bool:
    """Whether an exception says that its command stopped because it was told to."""
    if isinstance(error, contexts.Cancelled):
        return True
    names = (("asyncio", "CancelledError"), ("concurrent.futures", "CancelledError"))
    modules = ((sys.modules.get(module), name) for module, name in names)
    return any(isinstance(error, getattr(module, name, ())) for module, name in modules)
