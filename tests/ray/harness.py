"""What tests of pools on a Ray cluster share: drivers, pools that write a log, and deaths."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import ray

import snakepit_ray as snakepit
from tests.conftest import wait_until
from tests.ray.conftest import adapter, router_pid

LOG = adapter("log.py:Log")
DRIVER = """
import json, os, sys, time
import ray, snakepit_ray as snakepit
ray.init(address=os.environ["TEST_RAY"], log_to_driver=False)
{body}
"""

JOBS = Path(__file__).parents[2] / "cluster" / "jobs"


def driver(body: str, **options: Any) -> subprocess.Popen[str]:
    """Another driver of the same cluster, which is to run `body`."""
    env = {**os.environ, "TEST_RAY": ray.get_runtime_context().gcs_address}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER.format(body=body)],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        preexec_fn=_hears_interrupts,
        **options,
    )


def _hears_interrupts() -> None:
    """What a shell runs in its background is deaf to SIGINT, and so is what that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def driver_that_dies(body: str, says: str) -> Iterator[None]:
    """A driver, once it has said `says`. It is killed at the end of the block."""
    process = driver(body)
    try:
        assert process.stdout.readline() == f"{says}\n"
        yield
    finally:
        process.kill()
        process.wait()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def executed(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def start_log(start: Any, tmp_path: Path, **settings: Any) -> tuple[Any, Path]:
    log = tmp_path / "log"
    return start(adapter=LOG, adapter_args={"path": str(log)}, **settings), log


def occupy(pool: Any, log: Path, go: Path, count: int) -> list[Any]:
    """Fills `count` slots until `go` exists."""
    refs = [pool.execute.remote("until_file", {"tag": f"busy{i}", "path": str(go)}) for i in range(count)]
    wait_until(lambda: len(executed(log)) == count, what="all slots busy")
    return refs


def kill_actor_of(pool: Any, number: int = 0) -> Any:
    worker = pool.workers()[number]
    os.kill(worker.actor_pid, signal.SIGKILL)
    return worker


def kill_router_of(pool: Any) -> None:
    os.kill(router_pid(pool), signal.SIGKILL)


def stats_or_none(pool: Any) -> Any:
    try:
        return pool.stats()
    except (snakepit.SnakepitError, ray.exceptions.RayError):
        return None


def job(name: str) -> ModuleType:
    """The program JOBS/NAME.py as a module, which does not run yet. JOBS must be among the places where
    Python looks for modules, as it is where the program runs."""
    spec = importlib.util.spec_from_file_location(f"jobs_{name}", JOBS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
