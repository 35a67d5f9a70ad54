"""The threads of the thread profile: sync commands run in several, async ones on a loop in one of its own."""

from __future__ import annotations

import threading
from collections import deque
from contextvars import copy_context
from queue import SimpleQueue

from snakepit_bridge.adapter.serving import (
    adopt,
    cancel,
    complain,
    get,
    keep,
    recover,
    run_for_ever,
    with_context,
)


class Threads:
    """Runs sync commands in `capacity` threads and async ones on one loop."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: SimpleQueue = SimpleQueue()
        self._waiting: deque = deque()  # those for which there was no slot
        self._held: set = set()  # the runs that have a slot: giving one back twice frees one
        self._lock = threading.Lock()
        self._loop = None
        self._loop_lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._context = copy_context()
        self._finished = threading.Event()

    def start(self) -> None:
        """Starts the threads, with the ContextVars of this one."""
        self._context = copy_context()
        for number in range(self._capacity):
            self._start(self._work, f"snakepit-command-{number}", copy_context())

    def submit(self, run) -> None:
        """Runs it as soon as there is a slot."""
        self._waiting.append(run)
        self._fill()

    def perform(self, run) -> None:
        """Runs it here, in a thread whose command waits."""
        if run.execute():
            self._on_loop(run)

    def beside(self, run) -> bool:
        """Runs an async command on the loop, without a slot: another one waits there, and has one."""
        return bool(run.begin() and self._on_loop(run))

    def cancel(self, run, kind: int) -> None:
        """Cancels a run, wherever it is."""
        cancel(run, kind, self._loop)

    def serve(self) -> None:
        """Waits until `finish` is called; the main thread has nothing else to do but handle signals."""
        while not self._finished.is_set():
            try:
                self._finished.wait()
            except BaseException as error:  # noqa: BLE001 - of a signal handler of the user's
                complain(error)

    def finish(self) -> None:
        """Has `serve` return."""
        self._finished.set()

    def wait(self, awaitable):
        """The result of an awaitable of a hook, run on the loop. The ContextVars that it sets stay."""
        import asyncio

        result, context = asyncio.run_coroutine_threadsafe(with_context(awaitable), self.loop()).result()
        adopt(context)
        return result

    def is_alive(self) -> bool:
        """Whether every thread that serves does."""
        return all(thread.is_alive() for thread in self._threads)

    def loop(self):
        """The event loop of async commands, started now if nothing has needed it yet. Raises OSError,
        RuntimeError where the system has no descriptor or thread left.
        """
        with self._loop_lock:
            if self._loop is None:
                import asyncio

                loop = asyncio.new_event_loop()
                try:
                    self._start(lambda: run_for_ever(loop), "snakepit-loop", self._context.copy())
                except BaseException:
                    loop.close()
                    raise
                self._loop = loop
        return self._loop

    def _start(self, work, name: str, context) -> None:
        thread = threading.Thread(target=context.run, args=(work,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _fill(self) -> None:
        with self._lock:
            while self._waiting and len(self._held) < self._capacity:
                run = self._waiting[0]
                self._held.add(run)
                if not self._hand_over(run):
                    self._held.discard(run)
                self._waiting.popleft()

    def _hand_over(self, run) -> bool:
        if not run.asynchronous:
            self._queue.put(run)
            return True
        return run.begin() and self._on_loop(run)

    def _on_loop(self, run) -> bool:
        try:
            loop = self.loop()
            loop.call_soon_threadsafe(run.start_task, loop, self._task_over, context=self._context)
        except Exception as error:  # noqa: BLE001 - there is no loop for it
            run.lose(error)
            return False
        return True

    def _task_over(self, run) -> None:
        if run.has_rest:
            self._queue.put(run)  # it has its slot still, so there is a thread without work
        else:
            self._over(run)

    def _over(self, run) -> None:
        if not run.answered:  # an exception had it handed over twice, and it runs in the other thread
            return
        self._held.discard(run)
        if self._waiting:
            self._fill()

    def _work(self) -> None:
        keep(self._serve, lambda: False)

    def _serve(self, taken: list, error: BaseException | None) -> None:
        while True:
            try:
                if error is not None:
                    self._recover(taken, error)
                    error = None
                if not taken:
                    get(self._queue, taken)
                if not taken[0].execute() or not self._on_loop(taken[0]):
                    self._over(taken[0])
                taken.clear()
            except BaseException as late:  # noqa: BLE001 - a thread timeout that came after its command
                error = late

    def _recover(self, taken: list, error: BaseException) -> None:
        run = taken[0] if taken else None
        recover(taken, error)
        if run is not None and not taken:
            self._over(run)
