"""Virtual environments for tests of the bridge: made once, kept in .venv-bridges of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bridge.harness import ROOT

PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
CACHE = ROOT / ".venv-bridges"
OLDEST = (3, 9)
UV = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")


def found() -> dict[str, str]:
    """Interpreters by version, one a minor version; at least the one that runs the tests."""
    pythons = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for folder in sorted(PYENV.glob("3.*")):
        version = folder.name.split(".")
        python = folder / "bin" / "python"
        if version[1].isdigit() and (3, int(version[1])) >= OLDEST and python.exists():
            pythons.setdefault(".".join(version[:2]), str(python))
    return pythons


def environment(name: str, python: str, *packages: str) -> str:
    """The Python of the venv `name` with `packages`, made once; skips where that fails."""
    venv = CACHE / name
    ready = venv / "bin" / "python"
    if not (venv / "complete").exists():
        shutil.rmtree(venv, ignore_errors=True)
        for command in _commands(python, str(venv), str(ready), packages):
            ran = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=100,
                env={**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_HTTP_RETRIES": "0"},
            )
            if ran.returncode:
                unavailable(f"{' '.join(command)}: {ran.stderr.strip()[-400:]}")
        (venv / "complete").touch()
    return str(ready)


def _commands(python: str, venv: str, ready: str, packages: tuple[str, ...]) -> list[list[str]]:
    if UV:
        return [
            [UV, "venv", "-q", "--python", python, venv],
            [UV, "pip", "install", "-q", "--only-binary", ":all:", "--python", ready, *packages],
        ]
    return [[python, "-m", "venv", venv], [ready, "-m", "pip", "install", "-q", *packages]]


def unavailable(reason: str) -> None:
    """Skips on a user's machine; fails where SNAKEPIT_REQUIRE names pythons."""
    if "pythons" in os.environ.get("SNAKEPIT_REQUIRE", ""):
        pytest.fail(reason)
    pytest.skip(reason)
