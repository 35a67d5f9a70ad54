"""Commands of the stress run. Each writes its tag when it begins: the log shows what was executed."""

import asyncio
import ctypes
import gc
import os
import random
import time

from snakepit_bridge import Adapter, command
from snakepit_bridge.server.arena import Arena


class Stressed(Adapter):
    def __init__(self, log: str, setup_seconds: float = 0.0) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._setup_seconds = setup_seconds
        self._kept: list = []

    def setup(self):
        time.sleep(random.random() * self._setup_seconds)

    def _begins(self, tag):
        os.write(self._log, f"{tag} {os.getpid()}\n".encode())  # O_APPEND: whole lines, whoever writes

    @command
    def run(self, tag: str, seconds: float = 0.0):
        self._begins(tag)
        time.sleep(seconds)
        return tag

    @command(idempotent=True)
    def idem(self, tag: str, seconds: float = 0.0):
        self._begins(tag)
        time.sleep(seconds)
        return tag

    @command
    async def awaited(self, tag: str, seconds: float = 0.0):
        self._begins(tag)
        await asyncio.sleep(seconds)
        return tag

    @command
    def holds_gil(self, tag: str, seconds: float):
        self._begins(tag)
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        return tag

    @command
    def cooperative(self, ctx, tag: str, seconds: float):
        self._begins(tag)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ctx.raise_if_cancelled()
            time.sleep(0.003)
        return tag

    @command
    def raises(self, tag: str):
        self._begins(tag)
        raise KeyError(tag)

    @command
    def asks_host(self, ctx, tag: str):
        self._begins(tag)
        try:
            ctx.host("no.such")
        except Exception as error:
            return f"{tag} {type(error).__name__}"
        return tag

    @command
    def array(self, tag: str, x, keep: bool = False):
        self._begins(tag)
        if keep:
            self._kept = [*self._kept[-2:], x]
        return {"tag": tag, "y": x + 1}

    @command
    def item(self, tag: str, bad: bool = False, seconds: float = 0.0):
        self._begins(tag)
        time.sleep(seconds)
        if bad:
            raise ValueError(tag)
        return tag

    @command
    def stream(self, tag: str, count: int, size: int = 0, pause: float = 0.0):
        self._begins(tag)
        for index in range(count):
            time.sleep(pause)
            yield _chunk(index, size)

    @command
    async def astream(self, tag: str, count: int, size: int = 0, pause: float = 0.0):
        self._begins(tag)
        for index in range(count):
            await asyncio.sleep(pause)
            yield _chunk(index, size)

    @command
    def forget(self):
        self._kept = []

    @command
    def held(self):
        """What the interpreter still holds of both memories."""
        gc.collect()
        (arena,) = [one for one in gc.get_objects() if type(one) is Arena]
        return {"results": arena._gaps.used, "arguments": len(arena._lent)}


def _chunk(index: int, size: int):
    if not size:
        return index
    import numpy as np

    return np.full(size, index % 256, "u1")
