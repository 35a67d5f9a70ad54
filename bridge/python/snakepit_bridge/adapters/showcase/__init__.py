"""The adapter that a pool serves by default: a little of everything that a command can do."""

from __future__ import annotations

from snakepit_bridge.adapters.showcase.adapter import ShowcaseAdapter

__all__ = ["ShowcaseAdapter"]
