"""Commands over arrays, and what they see of where these lie."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pyarrow as pa
from snakepit_bridge import Adapter, command
from snakepit_bridge.server.arena import Arena


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
    def wait(self, x, path):
        """Makes a file of that name when it has begun, and then takes a minute."""
        with open(path, "w"):
            pass
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
    def counted(self, n):
        """The same array each time, one more than the last time."""
        if self.held is None:
            self.held = np.zeros(n)
        self.held += 1
        return self.held

    @command
    def total(self, x):
        """What every array in it sums up to."""
        items = x.values() if isinstance(x, dict) else x if isinstance(x, list) else [x]
        return float(sum(np.sum(item) for item in items))

    @command
    def chunks(self, n, count, path):
        """`count` arrays of `n` numbers; says in a file how many were made when it ends."""
        made = 0
        try:
            for value in range(count):
                made += 1
                yield np.full(n, float(value))
        finally:
            with open(path, "w") as file:
                file.write(str(made))

    @command
    def odd(self, kind):
        """A result that is more than its elements, or a table that nobody can read."""
        if kind == "masked":
            return np.ma.masked_array([1.0, -9999.0], mask=[0, 1])
        if kind == "unreadable":
            offsets, data = pa.py_buffer(np.array([0, 2], "i4")), pa.py_buffer(b"\xff\xfe")
            return pa.table({"s": pa.StringArray.from_buffers(1, offsets, data)})
        return np.longdouble(1) if kind == "longdouble" else {"kind": kind}

    @command
    def odd_stream(self, kinds):
        for kind in kinds:
            yield self.odd(kind)

    @command
    def lent(self):
        """How many results the host has not finished with."""
        (arena,) = [thing for thing in gc.get_objects() if isinstance(thing, Arena)]
        return len(arena._lent)
