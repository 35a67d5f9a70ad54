"""Signals of the interpreter, noticed at once whatever the main thread does.

Python runs a signal handler in the main thread, between two of its steps: a command that is inside a long
call into C would hold it up. So the handlers here are also called by a thread, which the C half of Python's
signal handling wakes through a pipe. A user who installs another wake-up descriptor gets that, and the
handlers are called by the main thread alone.

Rules: a handler may be called twice for one signal, so it must not mind; forked children get the default
handlers (forks.py); a program that a command starts gets them as well, because exec resets handlers.
"""

from __future__ import annotations

import os
import signal
import threading

from snakepit_bridge.lifeline import forks

_handlers: dict = {}


def listen() -> None:
    """Frees SIGINT and starts the thread that watches. Called once, in the main thread."""
    forks.watch()
    # Ctrl-C in a terminal belongs to the host. A handler, not SIG_IGN: programs would inherit that through
    # exec. A Ray worker's children inherit the signal blocked, which nothing could undo later.
    forks.handle(signal.SIGINT, _belongs_to_the_host, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    reading, writing = map(forks.keep, os.pipe())
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), name="snakepit-signals", daemon=True).start()


def handle(number: int, handler) -> None:
    """Has `handler()` called when the signal comes, in the main thread and in the one that watches."""
    _handlers[int(number)] = handler
    forks.handle(number, handler)


def _belongs_to_the_host(*_) -> None:
    """Nothing is to be done."""


def _watch(descriptor: int) -> None:
    while True:
        for number in os.read(descriptor, 64):
            handler = _handlers.get(number)
            if handler is not None:
                handler()
