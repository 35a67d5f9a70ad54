"""How pools begin and end: names, several at once, broken ones, drivers that die, jobs that join."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray

import snakepit_ray as snakepit
from tests.conftest import interpreters, wait_until
from tests.ray.conftest import adapter
from tests.ray.harness import alive, driver

pytestmark = pytest.mark.ray


def test_several_pools_side_by_side(start: Any, shared: snakepit.Pool) -> None:
    one, two = start(size=1), shared
    before = two.stats().requests
    one.execute("add", {"a": 1, "b": 1})
    assert (one.stats().requests, two.stats().requests) == (1, before)
    assert (one.stats().workers, two.stats().workers) == (1, 2)
    pids = [{worker.pid for worker in pool.workers()} for pool in (one, two)]
    assert len(pids[0] | pids[1]) == 3
    assert {one.name, two.name} <= set(snakepit.get_stats() and snakepit_names())
    with pytest.raises(snakepit.PoolExists, match="connect"):
        start(name=one.name, size=1)
    assert one.execute("add", {"a": 1, "b": 1}) == {"result": 2}


def snakepit_names() -> list[str]:
    from snakepit_ray.port import ray_port

    return ray_port.pool_names()


def test_connect_to_nothing_names_what_runs(shared: snakepit.Pool) -> None:
    pool = shared
    with pytest.raises(snakepit.PoolNotFound, match=pool.name):
        snakepit.connect("nobody")
    assert snakepit.connect(pool.name).execute("add", {"a": 1, "b": 2}) == {"result": 3}


def test_after_shutdown_everything_is_gone_and_calls_say_so(start: Any) -> None:
    pool = start(size=2)
    pool.execute("ping")
    pids = {worker.pid for worker in pool.workers()} | {worker.actor_pid for worker in pool.workers()}
    pool.shutdown()
    with pytest.raises(snakepit.PoolClosed):
        pool.execute("ping")
    with pytest.raises(snakepit.PoolClosed):
        pool.stats()
    pool.shutdown()
    wait_until(lambda: not any(alive(pid) for pid in pids), what="interpreters and actors gone")
    assert "closed" in repr(pool)


@pytest.mark.parametrize("size", [0, -1, "4", 1.5, True, 100_000])
def test_a_size_that_is_none(cluster: None, size: Any) -> None:
    with pytest.raises(snakepit.ConfigError, match="size"):
        snakepit.start(size=size)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"interpreter": "/nowhere/python"}, snakepit.SnakepitError, "/nowhere/python"),
        ({"interpreter": __file__}, snakepit.SnakepitError, "executable"),
        ({"interpreter": "/bin/true"}, snakepit.WorkerStartError, "/bin/true"),
        ({"adapter": "no_such_module:Nothing"}, snakepit.WorkerStartError, "no_such_module"),
        ({"adapter": adapter("log.py:Missing")}, snakepit.WorkerStartError, "Missing"),
        ({"adapter_args": {"nonsense": 1}}, snakepit.WorkerStartError, "nonsense"),
    ],
)
def test_a_pool_that_cannot_start_says_why_and_leaves_nothing(
    cluster: None, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    before, began = interpreters(), time.monotonic()
    given = {"interpreter": sys.executable, **settings}
    with pytest.raises(error, match=words):
        snakepit.start(name="broken", size=2, **given)
    assert time.monotonic() - began < 20.0
    wait_until(lambda: "broken" not in snakepit_names(), 30, "the name is free again")
    assert interpreters() - before == set()


def test_start_all_lets_a_broken_pool_fail_alone(cluster: None, tmp_path: Path) -> None:
    file = tmp_path / "snakepit.toml"
    file.write_text(
        f"""
        [defaults]
        interpreter = "{sys.executable}"
        size = 1
        [pools.good]
        [pools.other]
        size = 2
        [pools.bad]
        adapter = "no_such_module:Nothing"
        [pools.worse]
        sise = 3
        """
    )
    with snakepit.start_all(file) as pools:
        assert set(pools) == {"good", "other"}
        assert set(pools.failed) == {"bad", "worse"}
        assert "no_such_module" in str(pools.failed["bad"])
        assert isinstance(pools.failed["worse"], snakepit.ConfigError) and "size" in str(
            pools.failed["worse"]
        )
        assert pools["good"].execute("add", {"a": 1, "b": 1}) == {"result": 2}
        assert len(pools["other"].workers()) == 2
    assert not {"good", "other", "bad"} & set(snakepit_names())


def test_a_drivers_pool_ends_with_it_even_by_sigkill(cluster: None) -> None:
    before = interpreters()
    process = driver(
        "pool = snakepit.start(name='doomed', size=2, interpreter=sys.executable)\n"
        "pool.execute('ping')\n"
        "print(json.dumps([[w.pid, w.actor_pid] for w in pool.workers()]), flush=True)\n"
        "time.sleep(600)"
    )
    pids = {pid for pair in json.loads(process.stdout.readline()) for pid in pair}
    assert len(pids) == 4 and all(alive(pid) for pid in pids)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = time.monotonic()
    wait_until(
        lambda: not any(alive(pid) for pid in pids), 10, "interpreters and actors of a killed driver gone"
    )
    assert time.monotonic() - killed < 10
    assert interpreters() - before == set()
    wait_until(lambda: "doomed" not in snakepit_names(), 30, "the name is free again")


def test_a_detached_pool_outlives_its_driver_and_another_job_joins(cluster: None) -> None:
    process = driver(
        "pool = snakepit.start(name='lasting', size=1, interpreter=sys.executable, detached=True)\n"
        "pool.session('s').execute('set_counter', {'value': 41})\n"
        "print(pool.workers()[0].pid, flush=True)"
    )
    pid = int(process.stdout.readline())
    assert process.wait(60) == 0
    pool = snakepit.connect("lasting")
    try:
        assert alive(pid)
        assert pool.session("s").execute("increment_counter")["value"] == 42
        with snakepit.connect("lasting"):
            pass  # leaving a handle that did not start the pool ends nothing
        assert pool.execute("add", {"a": 1, "b": 1}) == {"result": 2}
    finally:
        snakepit.shutdown("lasting")
    wait_until(lambda: not alive(pid), what="its interpreter gone")
    with pytest.raises(snakepit.PoolNotFound):
        snakepit.connect("lasting")


@pytest.mark.parametrize(("body", "status"), [("pool.execute('ping')", 0), ("raise ValueError('mine')", 1)])
def test_run_as_script_ends_with_a_status_and_leaves_nothing(cluster: None, body: str, status: int) -> None:
    before = interpreters()
    process = driver(
        f"def main(pool):\n    {body}\n"
        "snakepit.run_as_script(main, name='script', size=1, interpreter=sys.executable)",
        stderr=subprocess.PIPE,
    )
    _, said = process.communicate(timeout=90)
    assert process.returncode == status, said
    assert ("ValueError: mine" in said) == bool(status)
    wait_until(lambda: interpreters() - before == set(), what="nothing left")
    assert "script" not in snakepit_names()


def test_what_the_router_answers_leaves_nothing_in_its_process(shared: snakepit.Pool) -> None:
    """Ray never forgets a counted handle that an actor's reply contained: 400 bytes for each."""
    pool = shared
    router = pool._directory.router
    order, *load = ray.get(router.room.remote(f"{pool.name}-0"), timeout=30)
    assert all(0 <= workers <= 2 for workers in load)
    claims = [router.claim.remote("one", f"{pool.name}-{i}", True, False, 1) for i in (0, 1)]
    snapshot = ray.get(router.snapshot.remote(), timeout=30)
    update = ray.get(router.watch.remote("somebody", 0, 0, 0, 0.0), timeout=30)
    answers = [order, *ray.get(claims, timeout=30), snapshot, update]
    handles = [order.actor, *(entry.actor for entry in (*snapshot.entries, *update.entries))]
    assert len(handles) == 5
    assert all(isinstance(handle, ray.actor.ActorHandle) for handle in handles)
    assert [counted(answer) for answer in answers] == [0] * len(answers)


def counted(value: Any) -> int:
    """References in a value that Ray counts where it is serialized."""
    context = ray._private.worker.global_worker.get_serialization_context()
    return len(context.serialize(value).contained_object_refs)


def test_a_killed_worker_actor_comes_back_with_a_later_epoch(start: Any) -> None:
    pool = start(size=1)
    (before,) = pool.workers()
    os.kill(before.actor_pid, signal.SIGKILL)
    wait_until(lambda: not alive(before.pid), 30, "its interpreter gone")

    def back() -> bool:
        workers = pool.workers()
        return bool(workers) and workers[0].actor_pid != before.actor_pid and workers[0].state == "ready"

    wait_until(back, 30, "the worker is back")
    (after,) = pool.workers()
    assert tuple(after.epoch) > tuple(before.epoch)
    assert pool.execute("add", {"a": 1, "b": 1}) == {"result": 2}


def test_requests_flow_while_the_router_is_killed_and_it_comes_back(start: Any) -> None:
    pool = start(size=2, name="headless")
    pids = {worker.pid for worker in pool.workers()}
    router = ray.get_actor("snakepit:router:headless", "snakepit")
    router_pid = ray.get(router.get_pid.remote())
    os.kill(router_pid, signal.SIGKILL)
    answers = [pool.execute("add", {"a": i, "b": 0})["result"] for i in range(200)]
    assert answers == list(range(200))
    wait_until(lambda: len(workers_or_none(pool)) == 2, 30, "the router knows its workers again")
    assert {worker.pid for worker in pool.workers()} == pids, "no interpreter was replaced for it"


def workers_or_none(pool: Any) -> list[Any]:
    try:
        return pool.workers()
    except (snakepit.SnakepitError, ray.exceptions.RayError):
        return []
