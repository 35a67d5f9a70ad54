"""The commands that look at this machine's interpreters: with real entries, without Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit_ray.cli import main, parser, processes
from snakepit_ray.process import registry, tree
from snakepit_ray.process.node import node_directory
from tests.conftest import wait_until
from tests.process.conftest import GONE, ROOT, alive, write_entry


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory for each test: its registry has its own entries only."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def carriers() -> Iterator[dict[str, int]]:
    """Two processes by their tokens."""
    tokens = ("kept", "lost")
    started = {
        token: subprocess.Popen(["sleep", "600"], env={**os.environ, "SNAKEPIT_TOKEN": token})
        for token in tokens
    }
    wait_until(lambda: all(tree.find(token) for token in tokens))
    yield {token: process.pid for token, process in started.items()}
    for process in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["processes"], {"json": False}), (["processes", "--json"], {"json": True}), (["cleanup"], {})],
)
def test_what_each_command_takes(words: list[str], expected: dict[str, object]) -> None:
    parsed = vars(parser().parse_args(words))
    assert {key: parsed[key] for key in expected} == expected


def test_on_a_machine_without_interpreters(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["processes"], "no interpreter is registered on this machine\n"),
        (["processes", "--json"], "[]\n"),
        (["cleanup"], "nothing to clean up\n"),
    ):
        assert main(words) == 0
        assert capsys.readouterr().out == said
    assert list(base.iterdir()) == [], "looking creates nothing"


def test_the_table(base: Path, carriers: dict[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    write_entry(base, "kept", pid=carriers["kept"], worker_id="features-0")
    write_entry(base, "lost", pid=carriers["lost"], worker_id="features-11", **GONE)
    write_entry(base, "none", created_at=1e9, **GONE)
    assert main(["processes"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["state", "worker", "pool", "pid", "age", "rss"]
    assert lines[1][:4] == ["dead", "w-0", "pool", "-"] and lines[1][4].endswith("d") and lines[1][5] == "-"
    rows = {line[0]: line for line in lines[2:]}
    assert rows["alive"][1:4] == ["features-0", "pool", str(carriers["kept"])]
    assert rows["orphan"][1:4] == ["features-11", "pool", str(carriers["lost"])]
    assert all(row[4].endswith("s") and row[5:][1] == "MB" for row in rows.values())
    assert alive(carriers["lost"]), "looking ends nothing"


def test_as_json(base: Path, carriers: dict[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    entry = registry.register("kept", "features-0", "features", "/somewhere")
    assert main(["processes", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert 0 <= row.pop("age_s") < 60
    assert 0 < row.pop("rss") < 1e9
    assert row == {
        "state": "alive",
        "worker": "features-0",
        "pool": "features",
        "pid": None,
        "processes": [carriers["kept"]],
        "owner": os.getpid(),
        "directory": "/somewhere",
    }
    entry.remove()


def test_cleanup(base: Path, carriers: dict[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    directory = base / "snakepit-lost"
    directory.mkdir()
    write_entry(base, "kept")
    write_entry(base, "lost", directory=str(directory), **GONE)
    write_entry(base, "none", **GONE)
    assert main(["cleanup"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"ended 1 process: {carriers['lost']}",
        "removed 2 entries of workers that are gone",
        f"removed {directory}",
    ]
    assert not alive(carriers["lost"]) and alive(carriers["kept"]) and not directory.exists()
    assert main(["cleanup"]) == 0
    assert capsys.readouterr().out == "nothing to clean up\n"


@pytest.mark.parametrize("words", [["processes"], ["cleanup"]])
def test_a_registry_that_cannot_be_trusted(
    base: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    node_directory().symlink_to(base)
    assert main(words) == 1
    assert f"ConfigError: {node_directory()} is a symbolic link" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s"), (59.4, "59s"), (60, "1m"), (7199, "1h"), (86_400 * 3.5, "3d")]
)
def test_age(seconds: float, said: str) -> None:
    assert processes.age(seconds) == said


@pytest.mark.parametrize("command", ["processes", "cleanup"])
def test_ray_is_not_loaded(base: Path, command: str) -> None:
    script = (
        f"import sys; from snakepit_ray.cli import main; status = main([{command!r}]); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'ray', 'grpc', 'numpy'})); "
        "sys.exit(status)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(base)}
    ran = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr, ran.stdout.splitlines()[-1]) == (0, "", "[]")
