"""What a forked child must not share with its interpreter: signal handlers, descriptors, requests.

Rules:
- Signals are blocked around a fork, so that no handler of the interpreter ever runs in the child: a signal
  that reaches the child early waits until the child has default handlers.
- Handlers that the user has installed are inherited, as in any program; only the bridge's own are replaced.
- A child that comes back from a command ends there. It has no host, and its requests are its parent's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

is_child = False  # of an interpreter: this process was forked by a command
_everything = range(1, signal.NSIG)
_handlers: dict = {}  # signal number: (the bridge's handler, the one that a child gets)
_descriptors: set[int] = set()
_mask = threading.local()


def watch() -> None:
    """Has every fork of this process from now on make its child independent."""
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_become_a_child)


def handle(number: int, handler, in_child=signal.SIG_DFL) -> None:
    """Installs a signal handler that forked children do not inherit; they get `in_child`."""
    signal.signal(number, handler)
    _handlers[number] = (handler, in_child)


def keep(descriptor: int) -> int:
    """Marks a descriptor as the interpreter's own: closed in children, forked or not. Returns it."""
    os.set_inheritable(descriptor, False)
    _descriptors.add(descriptor)
    return descriptor


def close(descriptor: int) -> None:
    """Closes a descriptor that was kept."""
    _descriptors.discard(descriptor)  # first: its number may belong to another file at once
    os.close(descriptor)


def leave(error: BaseException | None) -> None:
    """Ends this forked child with what its command came to, as a program that has come to its last line."""
    status = 0
    try:
        status = _status_of(error)
        if isinstance(error, KeyboardInterrupt):
            _die_of_an_interrupt()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _status_of(error: BaseException | None) -> int:
    if error is None:
        return 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return (error.code or 0) & 0xFF
    if isinstance(error, SystemExit):
        print(error.code, file=sys.stderr)
    else:
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
    return 1


def _block() -> None:
    _mask.old = signal.pthread_sigmask(signal.SIG_BLOCK, _everything)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.old)


def _become_a_child() -> None:
    global is_child
    is_child = True
    try:
        signal.set_wakeup_fd(-1)  # the pipe behind it is the parent's
        for number, (ours, usual) in _handlers.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, usual)
        for descriptor in _descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        _descriptors.clear()
    finally:
        try:
            _unblock()
        except KeyboardInterrupt:  # it waited; raised in here it would be lost
            _die_of_an_interrupt()


def _die_of_an_interrupt() -> None:
    """What Python does at the end of a program that does not catch KeyboardInterrupt."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
