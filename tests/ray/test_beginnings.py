"""Starts that are cut, that have no room, that meet another of their name; and routers that are asked while
they are restarted."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.cli import main
from snakepit_ray.port import ray_port
from snakepit_ray.process import registry
from snakepit_ray.router import actor as router
from tests.conftest import interpreters, sockets, wait_until
from tests.ray.conftest import router_pid
from tests.ray.harness import alive, driver

pytestmark = pytest.mark.ray

CPUS = 8  # of the tests' cluster
# One worker is placed and the other waits for room until it is given up, a minute later.
CROWDED = "name={name!r}, size=2, num_cpus=5, startup_timeout=300, interpreter=sys.executable"


def waiting(pool: str) -> list[str]:
    """Ids of the pool's workers that have no process yet: they wait for room."""
    running = ray_port.running_actors()
    return [str(w.worker_id) for w in ray_port.workers_named() if w.pool == pool and str(w) not in running]


def workers_of(pool: str) -> list[str]:
    return [worker.worker_id for worker in ray_port.workers_named() if worker.pool == pool]


@pytest.fixture
def no_room(cluster: None) -> Iterator[None]:
    """Other work has every CPU of the cluster."""

    @ray.remote(num_cpus=CPUS)
    class Occupant:
        def ping(self) -> None:
            pass

    occupant = Occupant.remote()
    ray.get(occupant.ping.remote(), timeout=120)
    yield
    ray.kill(occupant)


@pytest.fixture(params=["some", "all"])
def crowded(cluster: None, request: pytest.FixtureRequest) -> str:
    """The settings of a pool for which there is no room, or for one worker only."""
    if request.param == "all":
        request.getfixturevalue("no_room")
    return CROWDED


def test_a_driver_that_is_killed_while_workers_wait_leaves_a_name_that_can_start(crowded: str) -> None:
    """Before, they stayed, and the next start of that name was a bare error of Ray's."""
    before, name = interpreters(), f"cut-{os.urandom(3).hex()}"
    process = driver(f"snakepit.start({crowded.format(name=name)})")
    wait_until(lambda: waiting(name), 60, "a worker waits for room")
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: name not in ray_port.pool_names(), 30, "Ray ends the router of the killed driver")
    with snakepit.start(name=name, size=1, interpreter=sys.executable) as pool:
        assert workers_of(name) == [f"{name}-0"] == [worker.worker_id for worker in pool.workers()]
        assert pool.execute("add", {"a": 1, "b": 1}) == {"result": 2}
    wait_until(lambda: not workers_of(name), 30, "its actors gone")
    wait_until(lambda: interpreters() == before, 30, "its interpreters gone")


def test_down_sees_what_only_waits(no_room: None, capsys: pytest.CaptureFixture[str]) -> None:
    """The router has gone with its driver; nobody else knows of the workers that wait."""
    name = f"cut-{os.urandom(3).hex()}"
    process = driver(f"snakepit.start({CROWDED.format(name=name)})")
    wait_until(lambda: len(waiting(name)) == 2, 60, "both workers wait for room")
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: name not in ray_port.pool_names(), 30, "Ray ends the router of the killed driver")
    assert main(["down", name, "--address", ray.get_runtime_context().gcs_address]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{name}: down"
    assert workers_of(name) == []


def test_who_shuts_a_pool_down_while_it_starts_ends_the_start(crowded: str) -> None:
    before, name = interpreters(), f"cut-{os.urandom(3).hex()}"
    said: list[BaseException] = []

    def run() -> None:
        try:
            snakepit.start(name=name, size=2, num_cpus=5, startup_timeout=300, interpreter=sys.executable)
        except BaseException as error:
            said.append(error)

    starting = threading.Thread(target=run)
    starting.start()
    wait_until(lambda: waiting(name), 60, "a worker waits for room")
    snakepit.shutdown(name)
    starting.join(60)
    assert [type(error) for error in said] == [snakepit.PoolClosed], said
    wait_until(lambda: not workers_of(name), 30, "its actors gone")
    assert name not in ray_port.pool_names()
    wait_until(lambda: interpreters() == before, 30, "its interpreters gone")


def test_an_interrupt_of_up_leaves_nothing(cluster: None, tmp_path: Path) -> None:
    """Before, a detached pool without workers was there for good."""
    before, files, name = interpreters(), sockets(), f"cut-{os.urandom(3).hex()}"
    file = tmp_path / "snakepit.toml"
    file.write_text(
        f'[pools.{name}]\nsize = 2\nnum_cpus = 5\nstartup_timeout = 300\ninterpreter = "{sys.executable}"\n'
    )
    process = driver(
        "from snakepit_ray.cli import main\n"
        f"sys.exit(main(['up', {str(file)!r}, '--address', os.environ['TEST_RAY']]))",
        stderr=-1,
    )
    wait_until(lambda: waiting(name), 60, "a worker waits for room")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode not in (0, None), said
    assert name not in ray_port.pool_names()
    wait_until(lambda: not workers_of(name), 30, "its actors gone")
    wait_until(lambda: interpreters() == before, 30, "its interpreters gone")
    # An actor that was ended in the midst of its interpreter's start has written down what is to be removed.
    wait_until(lambda: registry.sweep() and sockets() == files, 30, "the next sweep finds all of it")


def test_what_a_cluster_can_never_hold_is_refused_with_what_there_is(cluster: None) -> None:
    """Before, 80 seconds and "raise startup_timeout"."""
    for asked, words in [
        ({"num_cpus": 100}, "asks for CPU 100: it has 1 node with at most CPU 8"),
        ({"num_gpus": 1}, "GPU 1: it has 1 node with at most .*GPU 0"),
        ({"resources": {"tpu": 4}}, "tpu 4: it has 1 node with at most .*tpu 0"),
        ({"labels": {"zone": "mars"}}, "label zone=mars: it has 1 node .*no such label"),
    ]:
        with pytest.raises(snakepit.WorkerStartError, match=words):
            snakepit.start(name="nowhere", size=1, interpreter=sys.executable, **asked)
        assert "nowhere" not in ray_port.pool_names(), "nothing was created for it"


def test_of_two_that_start_one_name_one_has_it(cluster: None) -> None:
    name = f"once-{os.urandom(3).hex()}"
    said: list[Any] = []

    def run() -> None:
        try:
            said.append(snakepit.start(name=name, size=1, interpreter=sys.executable))
        except snakepit.SnakepitError as error:
            said.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    pools = [one for one in said if isinstance(one, snakepit.Pool)]
    assert len(said) == 3 and len(pools) == 1, said
    assert {type(one) for one in said} == {snakepit.Pool, snakepit.PoolExists}
    assert pools[0].execute("add", {"a": 1, "b": 1}) == {"result": 2}
    pools[0].shutdown()


def test_one_name_twice_is_refused_before_anything_starts(cluster: None) -> None:
    twice = snakepit.PoolConfig(name="twice", size=1, interpreter=sys.executable)
    with pytest.raises(snakepit.ConfigError, match=r"'twice'.*two pools of one name"):
        snakepit.start_all([twice, twice])
    assert "twice" not in ray_port.pool_names()


def test_shutdown_by_name_ends_the_pool_that_has_the_name_now(cluster: None) -> None:
    """This process had one of that name, which somebody else ended and started anew."""
    name = f"again-{os.urandom(3).hex()}"
    snakepit.start(name=name, size=1, interpreter=sys.executable)
    process = driver(
        f"snakepit.shutdown({name!r})\n"
        f"pool = snakepit.start(name={name!r}, size=1, interpreter=sys.executable, detached=True)\n"
        "print(pool.workers()[0].pid, flush=True)"
    )
    pid = int(process.stdout.readline())
    assert process.wait(60) == 0 and alive(pid)
    snakepit.shutdown(name)
    wait_until(lambda: not alive(pid), 20, "the present pool ended")
    assert name not in ray_port.pool_names()


def test_what_is_forked_from_a_driver_ends_no_pool_of_it(cluster: None) -> None:
    """It tried to, and took a minute. `sys.exit` hangs all the same: Ray's own exit hook does so in whatever
    is forked from a driver."""
    process = driver(
        "pool = snakepit.start(name='forking', size=1, interpreter=sys.executable)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    with pool:\n"
        "        snakepit.shutdown()\n"
        "    snakepit.client.start._at_exit()\n"
        "    os._exit(3)\n"
        "_, status = os.waitpid(child, 0)\n"
        "print(json.dumps([os.waitstatus_to_exitcode(status), pool.execute('add', {'a': 1, 'b': 1})]))"
    )
    said, _ = process.communicate(timeout=100)
    assert said.splitlines()[-1:] == ['[3, {"result": 2}]'] and process.returncode == 0
    wait_until(lambda: "forking" not in ray_port.pool_names(), 20, "it ended with its own driver")


def test_a_node_without_the_package_is_told_with_its_cure(
    cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before: "the pool is gone (shut down, or its driver ended)"."""
    (tmp_path / "not_on_the_nodes.py").write_text(
        "from snakepit_ray.router import actor\n\nclass RouterActor(actor.RouterActor):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from not_on_the_nodes import RouterActor  # type: ignore[import-not-found]

    monkeypatch.setattr(router, "RouterActor", RouterActor)
    with pytest.raises(
        snakepit.WorkerStartError, match=r"No module named 'not_on_the_nodes'.*on every node.*runtime_env"
    ):
        snakepit.start(name="bare", size=1, interpreter=sys.executable)
    assert "bare" not in ray_port.pool_names()


def test_questions_while_the_router_is_restarted_are_answered(start: Any) -> None:
    """Before: "a worker actor died while it had the request"."""
    pool = start(size=2)
    pids = {worker.pid for worker in pool.workers()}
    for ask in (
        lambda: pool.stats().workers,
        lambda: len(pool.workers()),
        lambda: asyncio.run(counted(pool)),
        lambda: pool.await_ready(60) is pool and 2,
        pool.recycle,
    ):
        died = router_pid(pool)
        os.kill(died, signal.SIGKILL)
        assert ask() == 2
        assert router_pid(pool) != died
    wait_until(lambda: pool.stats().recycled == 2, 60, "both were told")
    assert pids.isdisjoint(worker.pid for worker in pool.workers())


async def counted(pool: snakepit.Pool) -> int:
    stats, workers = await asyncio.gather(pool.astats(), pool.aworkers())
    assert stats.workers == len(workers)
    return stats.workers


def test_a_handle_says_how_many_workers_there_are_to_be_now(start: Any) -> None:
    """It said "3 of 2 workers ready" after a scale. And recycling is told from an event loop."""
    pool = start(size=3)
    assert repr(pool).startswith(f"<Pool {pool.name!r} 3 of 3 workers ready")
    pool.scale(1)
    assert repr(pool).startswith(f"<Pool {pool.name!r} 1 of 1 workers ready")
    (before,) = pool.workers()
    assert asyncio.run(pool.arecycle()) == 1
    wait_until(lambda: {w.pid for w in pool.workers()}.isdisjoint({before.pid}), 60, "it was replaced")


@pytest.mark.timeout(400)
def test_a_pool_larger_than_its_machine_starts_in_turns(cluster: None) -> None:
    """Before, all actors were spawned at once, and a router that starved had a minute to answer."""
    seen: list[tuple[int, int, int]] = []
    most = 0
    name = f"large-{os.urandom(3).hex()}"

    def progress(_: str, *counts: int) -> None:
        nonlocal most
        seen.append(counts)
        most = max(most, len(workers_of(name)) - counts[0])

    with snakepit.start(
        name=name, size=8, startup_batch_size=2, interpreter=sys.executable, on_progress=progress
    ) as pool:
        assert len({worker.pid for worker in pool.workers()}) == 8
    assert seen == sorted(seen) and seen[-1] == (8, 0, 8)
    assert len(seen) == len(set(seen)) >= 4, "it says how far it is"
    assert most <= 3, "no more have a turn than startup_batch_size, and one whose turn has just begun"
