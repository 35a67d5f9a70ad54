"""Commands over arrays, and what they see of where these lie."""

from __future__ import annotations

import gc
import threading

import numpy as np
from snakepit_bridge import Adapter, command
from snakepit_bridge.arena import Arena


class Arrays(Adapter):
    def __init__(self) -> None:
        self.held = None

    @command
    def same(self, x):
        return x

    @command
    def plus_one(self, x):
        return x + 1

    @command
    def filled(self, n, value):
        return np.full(n, value)

    @command
    def keep(self, x):
        self.held = x

    @command
    def kept(self):
        return self.held

    @command
    def forget(self):
        self.held = None

    @command
    def wait(self, x):
        threading.Event().wait(60)

    @command
    def where(self, x):
        """The name of the memory that an array lies in."""
        address = x.__array_interface__["data"][0]
        with open("/proc/self/maps") as maps:
            for line in maps:
                begin, end = (int(part, 16) for part in line.split()[0].split("-"))
                if begin <= address < end:
                    return {"memory": line.split(None, 5)[5].strip(), "writeable": x.flags.writeable}
        return None

    @command
    def lent(self):
        """How many results the host has not finished with."""
        (arena,) = [thing for thing in gc.get_objects() if isinstance(thing, Arena)]
        return len(arena._lent)
