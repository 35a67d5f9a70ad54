"""One local Ray cluster for all tests that need one, and pools that several tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.port import ray_port
from tests.conftest import interpreters, wait_until
from tests.ray import forked_workers

LANE = os.environ.get("SNAKEPIT_TEST_LANE", "auto")  # "off": the same tests, with all calls by Ray
ADAPTERS = Path(__file__).resolve().parent.parent / "adapters"


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One for each process of the tests. To pytest it is another fixture in each folder that imports it."""
    if ray.is_initialized():
        yield
        return
    # The pools' own processes are what is measured and killed here: Ray needs few resources.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The loop that users have who installed nothing beside Ray; tests/lane/test_uvloop.py has the other one.
    os.environ.setdefault("RAY_USE_UVLOOP", "0")
    # On a busy machine the processes of a node need longer than the 30 s that Ray gives them.
    os.environ.setdefault("RAY_agent_register_timeout_ms", "200000")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "200")
    forked_workers.install()
    start_ray()
    yield
    snakepit.shutdown()
    ray.shutdown()
    wait_until(lambda: not interpreters(), 30, "all interpreters gone with the cluster")


def start_ray() -> None:
    """Ray gives its node 30 s to start, which a loaded machine may exceed once."""
    options = {"address": "local", "num_cpus": 8, "include_dashboard": False, "log_to_driver": False}
    try:
        ray.init(**options, object_store_memory=400_000_000)
    except Exception:
        ray.shutdown()
        ray.init(**options, object_store_memory=400_000_000)


@pytest.fixture
def start(cluster: None) -> Iterator[object]:
    """Starts pools that end with the test."""
    pools = []

    def run(**settings):
        settings.setdefault("interpreter", sys.executable)
        settings.setdefault("lane", LANE)
        settings.setdefault("name", f"test-{os.urandom(4).hex()}")
        pool = snakepit.start(**settings)
        pools.append(pool)
        return pool

    yield run
    for pool in pools:
        pool.shutdown()


@pytest.fixture(scope="module")
def shared(cluster: None) -> Iterator[snakepit.Pool]:
    """A pool of two showcase workers for tests that only call."""
    settings = {"name": f"shared-{os.urandom(4).hex()}", "lane": LANE}
    with snakepit.start(size=2, interpreter=sys.executable, **settings) as pool:
        yield pool


class Logged(NamedTuple):
    """A pool whose interpreters write down what they execute. Several tests of a module call it: each finds
    an empty log, and leaves it idle, with the interpreters that it had."""

    pool: snakepit.Pool
    log: Path

    def executed(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


def _logging(size: int, folder: Path) -> Iterator[Logged]:
    log, name = folder / "log", f"logged-{size}-{os.urandom(4).hex()}"
    settings = {"adapter": adapter("log.py:Log"), "adapter_args": {"path": str(log)}, "lane": LANE}
    with snakepit.start(name=name, size=size, interpreter=sys.executable, **settings) as pool:
        yield Logged(pool, log)


@pytest.fixture(scope="module")
def _logging_1(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    yield from _logging(1, tmp_path_factory.mktemp("logged"))


@pytest.fixture(scope="module")
def _logging_2(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    yield from _logging(2, tmp_path_factory.mktemp("logged"))


@pytest.fixture
def logged_1(_logging_1: Logged) -> Iterator[Logged]:
    yield from _lent(_logging_1)


@pytest.fixture
def logged_2(_logging_2: Logged) -> Iterator[Logged]:
    yield from _lent(_logging_2)


def _lent(one: Logged) -> Iterator[Logged]:
    """To one test: with an empty log, and idle before and after."""
    wait_until(lambda: _idle(one.pool), 20, "the pool is idle before the test")
    one.log.unlink(missing_ok=True)
    yield one
    wait_until(lambda: _idle(one.pool), 20, "the test leaves its pool idle")


def _idle(pool: snakepit.Pool) -> bool:
    stats = pool.stats()
    return (stats.busy, stats.waiting) == (0, 0)


def router_pid(pool: snakepit.Pool) -> int:
    """The process of the pool's router, when it has one again."""
    router = ray_port.find_router(pool.name)
    return int(ray.get(router.get_pid.options(max_task_retries=-1).remote()))


def adapter(name: str) -> str:
    """Path of a test adapter, with its class."""
    return str(ADAPTERS / name)
