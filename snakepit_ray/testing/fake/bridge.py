"""The Python bridge inside this process: the modules of `snakepit_bridge` that need neither gRPC nor a host.

The bridge that adapters of this process import is taken. Where there is none, the one that this package
brings is made importable under its name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any

from snakepit_ray.runtimes.python import bridge_directory

NAME = "snakepit_bridge"


def module(name: str) -> Any:
    """`snakepit_bridge.<name>`."""
    if NAME not in sys.modules and importlib.util.find_spec(NAME) is None:
        _bring()
    return importlib.import_module(f"{NAME}.{name}")


def _bring() -> None:
    place = os.path.join(bridge_directory(), NAME)
    spec = importlib.util.spec_from_file_location(
        NAME, os.path.join(place, "__init__.py"), submodule_search_locations=[place]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
