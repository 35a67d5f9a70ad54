"""Commands that measure their own calls of tools."""

from __future__ import annotations

import time

from snakepit_bridge import Adapter, command


class Tools(Adapter):
    @command
    def times(self, ctx, tool: str, args: dict, count: int) -> list:
        """Seconds of each of so many calls, one after the other."""
        call, seconds = ctx.call_tool, []
        for _ in range(count):
            began = time.perf_counter()
            call(tool, **args)
            seconds.append(time.perf_counter() - began)
        return seconds

    @command
    def host_times(self, ctx, count: int) -> list:
        """Seconds of a call of the host that does next to nothing."""
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            ctx.host("worker.info")
            seconds.append(time.perf_counter() - began)
        return seconds

    @command
    async def at_once(self, ctx, tool: str, args: dict, count: int, in_flight: int) -> float:
        """Calls a second with so many in flight."""
        import asyncio

        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                await ctx.acall_tool(tool, **args)

        began = time.perf_counter()
        await asyncio.gather(*(some() for _ in range(in_flight)))
        return count / (time.perf_counter() - began)

    @command
    def add(self, a, b) -> dict:
        return {"result": a + b}
