"""The import path that adapters in the wild use for VariableAwareMixin."""

from snakepit_bridge.adapter.older import VariableAwareMixin

__all__ = ["VariableAwareMixin"]
