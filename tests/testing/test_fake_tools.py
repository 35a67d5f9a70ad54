"""Tools of a fake pool: what commands call is what a test registers."""

from __future__ import annotations

import pytest

import snakepit_ray as snakepit
from snakepit_ray.testing import FakePool


def test_a_command_calls_what_a_test_registers() -> None:
    def use(ctx, tool: str, args: dict):
        return ctx.call_tool(tool, **args)

    async def ause(ctx, tool: str, args: dict):
        return await ctx.acall_tool(tool, **args)

    async def twice(a: int) -> int:
        return a * 2

    def takes(ctx, tool: str):
        return [*ctx.stream_tool(tool), sorted(ctx.tools)]

    with FakePool({"use": use, "ause": ause, "takes": takes}) as pool:
        pool.register_tools({"twice": twice, "count": lambda: 1})
        pool.register_tool("count", lambda: 2, session="s")
        pool.register_tool("other", lambda: 3, session="ends")
        pool.sessions.delete("ends")
        assert "other" not in [tool.name for tool in pool.tools()]
        pool.register_tool("some", lambda: (yield from range(3)))
        assert pool.execute("use", {"tool": "twice", "args": {"a": 21}}) == 42
        assert pool.execute("ause", {"tool": "twice", "args": {"a": 21}}) == 42
        assert pool.execute("use", {"tool": "count", "args": {}}, session="s") == 2
        assert pool.execute("takes", {"tool": "some"}) == [0, 1, 2, ["count", "some", "twice"]]
        with pytest.raises(snakepit.CommandError, match="no tool 'nothing'") as failed:
            pool.execute("use", {"tool": "nothing", "args": {}})
        assert failed.value.remote_type == "ToolNotFound"
        with pytest.raises(snakepit.DuplicateTool):
            pool.register_tool("twice", len)
        described = pool.describe()
        assert described.commands["use"].parameters["required"] == ["tool", "args"]
        assert "twice" in [tool.name for tool in described.tools]
        pool.unregister_tool("twice")
        assert [(tool.session, tool.name) for tool in pool.tools()] == [
            ("", "count"),
            ("", "some"),
            ("s", "count"),
        ]
