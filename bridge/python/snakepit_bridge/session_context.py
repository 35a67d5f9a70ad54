"""The import path that adapters in the wild use for SessionContext."""

from snakepit_bridge.adapter.context import SessionContext

__all__ = ["SessionContext"]
