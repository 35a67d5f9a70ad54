"""What a pool says of the store that it wants. Apart from the actor: who asks a store need not load one."""

from __future__ import annotations

from typing import NamedTuple

from snakepit_ray.config import PoolConfig

MEMORY = "memory"
SQLITE = "sqlite"


class Settings(NamedTuple):
    """How a pool wants the store: its `session_store`, seconds between sweeps."""

    pool: str
    kind: str
    sweep_seconds: float


def settings_of(config: PoolConfig) -> Settings:
    """How the pool wants the store."""
    return Settings(config.name, config.session_store, config.session_sweep_interval)
