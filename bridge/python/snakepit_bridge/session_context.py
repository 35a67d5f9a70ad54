"""The import path that adapters in the wild use for SessionContext."""

from snakepit_bridge.context import SessionContext

__all__ = ["SessionContext"]
