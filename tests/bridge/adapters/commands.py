"""Commands that do what a test needs to see."""

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading

import snakepit_bridge
from snakepit_bridge import Adapter, Cancelled, SessionContext, command

GATES: dict = {}


def gate(name):
    return GATES.setdefault(name, threading.Event())


class Commands(Adapter):
    def __init__(self):
        self.log = []
        self.sessions = []

    def on_session_start(self, session_id):
        self.sessions.append(session_id)

    @command
    def note(self, tag: str):
        self.log.append(tag)
        return self.log

    @command
    def noted(self):
        return {"log": self.log, "sessions": self.sessions}

    @command
    def echo(self, value=None):
        return value

    @command
    def result_of(self, code: str):
        return eval(code)

    @command
    def sleep_noted(self, ctx, tag: str, seconds: float):
        self.log.append(tag)
        if ctx.wait(seconds):
            ctx.raise_if_cancelled()
        return tag

    @command
    def wait_until_cancelled(self, ctx, tag: str = "", ending: str = "raise"):
        self.log.append(tag)
        ctx.emit("started")
        assert ctx.wait(20)
        if ending == "value":
            return {"cancelled": ctx.cancelled}
        if ending == "future":
            raise concurrent.futures.CancelledError
        if ending == "error":
            raise ValueError("while it stopped")
        ctx.raise_if_cancelled()

    @command
    async def sleep_until_cancelled(self, ctx, tag: str = "", ending: str = "raise"):
        self.log.append(tag)
        ctx.emit("started")
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            if ending == "value":
                return "stopped in good order"
            raise

    @command
    async def async_add(self, a: int, b: int):
        await asyncio.sleep(0)
        return a + b

    @command
    def hidden_coroutine(self):
        return self._later()

    async def _later(self):
        await asyncio.sleep(0)
        return "later"

    @command
    def about(self, context: SessionContext):
        remaining = context.remaining()
        return {
            "session": context.session_id,
            "request": context.request_id,
            "command": context.command,
            "attempt": context.attempt,
            "traceparent": context.traceparent,
            "worker": context.worker_id,
            "has_budget": remaining is not None and 0 < remaining <= 30,
            "same": snakepit_bridge.current() is context,
        }

    @command
    async def about_async(self, ctx):
        await asyncio.sleep(0)
        return {"request": ctx.request_id, "same": snakepit_bridge.current() is ctx}

    @command
    def traced(self, ctx):
        return [ctx.traceparent, ctx.tracestate]

    @command
    async def async_traced(self, ctx):
        before = ctx.traceparent
        await asyncio.sleep(0)
        assert ctx.traceparent == before
        return [ctx.traceparent, ctx.tracestate]

    @command
    def traced_without_a_parameter(self):
        return [snakepit_bridge.current().traceparent, snakepit_bridge.current().tracestate]

    @command
    def ask(self, ctx, method: str, payload=None):
        return ctx.host(method, payload=payload)

    @command
    def ask_for(self, ctx, value):
        return ctx.host("echo", value=value)["value"]

    @command
    async def ask_async(self, ctx, method: str, payload=None, wrongly: bool = False):
        if wrongly:
            return ctx.host(method)
        return await ctx.ahost(method, payload=payload)

    @command
    def emit(self, ctx):
        ctx.emit("mine.done", {"took": 1.5}, {"who": "me"})

    @command
    def swallow_cancel(self, ctx):
        try:
            ctx.host("never")
        except Cancelled:
            return "woken"

    @command
    def leave(self, how: str):
        if how == "exit":
            sys.exit(3)
        if how == "interrupt":
            raise KeyboardInterrupt
        if how == "unprintable":
            raise Unprintable
        raise BaseException("base")

    @command
    async def leave_async(self, how: str):
        self.leave(how)

    @command
    def deep_error(self):
        try:
            int("x")
        except ValueError as error:
            raise LookupError("lost \ud800") from error

    @command
    def generator(self, count: int = 1):
        yield from range(count)

    @command
    async def async_generator(self):
        yield 1

    @command
    def returns_generator(self):
        return (i for i in range(3))

    @command
    def unencodable(self):
        return {"fine": 1, "bad": [object()]}

    @command
    def large(self, size: int):
        return b"x" * size

    @command
    def large_text(self, size: int):
        return "x" * size

    @command
    def many(self, count: int):
        return [os.getpid()] * count

    @command
    def prints(self):
        print("GRPC_READY:1")
        os.write(1, b"\xff\xfe garbage")
        print("to stderr", file=sys.stderr)
        return sys.stdin.read()

    @command
    def rendezvous(self, tag: str):
        gate(tag).set()
        return gate("b" if tag == "a" else "a").wait(20)

    @command
    def grandchild(self):
        child = subprocess.Popen(["sleep", "600"])
        return child.pid

    @command
    def signals(self):
        import signal

        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return {"ignored": ignored, "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))}

    @command
    def modules(self):
        return [
            name
            for name in ("numpy", "pyarrow", "asyncio.base_events", "grpc.aio._server")
            if name in sys.modules
        ]

    @command
    def grpc_aio(self):
        import grpc.aio

        return callable(grpc.aio.insecure_channel) and grpc.aio.server.__module__


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no words")
