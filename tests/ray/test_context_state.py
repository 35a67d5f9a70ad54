"""The state of a session in commands, on pools: callers and commands see each other's writes, copies are read
and never older than what was acknowledged, whoever stands still or dies."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.core.state.leases import LEASE_SECONDS
from snakepit_ray.port import ray_port
from snakepit_ray.port.naming import NAMESPACE
from snakepit_ray.port.store_actor import STORE
from snakepit_ray.store import spawn
from tests.conftest import wait_until
from tests.ray.conftest import adapter
from tests.ray.harness import kill_actor_of

pytestmark = pytest.mark.ray
STATEFUL = adapter("stateful.py:Stateful")
names = (f"s{number}" for number in range(1_000_000))


@pytest.fixture(scope="module")
def pools(cluster: None) -> Iterator[tuple[snakepit.Pool, snakepit.Pool]]:
    """Two pools of one store: hint and strict."""
    settings: dict[str, Any] = {"adapter": STATEFUL, "profile": "thread"}
    settings.update(threads_per_worker=3, size=1, name=f"state-{os.urandom(4).hex()}")
    strict = {**settings, "name": f"strict-{os.urandom(4).hex()}", "affinity": "strict_queue", "size": 2}
    with snakepit.start(**settings) as hint, snakepit.start(**strict) as other:
        yield hint, other
    spawn.end()


def copies(pool: snakepit.Pool) -> list[tuple[int, int]]:
    """Of each worker, how often it has answered from its copy, and how often not."""
    actors = [ray_port.find_worker(worker.worker_id) for worker in pool.workers()]
    return [ray.get(actor.probe.remote())["copies"] for actor in actors]


def reads(pool: snakepit.Pool, session: str, count: int = 1) -> list[Any]:
    found: list[Any] = pool.execute("reads", {"name": "x", "count": count}, session=session)
    return found


def test_callers_and_commands_of_two_pools_share_a_session(pools: Any) -> None:
    hint, strict = pools
    session = next(names)
    assert hint.execute("writes", {"name": "x", "value": 1}, session=session) == 1
    assert hint.session(session).variables.get("x") == 1
    strict.session(session).variables.set("x", 2)
    assert reads(strict, session) == reads(hint, session) == [2]
    array = np.arange(1_000_000, dtype="f8")
    hint.session(session).variables.register("a", "tensor", array)
    assert np.array_equal(strict.execute("reads", {"name": "a"}, session=session)[0], array)
    found = hint.execute("arrays", {"size": 500_000}, session=session)
    assert found["size"] == len(strict.session(session).variables.get("a")) == 500_000
    with pytest.raises(snakepit.CommandError, match="VariableTypeError"):
        strict.execute("writes", {"name": "x", "value": "text"}, session=session)


def test_no_read_is_older_than_an_acknowledged_write(pools: Any) -> None:
    """Writers are a caller and commands, readers commands of both pools. Most reads are from copies."""
    session = next(names)
    variables = pools[0].session(session).variables
    variables.register("x", "integer", 0)
    acknowledged, total, over = [0], [0], threading.Event()
    failures: list[BaseException] = []

    def read(pool: snakepit.Pool) -> None:
        try:
            while not over.is_set():
                floor = acknowledged[0]
                found = reads(pool, session, 200)
                assert found == sorted(found) and found[0] >= floor
                total[0] += len(found)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(pool,)) for pool in pools]
    before = sum(misses for pool in pools for _, misses in copies(pool))
    for thread in threads:
        thread.start()
    for number in range(1, 41):
        seen = total[0]
        wait_until(lambda seen=seen: total[0] > seen or bool(failures), 20, "somebody reads")  # type: ignore[misc]
        if number % 2:
            variables.set("x", number)
        else:
            pools[1].execute("call", {"method": "set", "args": ["x", number]}, session=session)
        acknowledged[0] = number
    over.set()
    for thread in threads:
        thread.join()
    assert not failures, failures
    misses = sum(misses for pool in pools for _, misses in copies(pool)) - before
    assert misses < total[0] / 10, "the others were read from copies"


def test_a_delete_is_not_undone_by_a_command_that_runs(pools: Any) -> None:
    hint, _ = pools
    session = next(names)
    hint.execute("writes", {"name": "x", "value": 1}, session=session)
    running = hint.execute.remote("meets_and_waits", {"name": "x"}, session=session)
    wait_until(lambda: hint.execute("waiting") == 1, 20, "it has read")
    assert hint.sessions.delete(session)
    hint.execute("proceed")
    assert ray.get(running)["is"][0] == "SessionNotFound"
    assert not hint.sessions.exists(session)


def test_a_worker_that_was_killed_holds_nobody_up_for_long_and_reads_anew(start: Any) -> None:
    strict = start(adapter=STATEFUL, size=1, affinity="strict_queue")
    session = next(names)
    strict.execute("writes", {"name": "x", "value": 1}, session=session)
    assert reads(strict, session, 2) == [1, 1]
    kill_actor_of(strict)
    strict.session(session).variables.set("x", 2)  # when the lease of the dead one has ended
    found = strict.execute("reads", {"name": "x"}, session=session, rebind=True, timeout=60.0)
    assert found == [2]
    assert strict.execute("writes", {"name": "x", "value": 3}, session=session) == 3


def test_a_store_that_was_killed_is_asked_again(pools: Any) -> None:
    hint, _ = pools
    session = next(names)
    hint.execute("writes", {"name": "x", "value": 1}, session=session)
    os.kill(ray.get(ray.get_actor(STORE, NAMESPACE).get_pid.remote()), signal.SIGKILL)
    for number in range(2, 12):
        assert hint.execute("writes", {"name": "x", "value": number}, session=session) == number
    versions = hint.session(session).variables.get_versioned("x")
    assert (versions.value, versions.version) == (11, 11), "each write was made once"


@pytest.mark.slow
def test_a_worker_that_stands_still_delays_a_writer_and_never_gives_what_is_old(pools: Any) -> None:
    hint, _ = pools
    session = next(names)
    hint.execute("writes", {"name": "x", "value": 1}, session=session)
    variables = hint.session(session).variables
    streamed = hint.stream("keeps_reading", {"name": "x", "seconds": 2 * LEASE_SECONDS}, session=session)
    assert next(streamed) == 1
    (worker,) = hint.workers()
    os.kill(worker.actor_pid, signal.SIGSTOP)
    try:
        variables.set("x", 2)  # acknowledged while the worker stands still
    finally:
        os.kill(worker.actor_pid, signal.SIGCONT)
    assert reads(hint, session) == [2]
    changes = list(streamed)
    assert changes in ([2], []), "once it was another value it was the new one"
