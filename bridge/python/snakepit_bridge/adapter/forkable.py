"""Whether a process that has imported an adapter may be forked into interpreters, and why not.

Rule: a forked interpreter must not differ from an executed one in anything that its commands can see. What
the import has started, opened or drawn would be shared by all that are forked, so such an adapter is executed
each time. What cannot be seen from here is the adapter's to say: `__forkable__ = False` in its class.
"""

from __future__ import annotations

import os
import signal
import sys

from snakepit_bridge.adapter import protocol

PATHS_OF_NOTHING = ("/dev/null", "/dev/urandom", "/dev/random")  # to share these is to share nothing


def allows(kind: type) -> bool:
    """Whether an adapter's class lets its interpreters be forked, as far as the class says. A script that
    serves itself is at its end when it is imported.
    """
    named = getattr(kind, "__forkable__", True) is not False
    return named and sys.platform.startswith("linux") and not protocol.served()


class Before:
    """What this process has before it imports the adapter. `why_not` says what the import has made of it."""

    def __init__(self) -> None:
        import random

        self._descriptors = set(_descriptors())
        self._handlers = _handlers()
        self._drawn = random.getstate()

    def why_not(self, kind) -> str:
        """Why no interpreter can be forked from this process; "" where nothing speaks against it."""
        checks = (_refusal(kind), _threads(), self._opened(), _started(), _graphics(), self._signals())
        return next(filter(None, (*checks, self._random())), "")

    def _opened(self) -> str:
        for number, path in _descriptors().items():
            if number not in self._descriptors and path not in PATHS_OF_NOTHING:
                return f"its import opens {path}, which all interpreters would share"
        return ""

    def _signals(self) -> str:
        if _handlers() != self._handlers or signal.getitimer(signal.ITIMER_REAL)[0]:
            return "its import handles signals or sets a timer"
        return ""

    def _random(self) -> str:
        import random

        if random.getstate() != self._drawn:
            return "its import seeds or uses the generator of `random`"
        for name, module in list(sys.modules.items()):
            for key, value in list((getattr(module, "__dict__", None) or {}).items()):
                if _is_generator(value):
                    return (
                        f"{name}.{key} is a generator of random numbers, which all interpreters would share"
                    )
        return ""


def _refusal(kind) -> str:
    if not isinstance(kind, type):  # loading.create says what it is instead
        return "it is not a class"
    return "" if allows(kind) else f"{kind.__name__} says __forkable__ = False"


def _descriptors() -> dict:
    """What is behind each open descriptor."""
    found = {}
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # of the directory that was listed
            continue
    return found


def _threads() -> str:
    count = len(os.listdir("/proc/self/task"))
    return f"its import starts threads ({count - 1}), which a fork would lose" if count > 1 else ""


def _started() -> str:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return ""
    return "its import starts processes"


def _graphics() -> str:
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return "its import begins CUDA"
    return ""


def _handlers() -> list:
    return [signal.getsignal(number) for number in range(1, signal.NSIG)]


def _is_generator(value) -> bool:
    """Of a kind whose state a fork copies. One that draws from the system has no state."""
    kind = type(value)
    if str(kind.__module__).startswith("numpy.random"):
        numpy = sys.modules.get("numpy.random")
        ours = getattr(getattr(numpy, "mtrand", None), "_rand", None)
        return kind.__name__ in ("Generator", "RandomState") and value is not ours
    random = sys.modules["random"]
    # By the type: a proxy may import what it stands for when it is asked for its class.
    if not issubclass(kind, random.Random) or issubclass(kind, random.SystemRandom):
        return False
    return value is not random._inst
