"""The command line and the environment of an interpreter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snakepit_ray.process.launch import build_launch
from snakepit_ray.runtimes.activation import activation

PATH = "/usr/local/bin:/usr/bin"


def environment(base: dict[str, str], user: dict[str, str] | None = None) -> dict[str, str]:
    launch = build_launch(
        argv=("/x/python", "main.py"),
        base_environ=base,
        user_env=user or {},
        token="t",
        thread_limits=1,
    )
    return dict(launch.env)


LANGUAGES = (
    "GEM_HOME",
    "GEM_PATH",
    "RUBYLIB",
    "PERL5LIB",
    "LUA_PATH",
    "LUA_CPATH",
    "NODE_PATH",
    "GOMAXPROCS",
)


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "LC_ALL", "R_LIBS", "R_LIBS_USER", "R_LIBS_SITE", *LANGUAGES]
)
def test_what_a_language_needs_is_inherited(name: str) -> None:
    assert environment({name: "here"})[name] == "here"


@pytest.mark.parametrize(
    "name", ["PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "RAY_JOB_ID", "RAY_AUTH_TOKEN", "PYTHONSAFEPATH"]
)
def test_what_is_the_clusters_own_is_not(name: str) -> None:
    assert name not in environment({name: "there"})


def test_the_users_own_values_win() -> None:
    user = {"PATH": "/mine", "PYTHONHOME": "/home", "OMP_NUM_THREADS": "7"}
    assert environment({"PATH": PATH}, user).items() >= user.items()


def python_in(directory: Path, name: str = "python", of: Path | None = None) -> str:
    """A program that could be a Python, or a link to one."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    if of is None:
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    else:
        path.symlink_to(of)
    return str(path)


def test_a_virtual_environment_is_activated(tmp_path: Path) -> None:
    base = python_in(tmp_path / "base")
    executable = python_in(tmp_path / "env/bin", of=Path(base))
    (tmp_path / "env/pyvenv.cfg").touch()
    bin_directory = str(tmp_path / "env/bin")
    expected = {"PATH": f"{bin_directory}:{PATH}", "VIRTUAL_ENV": str(tmp_path / "env")}
    assert activation(executable, PATH) == expected
    assert activation(executable, f"/usr/bin:{bin_directory}")["PATH"] == f"{bin_directory}:/usr/bin"


def test_a_python_that_is_found_already_moves_nothing(tmp_path: Path) -> None:
    executable = python_in(tmp_path / "base")
    assert activation(executable, f"/opt/first:{tmp_path}/base:/usr/bin") == {}
    assert activation(python_in(tmp_path / "base", "python3", Path(executable)), f"{tmp_path}/base") == {}


def test_an_environment_on_path_is_not_the_python_that_it_was_made_with(tmp_path: Path) -> None:
    """Its `python` is a link to the same file, and has other packages."""
    executable = python_in(tmp_path / "base")
    python_in(tmp_path / "env/bin", of=Path(executable))
    (tmp_path / "env/pyvenv.cfg").touch()
    path = f"{tmp_path}/env/bin"
    assert activation(executable, path) == {"PATH": f"{tmp_path}/base:{path}"}


def test_a_link_elsewhere_leads_to_where_its_python_is(tmp_path: Path) -> None:
    real = python_in(tmp_path / "real")
    link = python_in(tmp_path / "links", "mine", Path(real))
    python_in(tmp_path / "links")  # another one
    assert activation(link, PATH)["PATH"].split(os.pathsep)[0] == str(tmp_path / "real")
