"""The command line against a cluster: up, status, call, down, as a user's shell runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import ray

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs `snakepit-ray` in a process of its own, in the tests' cluster."""
    address = ray.get_runtime_context().gcs_address
    return subprocess.run(
        [sys.executable, "-m", "snakepit_ray.cli", words[0], "--address", address, *words[1:]],
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def file(cluster: None, tmp_path: Path):
    """A snakepit.toml with a pool of two and one that cannot start; afterwards none of it runs."""
    path = tmp_path / "snakepit.toml"
    path.write_text(
        f"""
        [defaults]
        interpreter = "{sys.executable}"
        [pools.cli-good]
        size = 2
        [pools.cli-bad]
        size = 1
        adapter = "no_such_module:Nothing"
        """
    )
    yield str(path)
    cli("down", "cli-good")


def test_from_up_to_down(file: str) -> None:
    up = cli("up", file)
    assert up.returncode == 1, "one of the pools is broken"
    assert up.stdout == "cli-good: 2 workers ready\n"
    assert up.stderr.count("cli-good: 2 of 2 workers ready\n") == 1
    assert "cli-bad: FAILED: " in up.stderr
    assert "no_such_module" in up.stderr
    assert "Token authentication" not in up.stderr

    status = cli("status", "--json")
    assert (status.returncode, status.stderr) == (0, "")
    pool = json.loads(status.stdout)["cli-good"]
    assert pool["stats"]["workers"] == 2
    assert [worker["state"] for worker in pool["workers"]] == ["ready", "ready"]
    pids = {worker["pid"] for worker in pool["workers"]}

    recycled = cli("recycle", "cli-good")
    assert (recycled.returncode, recycled.stdout) == (0, "cli-good: 2 replaced\n"), recycled.stderr
    detailed = cli("status", "--detailed")
    assert detailed.stdout.count("ready: pid") == 4, detailed.stdout
    after = json.loads(cli("status", "--json", "--detailed").stdout)["cli-good"]
    assert not pids & {worker["pid"] for worker in after["workers"]}
    assert set(after["stories"]) == {"cli-good-0", "cli-good-1"}
    nobody = cli("recycle", "cli-good", "cli-good-7")
    assert nobody.returncode == 1 and "cli-good-7" in nobody.stderr

    call = cli("call", "cli-good", "add", '{"a": 5, "b": 3}', "--session", "s")
    assert (call.returncode, json.loads(call.stdout), call.stderr) == (0, {"result": 8}, "")

    tensor = cli("call", "cli-good", "create_tensor", '{"shape": [2, 3], "fill_value": 1.5}')
    assert tensor.returncode == 0, tensor.stderr
    assert [[1.5] * 3] * 2 in json.loads(tensor.stdout).values()

    unknown = cli("call", "cli-good", "ad", '{"a": 5, "b": 3}')
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("snakepit-ray: UnknownCommand: ")
    assert "add" in unknown.stderr

    table = cli("status").stdout
    assert "cli-good: workers 2, " in table
    header, *rows = table.partition("cli-good: ")[2].splitlines()[1:4]
    assert header.split()[:3] == ["worker_id", "state", "pid"]
    assert [row.split()[:2] for row in rows] == [["cli-good-0", "ready"], ["cli-good-1", "ready"]]

    down = cli("down", "cli-good", "cli-nobody")
    assert (down.returncode, down.stdout) == (1, "cli-good: down\n")
    assert "cli-nobody: FAILED: there is no pool named 'cli-nobody'" in down.stderr
    assert "cli-good" not in json.loads(cli("status", "--json").stdout)


def test_up_without_a_file(cluster: None, tmp_path: Path) -> None:
    ran = cli("up", str(tmp_path / "nothing.toml"))
    assert ran.returncode == 1
    assert ran.stderr.startswith("snakepit-ray: ConfigError: ")
    assert "nothing.toml" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_tour(cluster: None) -> None:
    ran = cli("demo")
    assert ran.returncode == 0, ran.stderr
    assert "add:  {'result': 8}" in ran.stdout
    assert "map:  200 requests" in ran.stdout
