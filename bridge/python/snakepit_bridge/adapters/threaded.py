"""Adapters whose commands may run at the same time."""

from __future__ import annotations

import threading

from snakepit_bridge.adapter.commands import Adapter


class ThreadSafeAdapter(Adapter):
    """Declares that commands may run at the same time, as the thread profile needs; brings a lock and values
    of one thread.

    What is only read needs neither; what is written needs `with self.acquire_lock():`; what cannot be shared
    goes into the thread's own values.
    """

    __thread_safe__ = True

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)  # here, so that a subclass need not call super().__init__()
        self.lock = threading.RLock()
        self._of_thread = threading.local()
        return self

    def acquire_lock(self):
        """The adapter's lock, for `with`; one thread may take it again."""
        return self.lock

    def get_thread_local(self, key: str, default=None):
        """This thread's value of `key`."""
        return getattr(self._of_thread, key, default)

    def set_thread_local(self, key: str, value) -> None:
        """Sets this thread's value of `key`."""
        setattr(self._of_thread, key, value)

    def clear_thread_local(self, key: str | None = None) -> None:
        """Forgets this thread's value of `key`, or all of them."""
        if key is None:
            vars(self._of_thread).clear()
        else:
            vars(self._of_thread).pop(key, None)
