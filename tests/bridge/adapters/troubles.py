"""Commands that meet what goes wrong around a command."""

import array
import asyncio
import ctypes
import os
import queue
import resource
import threading
import time
from typing import Literal

import snakepit_bridge
from snakepit_bridge import Adapter, ThreadSafeAdapter, command


class Growing:
    """A result with a state of its own."""

    def __init__(self, values):
        self.values = values

    def to_dict(self):
        return {"values": list(self.values)}


class Unspeakable(Exception):
    __module__ = 5


class Troubles(Adapter):
    def __init__(self):
        self.state = {"n": 0}
        self.nested = {"inner": {"n": 0}}
        self.list = []
        self.object = Growing([])
        self.contexts = []
        self.closed = 0
        self.orders = queue.SimpleQueue()
        threading.Thread(target=self.strike, daemon=True).start()

    @command
    def grow(self, kind: str):
        self.state["n"] += 1
        self.nested["inner"]["n"] += 1
        self.list.append(len(self.list))
        self.object.values.append(1)
        kinds = {"dict": self.state, "nested": self.nested, "list": self.list, "object": self.object}
        if kind == "fresh":
            return {"n": self.state["n"]}
        if kind == "mixed":
            return [self.state, 5, self.nested, "x"][self.state["n"] % 4]
        return kinds[kind]

    @command
    async def grow_later(self):
        self.state["n"] += 1
        await asyncio.sleep(0)
        return self.state

    @command
    def lose_the_directory(self, path: str):
        os.mkdir(path)
        os.chdir(path)
        os.rmdir(path)
        exec(compile("raise ValueError('from nowhere')", "<string>", "exec"))

    @command
    def fails_unspeakably(self):
        raise Unspeakable("x")

    @command
    def asks_with(self, ctx, kind: str):
        return ctx.host({"number": 5, "surrogate": "\ud800"}[kind])

    @command
    def echo(self, value=None):
        return value

    @command
    async def aecho(self, value=None):
        await asyncio.sleep(0)
        return value

    @command
    def limit_descriptors(self, count: int):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        used = len(os.listdir("/proc/self/fd")) if count >= 0 else most
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(used + count, most), most))

    @command
    def raise_late(self, seconds: float, ahead: int):
        """As a timeout that another thread keeps: an exception for this thread, maybe after its command."""
        self.orders.put((threading.get_ident(), seconds, ahead))

    def strike(self):
        """One thread for all: CPython may give such an exception to a thread that is just being started."""
        while True:
            victim, seconds, count = self.orders.get()
            time.sleep(seconds)
            for _ in range(count):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(victim), ctypes.py_object(TimeoutError)
                )
                time.sleep(0)

    @command
    async def large_chunks(self):
        try:
            for _ in range(100):
                yield b"x" * 1_000_000
        finally:
            self.closed += 1

    @command
    def large_chunks_sync(self):
        try:
            for _ in range(100):
                yield b"x" * 1_000_000
        finally:
            self.closed += 1

    @command
    async def how_many_closed(self):
        return self.closed

    @command
    async def returns_blocking(self, ctx, tag: str = ""):
        def blocking():
            for i in range(100):
                yield {"i": i, "same": snakepit_bridge.current() is ctx, "x": "y" * 300_000}

        return blocking()

    @command
    async def keeps_reporting(self, ctx):
        self.contexts.append(ctx)
        yield 1

    @command
    def report_late(self):
        self.contexts[-1].progress(1, 2)

    @command
    @staticmethod
    def above_static(a: int):
        return a

    @staticmethod
    @command
    def below_static(a: int):
        return a

    @command
    @classmethod
    def above_class(cls, a: int):
        return [cls.__name__, a]

    @classmethod
    @command
    def below_class(cls, a: int):
        return [cls.__name__, a]

    @command
    def choose(
        self,
        plain: Literal["a", "b"] = None,  # noqa: RUF013 - as it is written in the wild
        written: Literal["a", None] = None,
        optional: Literal["a"] | None = None,
        strict: Literal["a", "b"] = "a",
    ):
        return [plain, written, optional, strict]


class Shared(ThreadSafeAdapter):
    """The thread profile: one instance, several commands."""

    ctx = None

    def __init__(self):
        self.gate = threading.Event()
        self.greeted = []

    def set_session_context(self, ctx):
        assert isinstance(ctx, snakepit_bridge.SessionContext)
        self.ctx = ctx

    def on_session_start(self, session_id):
        if session_id == "slow":
            assert self.gate.wait(20)
        self.greeted.append(session_id)

    @command
    def mine(self, seconds: float = 0.0):
        before = self.ctx.session_id
        time.sleep(seconds)
        return [before, self.ctx.session_id, self.ctx.request_id]

    @command
    async def mine_later(self):
        before = self.ctx.session_id
        await asyncio.sleep(0.001)
        return [before, self.ctx.session_id, self.ctx.request_id]

    @command
    def open_gate(self):
        self.gate.set()

    @command
    def kills_its_thread(self):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(threading.get_ident()), ctypes.py_object(SystemExit)
        )

    @command
    def arrays(self):
        return array.array("d", [1.0])
