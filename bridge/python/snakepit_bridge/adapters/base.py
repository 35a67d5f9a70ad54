"""Adapters with `execute_<command>` methods."""

from __future__ import annotations

from snakepit_bridge.adapter.commands import Adapter, tool

__all__ = ["BaseAdapter", "tool"]


class BaseAdapter(Adapter):
    """Base of adapters whose methods `execute_<command>(self, args)`, sync or async, and `@tool` methods are
    commands.

    One instance serves every request; `set_session_context` is called before each with its context.
    """

    __execute_methods__ = True

    session_context = None

    def setup(self):
        """Calls `initialize`, where there is one."""
        initialize = getattr(self, "initialize", None)
        return initialize() if initialize is not None else None

    def teardown(self):
        """Calls `cleanup`, where there is one."""
        cleanup = getattr(self, "cleanup", None)
        return cleanup() if cleanup is not None else None

    def set_session_context(self, ctx) -> None:
        """Called before each command; in the thread profile use the parameter `ctx` instead, which belongs
        to one request.
        """
        self.session_context = ctx
