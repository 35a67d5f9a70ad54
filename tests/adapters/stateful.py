"""An adapter whose commands use the variables of their session, in every way that there is."""

from __future__ import annotations

import asyncio
import threading
import time

from snakepit_bridge import Adapter, HostError, command


class Stateful(Adapter):
    __thread_safe__ = True

    def __init__(self) -> None:
        self.context = None
        self.go_on = threading.Event()
        self.waiting_commands = 0

    def set_session_context(self, ctx) -> None:
        self.context = ctx

    @command
    def call(self, ctx, method: str, args: list = (), kw: dict = {}):  # noqa: B006 - nobody changes it
        return getattr(ctx, method)(*args, **kw)

    @command
    async def acall(self, ctx, method: str, args: list = (), kw: dict = {}):  # noqa: B006
        return await getattr(ctx, method)(*args, **kw)

    @command
    async def in_loop(self, ctx, method: str, args: list = ()):
        """What a method that blocks gives in an async command."""
        return getattr(ctx, method)(*args)

    @command
    def fails(self, ctx, method: str, args: list = (), kw: dict = {}):  # noqa: B006
        try:
            getattr(ctx, method)(*args, **kw)
        except Exception as error:
            said = {"is": [kind.__name__ for kind in type(error).__mro__], "message": str(error)}
            return {**said, "details": getattr(error, "details", None)}

    @command
    def reads(self, ctx, name: str, count: int = 1):
        return [ctx[name] for _ in range(count)]

    @command
    def writes(self, ctx, name: str, value: object):
        ctx[name] = value
        return ctx[name]

    @command
    def grows(self, ctx, name: str, times: int):
        """Changes what it has read, and reads it again."""
        for _ in range(times):
            ctx[name].append(0)
        return ctx[name]

    @command
    def spelled(self, ctx):
        """The same variable in every spelling of a sync command."""
        ctx["x"] = 1
        found = [
            "x" in ctx,
            "y" in ctx,
            ctx["x"],
            ctx.v.x,
            "x" in ctx.v,
            ctx.get("y", 5),
            hasattr(ctx.v, "y"),
        ]
        ctx.v.x = 2
        one = ctx.variable("x")
        found += [ctx.get_versioned("x"), one.value]
        one.value = 3
        found += [ctx.get_variable("x"), ctx.get_variables(["x"]), ctx.variables.get("x")]
        found += [ctx.update_variable("x", 4), ctx.delete("x")]
        ctx["x"] = 5
        del ctx["x"]
        return [*found, "x" in ctx]

    @command
    async def aspelled(self, ctx):
        """The same in an async command: what blocks, and what is awaited."""
        ctx["x"] = 1
        found = ["x" in ctx, ctx["x"], ctx.v.x, await ctx.aget("x"), await ctx.aget("y", 5)]
        found += [await ctx.aset("x", 2), await ctx.get_variable("x"), await ctx.update_variable("x", 3)]
        found += [await ctx.aget_many(["x", "y"]), await ctx.adelete("x")]
        return found

    @command
    def batches(self, ctx, fails: bool = False):
        try:
            with ctx.batch() as batch:
                ctx["x"] = 1
                batch["y"] = ctx["x"] + 1
                ctx.v.z = batch["y"] + 1
                if fails:
                    raise ValueError("in the midst")
        except ValueError:
            pass
        return ctx.get_many(["x", "y", "z"])

    @command
    async def abatches(self, ctx):
        async with ctx.batch():
            ctx["x"] = 1
            await ctx.aset("y", await ctx.aget("x") + 1)
        return await ctx.aget_many(["x", "y"])

    @command
    def watches(self, ctx, names: list, count: int):
        """So many changes."""
        with ctx.watch(*names) as changes:
            return [_said(change) for _, change in zip(range(count), changes)]  # noqa: B905 - 3.9

    @command
    def watches_one_by_one(self, ctx, names: list):
        for change in ctx.watch(names):
            yield _said(change)

    @command
    async def awatches(self, ctx, names: list, count: int):
        found = []
        async for change in ctx.watch(*names):
            found.append(_said(change))
            if len(found) == count:
                return found

    @command
    def by_attribute(self, name: str, value: object):
        """The context that the adapter keeps, which in threads is one for all."""
        self.context[name] = value
        time.sleep(0)
        return [self.context.session_id, self.context[name], name in self.context]

    @command
    def programs(self, ctx):
        ctx.store_program("p", {"demos": [1.0, 2.0]})
        ctx.store_global_program("g", "text", ttl=60)
        ctx.update_program("p", [1])
        found = [ctx.get_program("p"), ctx.get_global_program("g"), ctx.get_program("none", "nothing")]
        return [*found, ctx.delete_program("p"), ctx.delete_program("p"), ctx.delete_global_program("g")]

    @command
    def meets_and_waits(self, ctx, name: str):
        """Reads, waits until `proceed` is called, and writes."""
        ctx[name]
        self.wait()
        return self.fails(ctx, "set", [name, 1])

    @command
    def waits_and_writes(self, ctx, name: str):
        """The same, and it reads nothing before. As if it had begun long ago: what a call takes is nothing to
        that."""
        ctx._started -= 5 * 10**9
        self.wait()
        return [ctx.get(name), self.fails(ctx, "set", [name, 1])["is"][0]]

    def wait(self) -> None:
        self.waiting_commands += 1
        self.go_on.wait(30)
        self.go_on.clear()
        self.waiting_commands -= 1

    @command
    def waiting(self):
        return self.waiting_commands

    @command
    def keeps_reading(self, ctx, name: str, seconds: float):
        """Each new value that it reads within so many seconds."""
        ends, last = time.monotonic() + seconds, None
        while time.monotonic() < ends and not ctx.cancelled:
            value = ctx[name]
            if value != last:
                last = value
                yield value

    @command
    def proceed(self):
        self.go_on.set()

    @command
    def arrays(self, ctx, size: int):
        import numpy as np

        ctx["a"] = np.arange(size, dtype="f8")
        first, second = ctx["a"], ctx["a"]
        ctx.set_many({"b": np.ones(3), "c": {"inner": np.zeros(2), "n": 1}})
        (found, missing) = ctx.get_many(["b", "a", "c"])
        return {
            "sum": float(first.sum() - second.sum()),
            "writeable": first.flags.writeable,
            "b": found["b"],
            "c": found["c"]["inner"],
            "size": found["a"].size,
            "missing": missing,
        }

    @command
    def cost(self, ctx, name: str, count: int):
        """Microseconds of processor time of a read from a copy."""
        ctx[name]
        began = time.process_time()
        for _ in range(count):
            ctx[name]
        return (time.process_time() - began) / count * 1e6

    @command
    async def at_once(self, ctx, name: str, count: int):
        return await asyncio.gather(*(ctx.aget(name) for _ in range(count)))

    @command
    def catches(self, ctx):
        """What `except` clauses catch what."""
        found = []
        for kind, what in ((KeyError, lambda: ctx["none"]), (HostError, lambda: ctx["none"])):
            try:
                what()
            except kind as error:
                found.append(str(error))
        return found


def _said(change):
    return [change.name, change.value, change.version, change.deleted]
