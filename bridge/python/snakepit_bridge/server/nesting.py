"""Requests that run inside of others: in the thread of a command that waits for its host, while it waits.

- Such a request comes from the very chain of calls that the command waits for: without it neither would end.
- It runs in the command's own thread, or, where both are async, on the loop beside it.
- Commands that run inside of each other share a thread: a request goes to the innermost of them.
- One that finds nobody waiting is given back, and never begins.
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

from snakepit_bridge.adapter import context as contexts
from snakepit_bridge.adapter.serving import complain


class Wait:
    """A command that waits in its thread: `queue` gets the requests that it is to run, and None at the end.
    `outer` waits below it in the same thread, `inner` above it; `runs` is what it runs now.
    """

    __slots__ = ("inner", "outer", "queue", "runs")

    def __init__(self, queue: SimpleQueue, outer: Wait | None) -> None:
        self.queue = queue
        self.outer = outer
        self.inner: Wait | None = None
        self.runs = None


class Nesting:
    """The commands of one attachment that wait in their own threads. `perform(run)` runs a request in the
    thread that calls it.
    """

    def __init__(self, perform) -> None:
        self._perform = perform
        self._waits: dict[str, Wait] = {}  # by request
        self._lock = threading.Lock()
        self._thread = threading.local()  # .top: its innermost wait

    def offer(self, request_id: str, run) -> bool:
        """Has the command of that request run `run` while it waits; False where it does not wait."""
        with self._lock:
            wait = self._waits.get(request_id)
            while wait is not None and wait.inner is not None:
                wait = wait.inner
            if wait is None or (wait.runs is not None and wait.runs.asynchronous):
                return False
            wait.queue.put(run)  # what it runs now may wait in its turn, and takes it along
        return True

    def wait(self, context, queue: SimpleQueue) -> None:
        """Waits until None is in the queue, and runs the requests that are in it before. What a signal
        handler raises while it waits comes out of it.
        """
        if not contexts.is_bound(context):  # a thread that the command has started
            queue.get()
            return
        wait = self._enter(context, queue)
        try:
            while (run := queue.get()) is not None:
                self._run(wait, run)
                contexts.bind(context)
        finally:
            self._leave(context, wait)

    def _enter(self, context, queue: SimpleQueue) -> Wait:
        outer = getattr(self._thread, "top", None)
        wait = Wait(queue, outer)
        with self._lock:
            if outer is not None:
                outer.inner = wait
                _move(outer.queue, queue)
            self._waits[context.request_id] = wait
        self._thread.top = wait
        return wait

    def _leave(self, context, wait: Wait) -> None:
        outer = wait.outer
        self._thread.top = outer
        with self._lock:
            self._waits.pop(context.request_id, None)
            if outer is not None:
                outer.inner = None
                _move(wait.queue, outer.queue)
        for run in _runs(wait.queue):
            run.recall()

    def _run(self, wait: Wait, run) -> None:
        wait.runs = run
        try:
            self._perform(run)
        except BaseException as late:  # noqa: BLE001 - e.g. of a signal handler, after its command ended
            if run.answered or not run.started:
                complain(late)
            else:
                run.lose(run.outcome(late))
        finally:
            wait.runs = None


def _runs(queue: SimpleQueue) -> list:
    """The requests in a queue; its end stays in it."""
    runs, ends = [], 0
    while True:
        try:
            run = queue.get_nowait()
        except Empty:
            break
        if run is None:
            ends += 1
        else:
            runs.append(run)
    for _ in range(ends):
        queue.put(None)
    return runs


def _move(source: SimpleQueue, target: SimpleQueue) -> None:
    for run in _runs(source):
        target.put(run)
