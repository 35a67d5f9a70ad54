"""Where settings come from outside the program: TOML files and the environment. Nothing else reads these."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from snakepit_ray.config.languages import SUFFIXES
from snakepit_ray.config.pool_config import PoolConfig
from snakepit_ray.errors import ConfigError

TABLES = ("defaults", "pools")


def environment_default(name: str) -> str | None:
    """The environment variable, or None where it is not set or empty."""
    return os.environ.get(name) or None


def load_toml(path: str | os.PathLike[str]) -> list[PoolConfig]:
    """The pools of a file: `[pools.NAME]` tables over an optional `[defaults]` table (a whole value
    replaces another).

    Relative paths in `cwd`, `adapter` and `interpreter` are relative to the file. Raises ConfigError naming
    the file and, where several pools are wrong, each of them.
    """
    found = read_toml(path)
    wrong = [error for error in found.values() if isinstance(error, ConfigError)]
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise ConfigError("\n".join(map(str, wrong)), key=wrong[0].key)
    return [config for config in found.values() if isinstance(config, PoolConfig)]


def read_toml(path: str | os.PathLike[str]) -> dict[str, PoolConfig | ConfigError]:
    """As `load_toml`, by name, with the error of each pool in its place: one that is broken fails alone.

    Raises ConfigError where the file as a whole cannot be used.
    """
    file = os.fspath(path)
    document = _parse(file)
    unknown = [key for key in document if key not in TABLES]
    if unknown:
        error = ConfigError.unknown("table", unknown, TABLES)
        raise ConfigError(f"{file}: {error}", key=error.key)
    pools = _table(file, document, "pools")
    if not pools:
        raise ConfigError(f"{file}: no pools; write at least one table [pools.NAME]")
    defaults = _table(file, document, "defaults")
    return {name: _pool(file, name, defaults, table) for name, table in pools.items()}


def _parse(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            raw = stream.read()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; correct the path") from error
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not TOML: {error}") from error


def _table(file: str, document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{file}: {name}: got {type(table).__name__}, expected a table", key=name)
    return table


def _pool(file: str, name: str, defaults: Mapping[str, Any], table: Any) -> PoolConfig | ConfigError:
    where = f"{file} [pools.{name}]"
    if not isinstance(table, Mapping):
        return ConfigError(f"{where}: got {type(table).__name__}, expected a table", key=name)
    settings = {**defaults, **table}
    if settings.setdefault("name", name) != name:
        return ConfigError(
            f"{where}: name: got {settings['name']!r}, expected the table's own name", key="name"
        )
    try:
        return PoolConfig.build(_beside(os.path.dirname(os.path.abspath(file)), settings))
    except ConfigError as error:
        return ConfigError(f"{where}: {error}", key=error.key)


def _beside(directory: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with relative paths made absolute; names of modules and of programs on PATH stay."""
    resolved = dict(settings)
    for key in ("cwd", "adapter", "interpreter"):
        value = settings.get(key)
        if isinstance(value, str) and value and (key == "cwd" or _is_path(key, value)):
            resolved[key] = os.path.normpath(os.path.join(directory, os.path.expanduser(value)))
    return resolved


def _is_path(key: str, value: str) -> bool:
    return "/" in value or os.sep in value or (key == "adapter" and value.lower().endswith(SUFFIXES))
