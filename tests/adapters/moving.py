"""An adapter whose sessions have state that moves: it writes down which hook was called for whom."""

import asyncio
import os
import time
from pathlib import Path

import numpy as np
from snakepit_bridge import Adapter, command


class Moving(Adapter):
    """`broken`: what goes wrong with a session, by its id: a word of `_breaks`."""

    __thread_safe__ = True

    def __init__(self, path, broken=None):
        self.path = path
        self.broken = broken or {}
        self.counts = {}

    def note(self, *words):
        with open(self.path, "a") as file:
            file.write(" ".join(words) + "\n")

    def on_session_start(self, session_id):
        self.note("start", session_id)
        self.counts[session_id] = 0

    def on_session_end(self, session_id, reason):
        self.note("end", session_id, reason)
        if self.broken.get(session_id) == "end_raises":
            raise ValueError("no end")

    def on_session_save(self, session_id):
        self.note("save", session_id)
        self._breaks("save", session_id)
        size = 20_000_000 if self.broken.get(session_id) == "large" else 20_000
        return {"count": self.counts.pop(session_id), "array": np.arange(size, dtype="u1")}

    def on_session_restore(self, session_id, state):
        self.note("restore", session_id)
        self._breaks("restore", session_id)
        assert state["array"].dtype == np.uint8 and state["array"][255] == 255
        self.counts[session_id] = state["count"]

    def _breaks(self, hook, session_id):
        how = self.broken.get(session_id)
        if how == f"{hook}_raises":
            raise LookupError("nothing there")
        if how == f"{hook}_hangs":
            time.sleep(60)
        if how == f"{hook}_dies_once" and not Path(self.path + ".died").exists():
            Path(self.path + ".died").touch()
            os._exit(3)

    @command
    def count(self, ctx):
        self.counts[ctx.session_id] += 1
        return {"count": self.counts[ctx.session_id], "pid": os.getpid()}

    @command
    def count_until(self, ctx, path: str):
        self.note("begun", ctx.session_id)
        while not Path(path).exists():
            time.sleep(0.002)
        return self.count(ctx)


class Awaiting(Moving):
    """The same, with hooks that are awaited."""

    async def on_session_save(self, session_id):
        await asyncio.sleep(0)
        return Moving.on_session_save(self, session_id)

    async def on_session_restore(self, session_id, state):
        await asyncio.sleep(0)
        Moving.on_session_restore(self, session_id, state)

    async def on_session_end(self, session_id, reason):
        await asyncio.sleep(0)
        Moving.on_session_end(self, session_id, reason)


class Unrestorable(Moving):
    on_session_restore = Adapter.on_session_restore
