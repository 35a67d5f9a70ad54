"""Tools and interpreters that the tests of the command line use where they are found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ray.conftest import cluster  # noqa: F401 - the cluster of the whole run


def unavailable(reason: str) -> None:
    """Skips on a user's machine; fails where SNAKEPIT_REQUIRE names pythons."""
    if "pythons" in os.environ.get("SNAKEPIT_REQUIRE", ""):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def uv() -> str:
    """Path of uv: of this environment (./dev puts it there), else on PATH."""
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if found is None:
        unavailable("there is no uv in this environment or on PATH")
    return str(found)


@pytest.fixture(scope="session")
def other_python() -> str:
    """A Python of another minor version, from 3.9."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = [shutil.which(f"python3.{minor}") for minor in range(9, 15)]
    for path in (*sorted(map(str, pyenv.glob("3.*/bin/python"))), *on_path):
        if path is not None and minor_of(path) in range(9, 15) and minor_of(path) != sys.version_info[1]:
            return path
    unavailable("there is no other Python from 3.9 to 3.14, in ~/.pyenv/versions or on PATH")
    raise AssertionError


def minor_of(python: str) -> int:
    """Its minor version; 0 for what does not run, as a shim may."""
    script = "import sys; print(sys.version_info[1] if sys.version_info[0] == 3 else 0)"
    ran = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=30)
    return int(ran.stdout) if ran.returncode == 0 else 0
