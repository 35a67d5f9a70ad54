"""The digits pipeline as a batch job: `ray job submit` to a cluster with a job server, this test's own."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from tests.conftest import interpreters, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
ROOT = Path(__file__).resolve().parent.parent.parent
JOB_SECONDS, END_SECONDS = 150, 30

# Its cluster ends, when its stdin does; a line is answered with the named actors. Ray's job agent listens on
# a fixed port, which another cluster of this machine may have (then no job is taken), and ray.init has no
# word for it. A job joins the cluster whose address is on file, which `ray start` writes and ray.init does
# not: without it, any that runs on this machine.
HEAD = """
import functools, json, sys, ray
from ray._private.parameter import RayParams
from ray._private.utils import write_ray_address
RayParams.__init__ = functools.partialmethod(RayParams.__init__, dashboard_agent_listen_port=0)
started = ray.init(address="local", num_cpus=4, include_dashboard=True, dashboard_port=0, log_to_driver=False,
                   object_store_memory=100_000_000, _temp_dir=sys.argv[1])
write_ray_address(started.address_info["gcs_address"], sys.argv[1])
print(json.dumps(started.dashboard_url), flush=True)
for line in sys.stdin:
    print(json.dumps(ray.util.list_named_actors(all_namespaces=True)), flush=True)
ray.shutdown()
"""


class Head(NamedTuple):
    """A cluster with a job server."""

    process: subprocess.Popen[str]
    url: str
    env: dict[str, str]

    def named_actors(self) -> list[dict[str, str]]:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def head() -> Iterator[Head]:
    folder = tempfile.mkdtemp(prefix="rayjob", dir="/tmp")  # short: Ray's socket paths end at 107 bytes
    try:
        env = _environment(folder)
        process = _started(folder, env)
        try:
            url = process.stdout.readline()
            assert url, Path(folder, "head.log").read_text()
            yield Head(process, "http://" + json.loads(url), env)
        finally:
            _ended(process)
        wait_until(lambda: not _processes_of(folder), END_SECONDS, "every process of the test's cluster gone")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: str) -> dict[str, str]:
    """Nothing of another cluster's (RAY_ADDRESS, RAY_JOB_*), and a token of its own: Ray 2.60 wants one."""
    token = Path(folder, "token")
    token.write_text(secrets.token_hex(32))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_TMPDIR": folder}


def _started(folder: str, env: dict[str, str]) -> subprocess.Popen[str]:
    with open(Path(folder, "head.log"), "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD, folder],
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    return process


def _ended(process: subprocess.Popen[str]) -> None:
    process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # Ray's own processes watch it and follow
        process.wait()
    process.stdout.close()


def _processes_of(folder: str) -> list[int]:
    """Pids of living processes that name the cluster's directory: the raylet, the GCS, the dashboard, the
    job."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if folder.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_the_pipeline_runs_as_a_submitted_job(head: Head, tmp_path: Path) -> None:
    before, output = interpreters(), tmp_path / "digits.parquet"
    said = submit(head, "--workers", "2", "--name", "job", "--output", str(output))
    assert status_of(head) == "SUCCEEDED", said
    assert "2/2 workers" in said
    assert "0 errors" in said

    table = pq.read_table(output).to_pydict()
    assert set(table) == {"row", "digit", "logistic", "forest", "ink", "x", "y"}
    assert table["row"] == list(range(2, 1797, 3)), "the rows that no model was trained on, each once"
    assert set(table["digit"]) == set(range(10))
    assert all(0 < ink < 64 and 0 <= x <= 7 for ink, x in zip(table["ink"], table["x"], strict=True))
    for model, least in (("logistic", 0.94), ("forest", 0.95)):
        right = sum(map(int.__eq__, table[model], table["digit"])) / len(table["row"])
        assert least < right < 1.0
        assert re.search(rf"^{model} +{right:.2%}", said, re.M), f"{model}: {right:.2%} in the file\n{said}"

    wait_until(lambda: interpreters() <= before, 30, "the job's interpreters gone")
    wait_until(lambda: not ours(head.named_actors()), 30, "the names of the pool's actors free")


def ours(actors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [actor for actor in actors if actor["namespace"] == "snakepit"]


def submit(head: Head, *args: str) -> str:
    """Runs the demo's script as a job, to its end. Returns what it printed."""
    job = [sys.executable, "jobs/digits.py", *args]
    ran: Any = None

    def taken() -> bool:
        """A new cluster's job agent comes up after its head: until then nothing is submitted."""
        nonlocal ran
        ran = subprocess.run(
            [
                *RAY,
                "job",
                "submit",
                "--address",
                head.url,
                "--working-dir",
                str(ROOT / "cluster"),
                "--",
                *job,
            ],
            env=head.env,
            capture_output=True,
            text=True,
            timeout=JOB_SECONDS,
        )
        return "No available agent" not in ran.stderr

    wait_until(taken, 90, "the job server has an agent")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def status_of(head: Head) -> str:
    """What the job server says of its only job."""
    token = Path(head.env["RAY_AUTH_TOKEN_PATH"]).read_text()
    asked = urllib.request.Request(head.url + "/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        (status,) = [job["status"] for job in json.load(answer) if job["type"] == "SUBMISSION"]
    return status
