"""Knows a call as a concurrent.futures.Future.

Rules: no thread for it: the answer is taken on the thread that Ray delivers it on; cancelling it cancels the
request, waiting or running; one outcome, whoever is first."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

import ray

from snakepit_ray.sending import Sender


class CallFuture(concurrent.futures.Future[Any]):
    """The outcome of one call. Made by `pool.submit`."""

    def __init__(self, ref: Any, sender: Sender, timeout: float | None) -> None:
        super().__init__()
        self._ref = ref
        self._sender = sender
        self._timeout = timeout
        self._settling = threading.Lock()
        ref.future().add_done_callback(self._answered)

    def cancel(self) -> bool:
        """Cancels the request, also one that runs; False when there is an outcome already."""
        with self._settling:
            if self.done():
                return self.cancelled()
            super().cancel()
        self.set_running_or_notify_cancel()  # whoever waits for it knows at once
        ray.cancel(self._ref)
        return True

    def _answered(self, answer: concurrent.futures.Future[Any]) -> None:
        with self._settling:
            if self.cancelled() or not self.set_running_or_notify_cancel():
                return
        error = answer.exception()
        if error is None:
            self.set_result(answer.result())
        else:
            self.set_exception(
                self._sender.our(error, self._timeout) if isinstance(error, Exception) else error
            )
