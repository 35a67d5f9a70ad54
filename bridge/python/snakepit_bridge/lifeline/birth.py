"""What makes a forked interpreter a process of its own: its token, its mark, its random numbers.

The token stands in the environment that `/proc/PID/environ` shows, which is memory of this process: it is
overwritten there, so that a host finds the process and what that forks. Programs that it executes get the
token from `os.environ`.
"""

from __future__ import annotations

import contextlib
import os
import sys

from snakepit_bridge.lifeline.lifeline import RLIMIT_LOCKS, TOKEN_VARIABLE

ENVIRONMENT_FIELD = 50  # of /proc/PID/stat, proc(5): where the environment begins


def can_be_renamed() -> bool:
    """Whether the system lets this process overwrite its token; done with the token that it has."""
    try:
        write_token(os.environ[TOKEN_VARIABLE])
    except (OSError, KeyError, ValueError):
        return False
    return True


def be(token: str, mark) -> None:
    """This process is from now on that of `token`, with the limit of file locks `mark` (None: as it is).

    Raises OSError or ValueError where the system or a program that wrote over its environment is in the way.
    """
    write_token(token)
    os.environ[TOKEN_VARIABLE] = token
    if mark is not None:
        import resource

        resource.setrlimit(RLIMIT_LOCKS, (mark, resource.getrlimit(RLIMIT_LOCKS)[1]))
    _reseed()


def write_token(token: str) -> None:
    """Puts `token` in the place of this process's, which has the same length."""
    entry = f"{TOKEN_VARIABLE}={os.environ[TOKEN_VARIABLE]}".encode() + b"\0"
    new = f"{TOKEN_VARIABLE}={token}".encode() + b"\0"
    with open("/proc/self/environ", "rb") as file:
        place = (b"\0" + file.read()).find(b"\0" + entry)
    if place < 0 or len(new) != len(entry):
        raise ValueError("the token is not where the environment begins")
    with open("/proc/self/stat", "rb") as file:
        start = int(file.read().rpartition(b")")[2].split()[ENVIRONMENT_FIELD - 3])
    memory = os.open("/proc/self/mem", os.O_RDWR)
    try:
        os.pwrite(memory, new, start + place)
    finally:
        os.close(memory)


def _reseed() -> None:
    """Python's own generator seeds itself in a forked child. Those of libraries do not."""
    for name in ("numpy.random", "torch.random"):
        module = sys.modules.get(name)
        if module is not None:
            with contextlib.suppress(Exception):  # a library that has no such function any more
                module.seed()
