"""A call as a concurrent.futures.Future.

- Ray delivers an answer on a thread that every answer of the process needs. Nothing of ours or of a user's
  runs there: it only passes the answer on.
- One thread decodes the answers and settles the futures. Another one runs their done-callbacks. A callback
  that blocks holds up other callbacks, and nothing else: it may make calls and wait for futures.
- Cancelling a future cancels the request, waiting or running. There is one outcome, whoever is first.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from snakepit_ray.client.sender import Sender, Sent
from snakepit_ray.wire.codec import Envelope

log = logging.getLogger("snakepit_ray")


class CallFuture(concurrent.futures.Future[Any]):
    """The outcome of one call. Made by `pool.submit`."""

    def __init__(self, sent: Sent, sender: Sender) -> None:
        super().__init__()
        self._sent = sent
        self._sender = sender
        self._settling = threading.Lock()
        self._ticket = sender.arm(sent, self._expired)
        sent.ref.future().add_done_callback(self._answered)

    def cancel(self) -> bool:
        """Cancels the request, also one that runs; False when there is an outcome already."""
        with self._settling:
            if self.done():
                return self.cancelled()
            super().cancel()
        self.set_running_or_notify_cancel()  # whoever waits for it knows at once
        self._over()
        self._sender.cancel(self._sent)
        return True

    def result(self, timeout: float | None = None) -> Any:
        """The value, or one of our errors. Interrupting the wait (Ctrl-C) cancels the command."""
        try:
            return super().result(timeout)
        except KeyboardInterrupt:
            self.cancel()
            raise

    def _invoke_callbacks(self) -> None:
        """The base class calls it when there is an outcome and whoever waits has been woken."""
        if self._done_callbacks:  # type: ignore[attr-defined]
            _callbacks.put(super()._invoke_callbacks)  # type: ignore[misc]

    def _answered(self, answer: concurrent.futures.Future[Any]) -> None:
        _answers.put(lambda: self._settle(answer))

    def _settle(self, answer: concurrent.futures.Future[Any]) -> None:
        error = answer.exception()
        value = None
        if error is None:
            try:
                value = answer.result()
                if isinstance(value, Envelope):
                    value = value.value()
            except Exception as raised:  # noqa: BLE001 - user code among it: a runtime's process_response
                error = raised
        elif isinstance(error, Exception):
            error = self._sender.our(error, self._sent)
            again = None if self.done() else self._sender.again(self._sent, error)
            if again is not None:
                self._follow(again)
                return
        self._end(value, error)

    def _follow(self, sent: Sent) -> None:
        """The call was sent once more: this is its outcome now."""
        self._over()
        self._sent = sent
        self._ticket = self._sender.arm(sent, self._expired)
        sent.ref.future().add_done_callback(self._answered)

    def _expired(self, is_over: bool) -> None:
        error = self._sender.gave_up(self._sent, is_over)
        _answers.put(lambda: self._end(None, error))
        if not is_over:
            self._sender.cancel(self._sent)

    def _end(self, value: Any, error: BaseException | None) -> None:
        with self._settling:
            if self.done() or not self.set_running_or_notify_cancel():
                return
            self._over()
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)

    def _over(self) -> None:
        self._ticket.disarm()
        self._sender.ended(self._sent)


class _Worker:
    """Runs what is put into it, one after the other, in a thread of its own that begins with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, work: Callable[[], None]) -> None:
        self._work.put(work)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self._work.get()()
            except Exception:
                log.exception("%s: an outcome was not handed on", self._name)


_answers = _Worker("snakepit-answers")
_callbacks = _Worker("snakepit-callbacks")


def _begin_anew() -> None:
    global _answers, _callbacks
    _answers, _callbacks = _Worker("snakepit-answers"), _Worker("snakepit-callbacks")


os.register_at_fork(after_in_child=_begin_anew)
