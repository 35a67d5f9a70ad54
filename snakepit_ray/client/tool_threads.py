"""Threads for functions of users that block: as many as wait, and none that keeps a process from its end."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

MOST = 256  # of them in one process; what comes then waits
Job = Callable[[], None]
log = logging.getLogger("snakepit_ray")


class ToolThreads:
    """Runs jobs, each in a thread of its own for as long as it takes. A thread that is idle takes the
    next."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._count = 0
        self._free = 0  # threads that wait for a job, less the jobs that wait for one of them

    def run(self, job: Job) -> None:
        """Runs it soon. It raises nothing."""
        with self._lock:
            begins = self._free <= 0 and self._count < self._most
            self._count += begins
            self._free += begins - 1
        self._jobs.put(job)
        if begins:
            name = f"snakepit-tool-{self._count}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except BaseException:
                log.exception("a job of a tool failed")
            with self._lock:
                self._free += 1
