"""What an interpreter that cannot run the bridge says: what it lacks, which versions, and what helps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bridge.environments import PYENV, environment, found, unavailable

OLD = sorted(
    str(folder / "bin" / "python")
    for folder in PYENV.glob("[23].*")
    if tuple(map(int, folder.name.split(".")[:2])) < (3, 9)
)
NEEDS = "grpcio (1.34 or later)", "protobuf (3.20 or later)"


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A Python without any package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    return str(tmp_path / "bare" / "bin" / "python")


def test_without_the_packages(bridge, bare: str) -> None:
    error = bridge(python=bare).start_error()
    version = ".".join(map(str, sys.version_info[:3]))
    assert (error["stage"], error["type"]) == ("interpreter", "InterpreterUnfit")
    lacks = f"Python {version} at {bare} lacks {' and '.join(NEEDS)}"
    assert error["message"] == f"{lacks}; run: snakepit-ray setup {bare}"


def test_it_is_told_before_the_users_code_is_met(bridge, bare: str) -> None:
    assert bridge("no_such_module:Adapter", python=bare).start_error()["stage"] == "interpreter"


@pytest.mark.interpreters
def test_with_packages_that_are_too_old(bridge) -> None:
    if "3.9" not in found():
        unavailable("there is no Python 3.9 here")
    python = environment("3.9-too-old", found()["3.9"], "protobuf==3.19.6", "grpcio==1.33.2")
    error = bridge(python=python).start_error()
    assert error["stage"] == "interpreter"
    assert f"at {python} has grpcio 1.33.2, and the bridge needs 1.34 or later" in error["message"]
    assert "has protobuf 3.19.6, and the bridge needs 3.20 or later" in error["message"]
    assert error["message"].endswith(f"run: snakepit-ray setup {python}")


@pytest.mark.interpreters
@pytest.mark.parametrize("python", OLD)
def test_a_python_that_is_too_old(bridge, python: str) -> None:
    error = bridge(python=python).start_error()
    assert (error["stage"], error["type"]) == ("interpreter", "PythonTooOld")
    assert f" at {python}: the bridge needs 3.9 or later" in error["message"]
    assert "setup" not in error["message"], "setup cannot make it younger"


@pytest.mark.parametrize("variable", ["PYTHONSAFEPATH", "PYTHONNOUSERSITE"])
def test_a_path_without_the_scripts_folder(bridge, variable: str) -> None:
    assert bridge(env={variable: "1"}).start().ready["language"] == "python"


def test_the_floors_are_those_that_the_package_declares() -> None:
    from snakepit_bridge.main import requirements

    declared = Path(requirements.__file__).parents[2].joinpath("pyproject.toml").read_text()
    for distribution, least in requirements.NEEDED.values():
        assert f'"{distribution}>={".".join(map(str, least))}"' in declared
