"""An adapter whose commands ask the host, in every way that there is."""

from __future__ import annotations

import asyncio
import gc
import threading

from snakepit_bridge import Adapter, Cancelled, HostError, command, current
from snakepit_bridge.server.arena import Arena


class Asking(Adapter):
    __thread_safe__ = True

    def __init__(self) -> None:
        self.kept: list = []

    @command
    def ask(self, ctx, method: str, payload=None):
        return ctx.host(method, payload=payload)

    @command
    async def aask(self, ctx, method: str, payload=None):
        return await ctx.ahost(method, payload=payload)

    @command
    def fails(self, ctx, method: str, payload=None):
        """What the error of a call says."""
        try:
            ctx.host(method, payload=payload)
        except HostError as error:
            said = {name: getattr(error, name) for name in ("kind", "type", "details", "traceback")}
            return {"message": str(error), **said}

    @command
    async def many(self, ctx, method: str, count: int):
        """The sum of the answers to so many calls at once."""
        return sum(await asyncio.gather(*(ctx.ahost(method, number=number) for number in range(count))))

    @command
    async def gives_up(self, ctx, method: str):
        """Cancels its own wait once the host has begun to answer it, and goes on."""
        waiting = asyncio.ensure_future(ctx.ahost(method))
        while not await ctx.ahost("sync"):
            pass
        waiting.cancel()
        await asyncio.wait([waiting])
        return waiting.cancelled()

    @command
    def sums(self, ctx, method: str, count: int):
        total = 0
        for number, value in enumerate(ctx.host_stream(method, count=count)):
            assert value == number, "values keep their order"
            total += value
        return total

    @command
    async def asums(self, ctx, method: str, count: int):
        total = 0
        async for value in ctx.ahost_stream(method, count=count):
            total += value
        return total

    @command
    def takes(self, ctx, method: str, count: int, how: str):
        """The first values of a stream, which is left in one of the ways that there are."""
        stream = ctx.host_stream(method, count=1_000_000)
        taken = [next(stream) for _ in range(count)]
        if how == "close":
            stream.close()
            assert next(stream, None) is None
        elif how == "with":
            with stream:
                pass
        elif how == "keep":
            self.kept.append(stream)
        return len(taken)

    @command
    async def atakes(self, ctx, method: str, count: int, how: str):
        stream = ctx.ahost_stream(method, count=1_000_000)
        taken = 0
        async for _ in stream:
            taken += 1
            if taken == count:
                break
        if how == "close":
            await stream.aclose()
        return taken

    @command
    def doubles(self, ctx, size: int, rounds: int):
        """Sends arrays, and looks at what comes back."""
        import numpy as np

        for number in range(rounds):
            array = np.full(size, number, "u1")
            doubled = ctx.host("double", array=array)
            array[:] = 255  # what was sent is what it was then
            if not (doubled.size == size and (doubled == number * 2).all()):
                return number
        return rounds

    @command
    def array_stream(self, ctx, size: int, count: int):
        """How many of the arrays of a stream were what they should be."""
        values = ctx.host_stream("arrays", size=size, count=count)
        return sum(bool((value == number % 256).all()) for number, value in enumerate(values))

    @command
    def sends_and_is_cancelled(self, ctx, size: int):
        import numpy as np

        try:
            ctx.host("for_ever", array=np.ones(size, "u1"))
        except Cancelled:
            return "cancelled"

    @command
    def traced(self, ctx):
        return [ctx.traceparent, ctx.tracestate]

    @command
    def held(self):
        """What the interpreter holds of both memories."""
        gc.collect()
        (arena,) = [one for one in gc.get_objects() if type(one) is Arena]
        looked_at = arena._arguments._watched if arena.usable else ()
        return {"results": arena._gaps.used, "arguments": len(looked_at)}

    @command
    def asks_here(self, ctx, method: str):
        """Its thread before and after a call, the answer, and whose command this thread says that it runs."""
        before, answer = threading.get_ident(), ctx.host(method)
        return {"threads": [before, threading.get_ident()], "answer": answer, "current": current().request_id}

    @command
    def here(self):
        return threading.get_ident()

    @command
    async def ahere(self, ctx, method: str = ""):
        answer = await ctx.ahost(method) if method else None
        return {"thread": threading.get_ident(), "answer": answer}
