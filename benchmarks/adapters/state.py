"""What the benchmark of session state runs in the interpreter: it measures there, where commands are."""

import time

from snakepit_bridge import Adapter, command


class State(Adapter):
    @command
    def prepare(self, ctx, count: int):
        """So many variables that nobody has read."""
        ctx.set_many({f"v{number}": 1.5 for number in range(count)})
        ctx["x"] = 0
        ctx["listed"] = [1, 2, 3]

    @command
    def misses(self, ctx, count: int):
        return _times(lambda number: ctx[f"v{number}"], count)

    @command
    def sets(self, ctx, count: int):
        return _times(lambda number: ctx.set("x", number), count)

    @command
    def reads_and_sets(self, ctx, count: int):
        """As a counter does: each read is a miss, because of the write before it."""
        return _times(lambda number: ctx.set("x", ctx["x"] + 1), count)

    @command
    def info(self, ctx, count: int):
        """A call to the worker that does nothing."""
        return _times(lambda _: ctx.host("worker.info"), count)

    @command
    def cached(self, ctx, name: str, count: int):
        """Seconds of a read from a copy, the best of many hundreds at a time: the copy ends every 2 s."""
        best = 1.0
        for _ in range(count // 100):
            ctx[name]
            began = time.perf_counter()
            for _ in range(100):
                ctx[name]
            best = min(best, (time.perf_counter() - began) / 100)
        return [best]


def _times(step, count: int):
    found = []
    for number in range(count):
        began = time.perf_counter()
        step(number)
        found.append(time.perf_counter() - began)
    return found
