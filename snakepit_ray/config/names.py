"""How an object is named so that another process can import it: "module:qualified.name"."""

from __future__ import annotations

import importlib
from typing import Any

from snakepit_ray.errors import ConfigError


def load_object(name: str) -> Any:
    """The object that "module:qualified.name" names. Raises ConfigError naming the part that is not there."""
    module_name, _, qualified = name.partition(":")
    if not module_name or not qualified:
        raise ConfigError(f'{name!r} is not "module:Name"; write the module, a colon and the name in it')
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{name!r}: the module {module_name!r} cannot be imported: {error}; it must be importable on "
            "every "
            "node (working_dir or py_modules in the runtime_env)"
        ) from error
    for part in qualified.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{name!r}: {found!r} has no {part!r}; correct the name after the colon")
        found = getattr(found, part)
    return found
