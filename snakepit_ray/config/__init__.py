"""The settings of pools and the options of calls: frozen, validated when built, from Python, a mapping or
TOML."""

from snakepit_ray.config.checks import FrozenMap
from snakepit_ray.config.names import load_object
from snakepit_ray.config.options import DEFAULT_OPTIONS, OPTION_NAMES, Affinity, CallOptions
from snakepit_ray.config.pool_config import POOL_KEYS, RESERVED, CircuitBreakerConfig, PoolConfig
from snakepit_ray.config.sources import environment_default, load_toml, read_toml
from snakepit_ray.config.units import duration, size

__all__ = [
    "DEFAULT_OPTIONS",
    "OPTION_NAMES",
    "POOL_KEYS",
    "RESERVED",
    "Affinity",
    "CallOptions",
    "CircuitBreakerConfig",
    "FrozenMap",
    "PoolConfig",
    "duration",
    "environment_default",
    "load_object",
    "load_toml",
    "read_toml",
    "size",
]
