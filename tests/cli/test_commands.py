"""The command line without a cluster: words, exit statuses, what it runs, what doctor says."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from snakepit_ray.cli import clusters, doctor, main, parser
from snakepit_ray.cli.doctor import Finding
from snakepit_ray.core.state.asked import StoreStats
from snakepit_ray.errors import DeadlineExceeded
from snakepit_ray.process import lanes
from snakepit_ray.runtimes.python import bridge_directory

FOUND = {"ray": "2.60.0", "grpcio": "1.80.1", "protobuf": "6.33.0", "pyarrow": "21.0.0"}


# ---- words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["up"], {"file": "snakepit.toml", "address": None}),
        (["up", "o.toml", "--address", "10.0.0.1:6379"], {"file": "o.toml", "address": "10.0.0.1:6379"}),
        (["down"], {"names": []}),
        (["down", "a", "b"], {"names": ["a", "b"]}),
        (["call", "p", "add"], {"pool": "p", "command": "add", "args": "{}", "session": None}),
        (["call", "p", "add", "{}", "--session", "s", "--timeout", "2.5"], {"session": "s", "timeout": 2.5}),
        (["status", "--json"], {"json": True}),
        (["chaos", "p"], {"pool": "p", "start": False, "kills": 60, "idempotent": True, "rate": None}),
        (["chaos", "--start", "--not-idempotent", "--kill", "router"], {"pool": None, "idempotent": False}),
        (["doctor", "/a/python"], {"interpreters": ["/a/python"]}),
        (["setup", "/a/python"], {"interpreter": "/a/python", "yes": False}),
    ],
)  # fmt: skip
def test_what_each_command_takes(words: list[str], expected: dict[str, object]) -> None:
    parsed = vars(parser().parse_args(words))
    assert {key: parsed[key] for key in expected} == expected
    assert callable(parsed["run"])


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["call", "pool"], ["call", "p", "c", "--timeout", "soon"]]
)
def test_words_that_it_does_not_know(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: snakepit-ray" in capsys.readouterr().err


def test_bad_json_is_refused_before_any_cluster_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", "pool", "add", "{a: 5}", "--address", "127.0.0.1:1"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("snakepit-ray: InvalidArguments: the arguments are not JSON")
    assert "{a: 5}" in said


def test_json_that_is_too_deep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", "pool", "add", "[" * 100_000, "--address", "127.0.0.1:1"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("snakepit-ray: InvalidArguments: the arguments are not JSON: maximum recursion")
    assert len(said) < 1000


@pytest.mark.parametrize("args", ["[1, 2]", "5", "null"])
def test_arguments_that_are_no_object(args: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", "pool", "add", args, "--address", "127.0.0.1:1"]) == 1
    assert "expected a JSON object" in capsys.readouterr().err


def test_an_address_where_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        assert main(["status", "--address", address]) == 1
    said = capsys.readouterr().err
    assert f"{address} does not answer" in said
    assert "ray start --head" in said


# ---- setup ----------------------------------------------------------------------------------------------


def test_setup_of_what_is_no_interpreter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["setup", "/nowhere/python"]) == 1
    assert "'/nowhere/python' is not an executable file" in capsys.readouterr().err
    assert main(["setup", fake(tmp_path, "exit 1")]) == 1
    assert "does not run as a Python; name the path of one from 3.9" in capsys.readouterr().err


# ---- doctor ---------------------------------------------------------------------------------------------


def fake(folder: Path, body: str) -> str:
    """An executable that is not Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def versions(found: dict[str, str]) -> Callable[[str], str]:
    def version(name: str) -> str:
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    return version


@pytest.mark.parametrize(
    ("changed", "level", "what", "advice"),
    [
        ({}, "ok", "ray 2.60.0", ""),
        ({"ray": "2.59.9"}, "bad", "ray 2.59.9", "pip install --upgrade 'ray>=2.60'"),
        ({"ray": "3.0.0.dev0"}, "ok", "ray 3.0.0.dev0", ""),
        ({"ray": "3.0rc1"}, "ok", "ray 3.0rc1", ""),
        ({"ray": None}, "bad", "ray is not installed", "pip install 'ray>=2.60'"),
    ],
)
def test_packages(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None], level: str, what: str, advice: str
) -> None:
    found = {name: version for name, version in {**FOUND, **changed}.items() if version is not None}
    monkeypatch.setattr(doctor.metadata, "version", versions(found))
    first, *others = doctor.packages()
    assert first == Finding(level, what, advice)
    assert [finding.level for finding in others] == ["ok"] * 3


def test_the_store_of_sessions() -> None:
    stats = StoreStats(3, 4, 0, 0, {}, (), 0, 0, 0, 0, 0, 0, 0, 2_500_000, "sqlite", "/a/sessions.db")
    assert list(doctor._of_store(None)) == []
    assert list(doctor._of_store(stats)) == [
        Finding("ok", "session store: sqlite at /a/sessions.db, 3 sessions, 2.5 MB")
    ]
    levels = [one.level for one in doctor._of_store(replace(stats, full="disk is full", reset_from="/a/b"))]
    assert levels == ["ok", "bad", "note"]
    assert [one.level for one in doctor._of_store(DeadlineExceeded("too late"))] == ["note"]


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        ([Finding("ok", "a")], 0),
        ([Finding("ok", "a"), Finding("note", "b", "c")], 0),
        ([Finding("bad", "b", "c")], 1),
    ],
)
def test_status_and_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], findings: list[Finding], status: int
) -> None:
    monkeypatch.setattr(doctor, "look", lambda interpreters: findings)
    monkeypatch.setattr(doctor, "pools", lambda address: [])
    assert doctor.run([]) == status
    lines = capsys.readouterr().out.splitlines()
    shown = {"ok": "ok   ", "note": "note ", "bad": "bad  "}
    assert lines == [
        line
        for f in findings
        for line in (shown[f.level] + f.what, "     -> " + f.advice)
        if line.strip(" ->")
    ]


def test_a_named_interpreter_that_does_not_run(tmp_path: Path) -> None:
    (finding, *_) = doctor.pythons([fake(tmp_path, "exit 1")])
    assert finding.level == "bad"
    assert "does not run" in finding.what


def test_this_python_has_the_bridge() -> None:
    found = [finding for finding in doctor.pythons([]) if finding.what.endswith("the bridge imports")]
    assert any(f" at {sys.executable}:" in finding.what for finding in found)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory of its own, in which a socket's name is not too long."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_doctor_tries_a_lane_out_and_leaves_nothing(short: Path) -> None:
    folder = short / f"snakepit-{os.geteuid()}" / "lanes"
    assert [*doctor.lane()] == [Finding("ok", f"lanes of user {os.geteuid()} lie in {folder}")]
    assert not list(folder.iterdir())


def no_socket(*_: object) -> str:
    raise OSError("none of /tmp, /var/tmp, /dev/shm can be used instead")


def another_user(*_: object) -> int:
    return os.geteuid() + 1


@pytest.mark.parametrize(
    ("place", "name", "broken", "why"),
    [
        (lanes.sockets, "short_base", no_socket, "can be used instead"),
        (lanes.sockets, "peer_user", another_user, "runs as user"),
    ],
)
def test_doctor_says_why_there_can_be_no_lane(
    short: Path, monkeypatch: pytest.MonkeyPatch, place: object, name: str, broken: object, why: str
) -> None:
    monkeypatch.setattr(place, name, broken)
    ((level, what, advice),) = doctor.lane()
    assert level == "note" and why in what and "TMPDIR" in advice
    assert not list(short.glob("*/lanes/*"))


def test_doctor_says_whose_directory_stands_in_the_way(short: Path) -> None:
    (short / f"snakepit-{os.geteuid()}").symlink_to(short)
    ((level, what, _),) = doctor.lane()
    assert level == "note" and "is a symbolic link" in what and "remove it" in what


def test_doctor_groups_the_workers_of_a_pool_by_why_their_lanes_are_not_used() -> None:
    reasons = {"p-1": "the worker is on another node", "p-0": "", "p-2": "the worker is on another node"}
    assert list(doctor._of_pool("p", reasons)) == [
        Finding("ok", "pool p: calls from here to p-0 take their lanes"),
        Finding("note", "pool p: calls from here to p-1, p-2 go by Ray: the worker is on another node"),
    ]
    assert list(doctor._of_pool("p", "PoolClosed: it is gone")) == [
        Finding("note", "pool p: PoolClosed: it is gone")
    ]


def test_doctor_looks_at_no_pool_where_no_cluster_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "running", list)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert list(doctor.pools(None)) == []


def test_doctor_works_where_nothing_is_installed(tmp_path: Path) -> None:
    """With the package on the path and no site-packages at all: everything missing, each with its advice."""
    package = tmp_path / "snakepit_ray"
    package.symlink_to(Path(doctor.__file__).resolve().parent.parent)
    (tmp_path / "bridge").symlink_to(Path(bridge_directory()).parent)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from snakepit_ray.cli import main; sys.exit(main(['doctor']))"
    )
    ran = subprocess.run(
        [sys.executable, "-S", "-I", "-c", script], capture_output=True, text=True, timeout=90
    )
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr == ""
    for name, least in (("ray", "2.60"), ("grpcio", "1.80"), ("protobuf", "6.31"), ("pyarrow", "17")):
        assert f"bad  {name} is not installed\n     -> pip install '{name}>={least}'" in ran.stdout
