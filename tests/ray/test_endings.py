"""Drivers, tasks and raylets that end: what they asked for ends, and their pools with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from tests.conftest import interpreters, wait_until
from tests.ray.conftest import adapter
from tests.ray.harness import (
    alive,
    driver,
    driver_that_dies,
    executed,
    start_log,
)

pytestmark = pytest.mark.ray


# ---- callers that are gone --------------------------------------------------------------------------------


CALLER = """
pool = snakepit.connect({name!r})
refs = [pool.execute.remote("until_cancelled", {{"tag": f"dead{{i}}"}}) for i in range(4)]
print("sent", flush=True)
time.sleep(600)
"""


def test_what_a_dead_driver_asked_for_is_dropped_and_cancelled(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=1, queue_timeout=60.0)
    with driver_that_dies(CALLER.format(name=pool.name), "sent"):
        wait_until(lambda: pool.stats().waiting == 3, 20, "one runs, three wait")
    killed = time.monotonic()
    wait_until(lambda: "dead0:cancelled" in executed(log) or len(executed(log)) == 2, 30, "the running one")
    wait_until(lambda: (pool.stats().waiting, pool.stats().busy) == (0, 0), 30, "nothing of it is left")
    assert time.monotonic() - killed < 5.0
    ran = executed(log)
    assert len(ran) == 2 and ran[1] == f"{ran[0]}:cancelled", "what waited never ran"
    assert pool.execute("run", {"tag": "next"})["tag"] == "next"


@ray.remote(num_cpus=0, max_retries=0)
def ask_and_wait(pool: Any, path: str) -> None:
    Path(path).write_text(str(os.getpid()))  # first: whoever sees the command run reads it
    refs = [pool.execute.remote("until_cancelled", {"tag": "task"})]
    ray.get(refs)


def test_what_a_dead_task_asked_for_is_cancelled(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=1)
    pid = tmp_path / "pid"
    task = ask_and_wait.remote(pool, str(pid))
    wait_until(lambda: executed(log) == ["task"], 20, "it runs")
    os.kill(int(pid.read_text()), signal.SIGKILL)
    wait_until(lambda: executed(log) == ["task", "task:cancelled"], 30, "it was told to stop")
    with pytest.raises(ray.exceptions.RayError):
        ray.get(task)


# ---- the end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "closed stdout", "drain"])
def test_a_driver_that_ends_takes_its_pool_along(cluster: None, how: str) -> None:
    before = interpreters()
    endings = {
        "closed stdout": "os.close(1)\nprint('into the void')",
        "drain": "ref = pool.execute.remote('sleep_task', {'duration_ms': 400, 'task_number': 7})\n"
        "pool.shutdown(drain=20)\n"
        "sys.exit(0 if ray.get(ref)['task_number'] == 7 else 9)",
    }
    process = driver(
        f"pool = snakepit.start(name='ending-{how.split()[0]}', size=2, interpreter=sys.executable)\n"
        "pool.execute('ping')\n"
        "print(json.dumps([w.pid for w in pool.workers()]), flush=True)\n"
        # In short sleeps: one that begins just after its signal came would be slept to its end.
        + endings.get(how, "while True: time.sleep(0.05)"),
        stderr=subprocess.DEVNULL,
    )
    pids = json.loads(process.stdout.readline())
    if how.startswith("SIG"):
        process.send_signal(getattr(signal, how))
    status = process.wait(30)
    wait_until(lambda: not any(alive(pid) for pid in pids), 30, "its interpreters gone")
    assert interpreters() - before == set()
    if how == "drain":
        assert status == 0


RAYLET = """
import json, os, sys, time
import ray, snakepit_ray as snakepit
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
pool = snakepit.start(name="r", size=2, interpreter=sys.executable, adapter=sys.argv[1])
pids = [w.pid for w in pool.workers()] + [pool.execute("spawn")["grandchild"]]
print(json.dumps(pids), flush=True)
time.sleep(600)
"""


def test_a_killed_raylet_takes_its_interpreters_along() -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", RAYLET, adapter("log.py:Log")],
        env={**env, "RAY_TMPDIR": f"/tmp/sp{os.getpid()}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        pids = json.loads(process.stdout.readline())
        assert len(pids) == 3 and all(alive(pid) for pid in pids)
        (raylet,) = _raylets_of(process.pid)
        os.kill(raylet, signal.SIGKILL)
        wait_until(lambda: not any(alive(pid) for pid in pids), 30, "interpreters and grandchild gone")
    finally:
        process.kill()
        process.wait()
        _end_session(f"/tmp/sp{os.getpid()}")


def _raylets_of(pid: int) -> list[int]:

    children = psutil.Process(pid).children(recursive=True)
    return [child.pid for child in children if child.name() == "raylet"]


def _end_session(folder: str) -> None:
    """Ends what a driver's own cluster left, which lost its head."""
    import shutil

    left = [p for p in psutil.process_iter(["cmdline"]) if folder in " ".join(p.info["cmdline"] or [])]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)
    shutil.rmtree(folder, ignore_errors=True)
