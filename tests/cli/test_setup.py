"""`setup` and `doctor` on interpreters of the user's: what an environment has keeps its version."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import google.protobuf
import pytest

from snakepit_ray.cli import doctor, installing, interpreters, main
from snakepit_ray.cli.installing import Change
from snakepit_ray.cli.interpreters import Distribution, Interpreter
from snakepit_ray.runtimes.python import bridge_directory
from tests.cli.conftest import unavailable

PINNED = Interpreter(
    "/env/bin/python",
    (3, 11, 7),
    "/env",
    "",
    (
        Distribution("protobuf", "3.20.3"),
        Distribution("grpcio", "1.62.1"),
        Distribution(
            "TensorFlow", "2.16.1", ("protobuf<5,>=3.20.3", "grpcio>=1.24", "wheel; extra == 'dev'")
        ),
        Distribution(
            "mlflow", "2.16.0", ("protobuf<6,>=3.12; python_version < '3.13'", "not a requirement!")
        ),
        Distribution("old_one", "1.0", ("protobuf<3.20",)),  # was broken before
        Distribution("snakepit.bridge", "0.0.9", ("protobuf<4",)),
    ),
)
Make = Callable[..., str]


# ---- what would break -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "broken"),
    [
        ("3.20.9", []),
        ("4.25.9", []),
        ("5.29.6", ["TensorFlow 2.16.1 needs protobuf<5,>=3.20.3"]),
        ("6.33.6", ["TensorFlow 2.16.1 needs protobuf<5,>=3.20.3", "mlflow 2.16.0 needs protobuf<6,>=3.12"]),
    ],
)
def test_what_a_change_breaks(new: str, broken: list[str]) -> None:
    assert installing.broken_by([Change("protobuf", "3.20.3", new)], PINNED) == broken


def test_what_is_new_or_changes_too_breaks_nothing() -> None:
    changes = [Change("protobuf", "3.20.3", "6.33.6"), Change("tensorflow", "2.16.1", "2.20.0")]
    assert installing.broken_by(changes, PINNED) == ["mlflow 2.16.0 needs protobuf<6,>=3.12"]
    assert installing.broken_by([Change("protobuf", "", "6.33.6")], PINNED) == []


def test_without_uv_and_pip() -> None:
    with pytest.raises(Exception, match="/env/bin/python has no pip, and there is no uv; pip install uv"):
        installing.installer_for(PINNED, None)


# ---- for real -------------------------------------------------------------------------------------------


@pytest.fixture
def make(tmp_path: Path, uv: str, other_python: str, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a virtual environment of another Python with packages; its python."""
    monkeypatch.setenv("PATH", f"{Path(uv).parent}:{os.environ['PATH']}")

    def make(*packages: str, seed: bool = False) -> str:
        venv = tmp_path / "venv"
        python = str(venv / "bin" / "python")
        seeds = ["--seed"] if seed else []
        _uv(uv, "venv", "--quiet", *seeds, "--python", other_python, str(venv))
        if packages:
            _uv(uv, "pip", "install", "--quiet", "--python", python, *packages)
        return python

    return make


def _uv(*words: str) -> None:
    env = {**os.environ, "UV_HTTP_RETRIES": "0"}
    ran = subprocess.run(words, capture_output=True, text=True, timeout=100, env=env)
    if ran.returncode:
        unavailable(ran.stderr[-400:])


def needs(python: str, name: str, requirement: str) -> None:
    """Installs a package that has nothing but a requirement."""
    (site,) = Path(python).parents[1].glob("lib/python3.*/site-packages")
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: {requirement}\n"
    (folder / "METADATA").write_text(metadata)


def installed(python: str) -> dict[str, str]:
    found = interpreters.ask(python, installed=True)
    assert found is not None
    return installing.versions(found)


@pytest.mark.interpreters
@pytest.mark.timeout(240)
class TestForReal:
    def test_an_empty_environment(self, make: Make, capfd: pytest.CaptureFixture[str]) -> None:
        python = make()
        before, *_ = doctor.pythons([python])
        assert (before.level, before.advice) == ("bad", f"snakepit-ray setup {python}")
        assert f"at {python}: lacks grpcio (1.34 or later) and protobuf (3.20 or later)" in before.what

        assert main(["setup", python]) == 0
        assert "the bridge imports there" in capfd.readouterr().out
        subprocess.run([python, "-I", "-c", "import snakepit_bridge, grpc"], check=True, cwd="/", timeout=60)
        after, *_ = doctor.pythons([python])
        assert after.level == "ok"
        left = {path.name for path in Path(bridge_directory()).iterdir()}
        assert not left & {"build", "dist", "snakepit_bridge.egg-info"}, "it left something in the checkout"

    def test_what_is_there_stays(self, make: Make, capfd: pytest.CaptureFixture[str]) -> None:
        # A package that needs protobuf < 4 had 6.33 under it afterwards, and the exit status was 0.
        python = make("protobuf==3.20.3")
        needs(python, "pinner", "protobuf<4")
        assert main(["setup", python]) == 0, capfd.readouterr().err
        assert installed(python)["protobuf"] == "3.20.3"
        assert "gets: grpcio " in capfd.readouterr().out

    def test_what_has_to_change_is_asked_for(self, make: Make, capfd: pytest.CaptureFixture[str]) -> None:
        python = make("protobuf==3.19.6")
        before = installed(python)
        assert main(["setup", python]) == 1
        said = capfd.readouterr()
        assert "what is installed there changes: protobuf 3.19.6 to " in said.out
        assert "nothing was changed" in said.err and "--yes" in said.err
        assert installed(python) == before

        needs(python, "pinner", "protobuf<3.20")
        assert main(["setup", "--yes", python]) == 1
        said = capfd.readouterr()
        assert "it would change protobuf 3.19.6 to " in said.err
        assert "pinner 1.0 needs protobuf<3.20" in said.err
        assert installed(python) == {**before, "pinner": "1.0"}

        (folder,) = Path(python).parents[1].glob("lib/python3.*/site-packages/pinner-1.0.dist-info")
        folder.joinpath("METADATA").unlink()
        folder.rmdir()
        assert main(["setup", "--yes", python]) == 0, capfd.readouterr().err
        assert tuple(map(int, installed(python)["protobuf"].split(".")[:2])) >= (3, 20)

    @pytest.mark.slow
    def test_by_pip(
        self, make: Make, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        python = make("protobuf==3.20.3", seed=True)
        monkeypatch.setattr("snakepit_ray.cli.setup.find_uv", lambda: None)
        assert main(["setup", python]) == 0, capfd.readouterr().err
        assert installed(python)["protobuf"] == "3.20.3"
        assert f"running: {python} -m pip install" in capfd.readouterr().out


# ---- doctor ---------------------------------------------------------------------------------------------


def test_doctor_names_each_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bin_directory = Path(sys.executable).parent
    paths = [str(bin_directory / name) for name in ("python", "python3")]
    monkeypatch.setattr(doctor, "_found", lambda: paths)
    monkeypatch.setenv("SNAKEPIT_PYTHON", paths[1])
    said = [finding.what for finding in doctor.pythons([paths[0]])]
    assert len([what for what in said if f"at {bin_directory}" in what]) == 1, said


def test_doctor_names_the_path_that_was_asked(tmp_path: Path) -> None:
    """A shim's path and that of the Python behind it were told in one line, as if one were in the other."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    shim = tmp_path / "shim"
    shim.write_text(f'#!/bin/sh\nexec "{tmp_path}/bare/bin/python" "$@"\n')
    shim.chmod(0o755)
    finding, *_ = doctor.pythons([str(shim)])
    version = ".".join(map(str, sys.version_info[:3]))
    needs = "grpcio (1.34 or later) and protobuf (3.20 or later)"
    assert finding == ("bad", f"Python {version} at {shim}: lacks {needs}", f"snakepit-ray setup {shim}")


def test_doctor_says_where_frames_alone_are_served(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    (site,) = (tmp_path / "bare").glob("lib/python3.*/site-packages")
    (site / "google").symlink_to(Path(google.protobuf.__file__).parents[1])
    finding, *_ = doctor.pythons([str(tmp_path / "bare/bin/python")])
    assert finding.level == "ok"
    assert finding.what.endswith("the bridge imports; without grpcio, so requests travel as frames alone")


def test_doctor_looks_at_the_python_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_found", list)
    monkeypatch.setenv("SNAKEPIT_PYTHON", "/nowhere/python")
    first, *_ = doctor.pythons([])
    assert (first.level, first.what) == ("bad", "SNAKEPIT_PYTHON=/nowhere/python does not run")


def test_doctor_advises_nothing_that_cannot_help(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Interpreter("/old/python", (3, 7, 16), "/old", "the bridge needs 3.9 or later")
    monkeypatch.setattr(doctor, "_found", lambda: ["/old/python"])
    monkeypatch.setattr(doctor, "ask", lambda path: old if path == "/old/python" else None)
    *_, last = doctor.pythons([])
    assert last == ("note", "Python 3.7.16 at /old/python: the bridge needs 3.9 or later", "")
    (named, *_) = doctor.pythons(["/old/python"])
    assert (named.level, named.advice) == ("bad", "name another interpreter")
