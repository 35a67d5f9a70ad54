"""The command line against a cluster: in this process, and twice as a user's shell runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from snakepit_ray.cli import doctor, main, pools
from snakepit_ray.cli.doctor import Finding
from snakepit_ray.cli.status import NOT_READY_STATUS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]
GOOD = "cli-good"


def shell(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs `snakepit-ray` in a process of its own, in the tests' cluster."""
    address = ray.get_runtime_context().gcs_address
    return subprocess.run(
        [sys.executable, "-m", "snakepit_ray.cli", *words],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "RAY_ADDRESS": address, **env},
    )


@pytest.fixture(scope="module")
def up(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str, str]]:
    """A pool of two and one that cannot start, by `up`: its status and what it printed."""
    path = tmp_path_factory.mktemp("up") / "snakepit.toml"
    path.write_text(
        f"""
        [defaults]
        interpreter = "{sys.executable}"
        [pools.{GOOD}]
        size = 2
        [pools.cli-bad]
        size = 1
        adapter = "no_such_module:Nothing"
        """
    )
    with pytest.MonkeyPatch.context() as patched:
        said = {"out": "", "err": ""}
        for name in said:
            file = (path.parent / name).open("w+")
            patched.setattr(sys, f"std{name}", file)
        status = main(["up", str(path)])
        for name in said:
            stream = getattr(sys, f"std{name}")
            stream.seek(0)
            said[name] = stream.read()
            stream.close()
    yield status, said["out"], said["err"]
    main(["down", GOOD])


def test_up_says_what_came_of_each_pool(up: tuple[int, str, str]) -> None:
    status, out, err = up
    assert status == 1, "one of the pools is broken"
    assert out == f"{GOOD}: ready: 2 of 2 workers ready\n"
    assert GOOD not in err, "one line for what is ready, not two"
    assert err.startswith("cli-bad: FAILED: ") and "no_such_module" in err


def test_status(up: object, capsys: pytest.CaptureFixture[str]) -> None:
    pool = _status(capsys)
    assert (pool["ready"], pool["verdict"]) == (True, "ready: 2 of 2 workers ready")
    assert pool["stats"]["workers"] == 2
    assert [worker["state"] for worker in pool["workers"]] == ["ready", "ready"]


def test_doctor_says_which_way_calls_to_each_worker_go(up: object) -> None:
    said = [finding for finding in doctor.pools(None) if f"pool {GOOD}:" in finding.what]
    assert said == [Finding("ok", f"pool {GOOD}: calls from here to {GOOD}-0, {GOOD}-1 take their lanes")]


def _status(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["status", "--json", *words]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return json.loads(said.out)[GOOD]


def test_the_table(up: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.partition(f"{GOOD}: ")[2].splitlines()
    assert lines[0] == "ready: 2 of 2 workers ready"
    assert lines[1].startswith("  workers 2, ")
    assert lines[2].split()[:3] == ["worker_id", "state", "pid"]
    assert [line.split()[:2] for line in lines[3:5]] == [[f"{GOOD}-0", "ready"], [f"{GOOD}-1", "ready"]]


def test_status_says_what_is_not_ready(
    up: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its exit status, too; a pool that does not answer hides none of the others."""
    monkeypatch.setattr("snakepit_ray.port.ray_port.pool_names", lambda: ["cli-nobody", GOOD])
    assert main(["status"]) == NOT_READY_STATUS
    out = capsys.readouterr().out
    assert "cli-nobody: NOT READY: PoolNotFound: there is no pool named 'cli-nobody'" in out
    assert f"{GOOD}: ready: 2 of 2 workers ready" in out


def test_call(up: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", GOOD, "add", '{"a": 5, "b": 3}', "--session", "s"]) == 0
    assert capsys.readouterr() == ('{"result": 8}\n', "")

    assert main(["call", GOOD, "create_tensor", '{"shape": [2, 3], "fill_value": 1.5}']) == 0
    assert [[1.5] * 3] * 2 in json.loads(capsys.readouterr().out).values()

    assert main(["call", GOOD, "echo", '{"loss": NaN}']) == 0
    said = capsys.readouterr()
    assert json.loads(said.out, parse_constant=pytest.fail) == {"echoed": {"loss": None}}
    assert "JSON has no nan: printed as null, 1 in all" in said.err

    assert main(["call", GOOD, "ad", '{"a": 5, "b": 3}']) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("snakepit-ray: UnknownCommand: ") and "add" in said.err


def test_call_from_a_shell(up: object) -> None:
    """An output that has only ASCII was a traceback after the command had run."""
    ran = shell("call", GOOD, "echo", '{"name": "José"}', PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (ran.returncode, json.loads(ran.stdout)) == (0, {"echoed": {"name": "José"}}), ran.stderr
    assert ran.stdout.isascii()
    address = ray.get_runtime_context().gcs_address
    assert ran.stderr.splitlines()[0] == f"cluster: {address} (RAY_ADDRESS)"
    assert "Token authentication" not in ran.stderr


def test_describe(up: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", GOOD]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "add(a: number, b: number)  a + b." in lines
    assert any(line.startswith("stream_data(") and ") -> stream  " in line for line in lines)
    assert main(["describe", GOOD, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["commands"]["add"]["parameters"]["required"] == ["a", "b"]
    assert said["tools"] == []


def test_recycle_and_down(up: object, capsys: pytest.CaptureFixture[str]) -> None:
    pids = {worker["pid"] for worker in _status(capsys)["workers"]}
    assert main(["recycle", GOOD]) == 0
    assert capsys.readouterr().out == f"{GOOD}: 2 replaced\n"
    assert main(["status", "--detailed"]) == 0
    assert capsys.readouterr().out.count("ready: pid") == 4
    after = _status(capsys, "--detailed")
    assert not pids & {worker["pid"] for worker in after["workers"]}
    assert set(after["stories"]) == {f"{GOOD}-0", f"{GOOD}-1"}
    assert main(["recycle", GOOD, f"{GOOD}-7"]) == 1
    assert f"{GOOD}-7" in capsys.readouterr().err

    assert main(["down"]) == 1
    assert GOOD in capsys.readouterr().err, "it says what runs, and ends nothing"
    assert main(["down", GOOD, "cli-nobody"]) == 1
    said = capsys.readouterr()
    assert said.out == f"{GOOD}: down\n"
    assert "cli-nobody: FAILED: there is no pool named 'cli-nobody'" in said.err
    assert main(["status", "--json"]) == 0
    assert GOOD not in json.loads(capsys.readouterr().out)


def test_up_of_pools_that_are_all_named_wrongly(cluster: None, tmp_path: Path) -> None:
    """In a shell: no traceback, and the file is told before the cluster."""
    ran = shell("up", str(tmp_path / "nothing.toml"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("snakepit-ray: ConfigError: ") and "nothing.toml" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_tour(cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert pools.demo(None) == 0
    out = capsys.readouterr().out
    assert "add:  {'result': 8}" in out
    assert "map:  200 requests" in out
    assert "in all: 204 requests on 2 workers, 0 errors" in out
