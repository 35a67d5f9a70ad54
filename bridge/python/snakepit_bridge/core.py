"""The names that scripts of the wild call before they serve. A bridge does both things by itself."""

from __future__ import annotations

from snakepit_bridge.adapter.protocol import BaseCommandHandler, ProtocolHandler

__all__ = [
    "BaseCommandHandler",
    "ProtocolHandler",
    "setup_broken_pipe_suppression",
    "setup_graceful_shutdown",
]


def setup_graceful_shutdown(protocol_handler=None) -> None:
    """Nothing is left to do: the bridge ends on SIGTERM and when its host is gone, and calls `teardown`."""


def setup_broken_pipe_suppression() -> None:
    """Nothing is left to do: commands do not talk over stdout, so a closed pipe there harms nothing."""
