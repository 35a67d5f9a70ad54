"""Where a Python interpreter and its bridge are.

- Everything is checked before a process is started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from snakepit_ray.config import PoolConfig, environment_default
from snakepit_ray.config.languages import PYTHON
from snakepit_ray.errors import ConfigError
from snakepit_ray.runtimes.activation import activation
from snakepit_ray.runtimes.base import BaseRuntime, find_executable

VARIABLE = "SNAKEPIT_PYTHON"
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BRIDGES = (
    os.path.join(PACKAGE, "_bridge", "python", "main.py"),  # a wheel
    os.path.join(os.path.dirname(PACKAGE), "bridge", "python", "main.py"),  # an editable install
)


class PythonRuntime(BaseRuntime):
    """Any Python from 3.9: the pool's `interpreter`, else SNAKEPIT_PYTHON, else .venv of the directory,
    else this one."""

    name = PYTHON.name

    def executable(self, config: PoolConfig) -> str:
        if config.interpreter is not None:
            return find_executable(config.interpreter, config.cwd, f"pool {config.name!r}: interpreter=")
        named = environment_default(VARIABLE)
        if named is not None:
            return find_executable(named, config.cwd, VARIABLE)
        local = os.path.join(os.path.abspath(config.cwd or os.getcwd()), ".venv", "bin", "python")
        if os.path.isfile(local) and os.access(local, os.X_OK):
            return local
        return find_executable(sys.executable, None, "sys.executable")

    def argv(self, executable: str, script: str, args: Sequence[str]) -> Sequence[str]:
        return PYTHON.argv(executable, script, args)

    def env(self, config: PoolConfig) -> Mapping[str, str]:
        return activation(self.executable(config), environment_default("PATH") or os.defpath)

    def script(self, config: PoolConfig) -> str:
        return os.path.join(bridge_directory(), "main.py")


def bridge_directory() -> str:
    """Where the Python bridge is: `main.py` and the package `snakepit_bridge`. Raises ConfigError where it
    is not."""
    for path in BRIDGES:
        if os.path.isfile(path):
            return os.path.dirname(path)
    raise ConfigError(
        f"the Python bridge is not installed (looked for {' and '.join(BRIDGES)}); reinstall it"
    )
