"""Adapters as they are written in the wild."""

from snakepit_bridge.adapters.base import BaseAdapter, tool
from snakepit_bridge.session_context import SessionContext


class Legacy(BaseAdapter):
    def __init__(self):
        super().__init__()
        self.contexts = []
        self.ready = False

    def initialize(self):
        self.ready = True

    def set_session_context(self, ctx):
        self.contexts.append(ctx.session_id)

    def execute_ping(self, args):
        return {"args": args, "contexts": self.contexts, "ready": self.ready}

    async def execute_later(self, args):
        return {"later": args}

    def execute_named(self, a, b=2):
        return a + b

    @tool(description="Adds.")
    def add(self, a: int, b: int) -> int:
        return a + b

    @tool(description="Counts.", supports_streaming=True)
    def count(self, n: int):
        yield from range(n)


class Plain:
    def greet(self, name: str, ctx: SessionContext):
        return f"{name} of {ctx.session_id}"

    def helper(self, x):
        return x
