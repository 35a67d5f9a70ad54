"""The import path that adapters in the wild use for SessionContext, and for the error of a missing
variable."""

from snakepit_bridge.adapter.context import SessionContext
from snakepit_bridge.adapter.host_errors import VariableNotFoundError

__all__ = ["SessionContext", "VariableNotFoundError"]
