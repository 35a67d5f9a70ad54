"""Commands that yield; what they did is written down in `log`, which another command tells."""

import asyncio

from snakepit_bridge import Adapter, command


class Streaming(Adapter):
    def __init__(self):
        self.log = []
        self.produced = 0

    @command
    def told(self):
        return {"log": self.log, "produced": self.produced}

    @command
    async def told_at_once(self):
        """The same, also while the one thread for sync commands is busy."""
        return {"log": self.log, "produced": self.produced}

    @command
    def count(self, ctx, count: int, fail_at: int = -1, size: int = 0):
        try:
            for i in range(count):
                if i == fail_at:
                    raise ValueError(f"at {i}")
                self.produced = i + 1
                yield {"i": i, "x": "x" * size} if size else {"i": i}
        except GeneratorExit:
            self.log.append("closed")
            raise
        finally:
            self.log.append(f"finally:{ctx.cancelled}")

    @command
    async def count_async(self, ctx, count: int, fail_at: int = -1):
        try:
            for i in range(count):
                if i == fail_at:
                    raise ValueError(f"at {i}")
                self.produced = i + 1
                yield {"i": i}
                await asyncio.sleep(0)
        finally:
            self.log.append(f"finally:{ctx.cancelled}")

    @command
    async def sleeps(self, ctx):
        yield 0
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        finally:
            self.log.append(f"finally:{ctx.cancelled}")

    @command
    def waits(self, ctx):
        try:
            yield 0
            ctx.wait(30)
            yield 1
        finally:
            self.log.append(f"finally:{ctx.cancelled}")

    @command
    def returns(self, value=None):
        return value

    @command
    async def returns_async(self, value=None):
        return value

    @command
    async def returns_a_generator(self):
        return (i for i in range(3))

    @command
    def unencodable_at(self, at: int):
        try:
            yield from range(at)
            yield object()
        finally:
            self.log.append("finally")

    @command
    def arrays(self):
        yield 1
        yield b"bytes"
        yield 2
        yield 3

    @command
    def reports(self, ctx, count: int):
        for i in range(count):
            ctx.progress(i + 1, count, f"step {i}")
            self.produced = i + 1
        return "done"

    @command
    def mixed(self, ctx, count: int):
        for i in range(count):
            ctx.progress(i + 1, count)
            yield i
