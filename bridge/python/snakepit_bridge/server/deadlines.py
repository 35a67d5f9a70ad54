"""The clock of one interpreter: it cancels the runs whose budget has ended.

Rule: one thread, asleep until the earliest deadline that it has been told. A run that ends in time costs one
comparison.
"""

from __future__ import annotations

import sys
import threading
import time

from snakepit_bridge.values.failures import DEADLINE

_NEVER = float("inf")


class Deadlines:
    """`live()` gives the runs without an outcome, `cancel(run, kind)` ends one."""

    def __init__(self, live, cancel) -> None:
        self._live = live
        self._cancel = cancel
        self._wakes_at = _NEVER
        self._condition = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None

    def watch(self, run) -> None:
        """Makes sure that the clock wakes in time for `run`, which is among the live ones already."""
        if run.deadline >= self._wakes_at:
            return
        with self._condition:
            if self._thread is None:
                thread = threading.Thread(target=self._tick, name="snakepit-deadlines", daemon=True)
                thread.start()  # before it is noted: where no thread is left the next run tries again
                self._thread = thread
            self._wakes_at = min(self._wakes_at, run.deadline)
            self._condition.notify()

    def is_alive(self) -> bool:
        """Whether deadlines are kept."""
        return self._thread is None or self._thread.is_alive()

    def _tick(self) -> None:
        while True:
            with self._condition:
                delay = self._wakes_at - time.monotonic()
                if delay > 0:
                    self._condition.wait(None if delay == _NEVER else min(delay, threading.TIMEOUT_MAX))
                    continue
                self._wakes_at = _NEVER  # before looking: a run that comes later than the look sets it again
            self._expire()

    def _expire(self) -> None:
        now = time.monotonic()
        for run in self._live():
            try:
                if run.deadline <= now:
                    self._cancel(run, DEADLINE)
                else:
                    self.watch(run)
            except Exception as error:  # noqa: BLE001 - one run's trouble must not stop the clock of all
                print(f"snakepit_bridge: {run.context.command}: its deadline: {error!r}", file=sys.stderr)
