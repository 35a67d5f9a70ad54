"""The wheel in a virtual environment away from the checkout: it brings the bridge, and a pool starts."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = """
import logging, ray, snakepit_ray as snakepit
from snakepit_ray.runtimes.python import bridge_directory
ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR,
         log_to_driver=False, object_store_memory=100_000_000)
with snakepit.start(size=1) as pool:
    print(pool.execute("add", {"a": 5, "b": 3})["result"], bridge_directory(), snakepit.__file__)
"""


def run(*command: str, cwd: Path, seconds: float = 300) -> str:
    """Runs a command outside the checkout and outside its environment. Returns what it printed."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("RAY_", "SNAKEPIT_", "VIRTUAL_ENV", "PYTHONPATH"))
    }
    ran = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, timeout=seconds)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_a_pool_starts_from_the_wheel(uv: str, tmp_path: Path) -> None:
    run(uv, "build", "--quiet", "--wheel", "--out-dir", str(tmp_path / "dist"), str(ROOT), cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        pages = {name for name in files.namelist() if name.startswith("snakepit_ray/docs/")}
    assert pages == {f"snakepit_ray/docs/{page.name}" for page in (ROOT / "snakepit_ray" / "docs").iterdir()}
    venv = tmp_path / "venv"
    python = str(venv / "bin" / "python")
    run(uv, "venv", "--quiet", "--python", sys.executable, str(venv), cwd=tmp_path)
    run(uv, "pip", "install", "--quiet", "--python", python, str(wheel), cwd=tmp_path)

    result, bridge, package = run(python, "-c", SCRIPT, cwd=tmp_path, seconds=150).split()
    home = next((venv / "lib").glob("python3.*")) / "site-packages" / "snakepit_ray"
    assert result == "8"
    assert Path(bridge) == home / "_bridge" / "python"
    assert Path(package) == home / "__init__.py"
    doctor = run(str(venv / "bin" / "snakepit-ray"), "doctor", cwd=tmp_path)
    assert f"at {python}: the bridge imports" in doctor


def test_the_source_distribution_has_none_of_the_tests(uv: str, tmp_path: Path) -> None:
    run(uv, "build", "--quiet", "--sdist", "--out-dir", str(tmp_path), str(ROOT), cwd=tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    tops = {name.partition("/")[0] for name in names}
    files_beside = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert tops <= {"snakepit_ray", "bridge", "protos", *files_beside}
    assert {"snakepit_ray/py.typed", "bridge/python/main.py", "protos/snakepit/v1/interpreter.proto"} <= names
