"""An adapter whose commands call tools, in every way that there is."""

from __future__ import annotations

import asyncio

from snakepit_bridge import Adapter, HostError, command


class Tools(Adapter):
    __thread_safe__ = True

    @command
    def use(self, ctx, tool: str, args: dict = {}):  # noqa: B006 - as users write it
        return ctx.call_tool(tool, **args)

    @command
    async def ause(self, ctx, tool: str, args: dict = {}):  # noqa: B006
        return await ctx.acall_tool(tool, **args)

    @command
    def fails(self, ctx, tool: str, args: dict = {}):  # noqa: B006
        """What the error of a call says."""
        try:
            ctx.call_tool(tool, **args)
        except HostError as error:
            said = {name: getattr(error, name) for name in ("kind", "type", "details", "traceback")}
            return {"message": str(error), "is_value_error": isinstance(error, ValueError), **said}

    @command
    def takes(self, ctx, tool: str, most: int, args: dict = {}):  # noqa: B006
        """The first values of a tool's stream."""
        values = []
        with ctx.stream_tool(tool, **args) as stream:
            for value in stream:
                values.append(value)
                if len(values) == most:
                    break
        return values

    @command
    async def atakes(self, ctx, tool: str, args: dict = {}):  # noqa: B006
        return [value async for value in ctx.astream_tool(tool, **args)]

    @command
    async def at_once(self, ctx, tool: str, count: int):
        """So many calls at once."""
        return await asyncio.gather(*(ctx.acall_tool(tool, number=number) for number in range(count)))

    @command
    def tools(self, ctx):
        return ctx.tools

    @command
    def relay(self, ctx, tool: str, args: dict = {}):  # noqa: B006
        """The values of a tool's stream, as a stream."""
        yield from ctx.stream_tool(tool, **args)

    @command
    def own(self, ctx, name: str):
        """Registers a tool of this interpreter, and calls it."""
        ctx.register_tool(name, lambda a: a * 2, "doubles")
        return [ctx.call_elixir_tool(name, a=21), sorted(ctx.tools)]

    @command
    def add(self, a, b):
        return a + b

    @command
    def count(self, to: int):
        yield from range(to)

    @command
    def in_turn(self, ctx, tools: list):
        return [ctx.call_tool(tool, **args) for tool, args in tools]

    @command
    async def sleeps(self):
        await asyncio.sleep(0.01)
        return "slept"

    @command
    async def afails(self, ctx, tool: str, args: dict = {}):  # noqa: B006
        try:
            await ctx.acall_tool(tool, **args)
        except HostError as error:
            return {"message": str(error), "type": error.type}
