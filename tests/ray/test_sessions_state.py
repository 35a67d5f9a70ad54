"""Sessions and variables of real pools: from threads, tasks and other handles, while the store is killed."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.client.records import Change
from snakepit_ray.port.naming import NAMESPACE
from snakepit_ray.port.store_actor import STORE
from tests.conftest import wait_until
from tests.ray.harness import alive, driver

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]


@pytest.fixture
def session(shared: snakepit.Pool) -> Iterator[snakepit.Session]:
    """A session that no other test has."""
    name = f"s-{os.urandom(4).hex()}"
    yield shared.session(name)
    shared.sessions.delete(name)


def store_pid() -> int:
    """The process of the store's actor, when it has one again."""
    actor = ray.get_actor(STORE, NAMESPACE)
    return int(ray.get(actor.get_pid.options(max_task_retries=-1).remote()))


def kill_store() -> int:
    """Returns the pid that it had."""
    pid = store_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid))
    return pid


def named_actors() -> set[str]:
    return {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}


def test_a_pool_whose_state_nobody_uses_makes_no_store(shared: snakepit.Pool) -> None:
    before = named_actors()
    shared.session("s").execute("add", {"a": 1, "b": 2})
    assert named_actors() == before


def test_fifty_creates_at_once_make_one_session(shared: snakepit.Pool, session: snakepit.Session) -> None:
    with ThreadPoolExecutor(50) as threads:
        infos = [*threads.map(lambda _: shared.sessions.create(session.id), range(50))]
    assert len({info.generation for info in infos}) == 1
    assert [info.id for info in shared.sessions.list(session.id)] == [session.id]


def test_values_come_back_as_they_were(session: snakepit.Session) -> None:
    large = np.arange(200_000, dtype="int32").reshape(100, 2000)
    values = {
        "t": ("tensor", large),
        "d": ("dict", {"a": [1.5, b"bytes", np.arange(3)]}),
        "i": ("integer", 2**70),
    }
    for name, (kind, value) in values.items():
        session.variables.register(name, kind, value)
    kept = session.variables.get("t")
    assert (kept.dtype, kept.shape, kept.flags.writeable) == (large.dtype, large.shape, False)
    assert (kept == large).all()
    assert session.variables.get("i") == 2**70
    assert session.variables.get("d")["a"][:2] == [1.5, b"bytes"]
    session.variables.set("t", np.zeros(2))
    assert session.variables.import_(session.variables.export()) == {"t": 3, "d": 2, "i": 2}
    with pytest.raises(snakepit.EncodingError, match=r"ray\.get it first"):
        session.variables.set("d", ray.put({}))


def test_a_session_that_was_pickled_goes_on_in_a_task(
    shared: snakepit.Pool, session: snakepit.Session
) -> None:
    @ray.remote
    def elsewhere(session: snakepit.Session, pool: snakepit.Pool) -> tuple[int, int, int]:
        variables = session.variables
        version = variables.set("n", variables.get("n") + 1)
        return os.getpid(), version, len(pool.sessions.list(session.id))

    session.variables.register("n", "integer", 1)
    pid, version, count = ray.get(elsewhere.remote(session, shared))
    assert pid != os.getpid()
    assert (version, count, session.variables.get("n")) == (2, 1, 2)
    shared.sessions.delete(session.id)
    with pytest.raises(snakepit.SessionNotFound):  # it was made already, and is not made again
        pickle.loads(pickle.dumps(session)).variables.get("n")


def test_another_job_sees_the_same_and_what_it_forks_is_told_that_it_cannot(
    shared: snakepit.Pool, session: snakepit.Session
) -> None:
    session.variables.register("n", "integer", 1)
    process = driver(
        f"variables = snakepit.connect({shared.name!r}).session({session.id!r}).variables\n"
        "version = variables.set('n', variables.get('n') + 1)\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        variables.get('n')\n"
        "    except snakepit.PoolClosed as error:\n"
        "        os._exit(7 if 'was forked' in str(error) else 8)\n"
        "    os._exit(9)\n"
        "_, status = os.wait()\n"
        "print(json.dumps([version, os.waitstatus_to_exitcode(status), variables.get('n')]))"
    )
    said, _ = process.communicate(timeout=100)
    assert said.splitlines()[-1:] == ["[2, 7, 2]"]
    assert session.variables.get("n") == 2


def increment(variables: Any, times: int, versions: list[int]) -> None:
    for _ in range(times):
        while True:
            value, version = variables.get_versioned("n")
            try:
                versions.append(variables.set("n", value + 1, expected_version=version))
                break
            except snakepit.VersionConflict:
                continue


def exact_increments(shared: snakepit.Pool, session: snakepit.Session, times: int, kills: int) -> None:
    session.variables.register("n", "integer", 0)
    versions: list[int] = []
    with ThreadPoolExecutor(8) as threads:
        writers = [threads.submit(increment, session.variables, times, versions) for _ in range(8)]
        for number in range(kills):
            reached = 8 * times * (number + 1) // (kills + 1)
            wait_until(lambda reached=reached: len(versions) >= reached, 300)
            kill_store()
        for writer in writers:
            writer.result(300)
    assert sorted(versions) == [*range(2, 8 * times + 2)]
    assert session.variables.get_versioned("n") == (8 * times, 8 * times + 1)


def test_increments_are_exact_while_the_store_is_killed(
    shared: snakepit.Pool, session: snakepit.Session
) -> None:
    exact_increments(shared, session, times=10, kills=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_increments_are_exact_while_the_store_is_killed(
    shared: snakepit.Pool, session: snakepit.Session
) -> None:
    exact_increments(shared, session, times=500, kills=8)


def test_a_watcher_goes_on_when_the_store_was_killed(session: snakepit.Session) -> None:
    session.variables.register("n", "integer", 0)
    seen: list[Change] = []

    def watch() -> None:
        with session.variables.watch("n") as changes:
            for change in changes:
                seen.append(change)
                if change.value == 20:
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    wait_until(lambda: seen)
    for value in range(1, 21):
        session.variables.set("n", value)
        if value == 10:
            kill_store()
    thread.join(60)
    assert not thread.is_alive()
    versions = [change.version for change in seen]
    assert versions == sorted({*versions})
    assert (versions[0], versions[-1]) == (1, 21)


def test_closing_a_watcher_ends_its_question_at_the_store(
    shared: snakepit.Pool, session: snakepit.Session
) -> None:
    before = shared.sessions.stats().watchers
    changes = session.variables.watch("n")
    thread = threading.Thread(target=lambda: [*changes])
    thread.start()
    wait_until(lambda: shared.sessions.stats().watchers == before + 1)
    changes.close()
    thread.join(20)
    assert not thread.is_alive()
    wait_until(lambda: shared.sessions.stats().watchers == before)


def test_the_forms_for_asyncio(shared: snakepit.Pool, session: snakepit.Session) -> None:
    async def body() -> None:
        mine = await shared.asession(session.id, metadata={"a": 1})
        await mine.variables.aregister("n", "integer", 0)
        await asyncio.gather(*(mine.variables.aset("n", number) for number in range(50)))
        assert await mine.variables.aget_versioned("n") == (49, 51)
        async with mine.variables.awatch("n") as changes:
            async for change in changes:
                assert change.value == 49
                break

    asyncio.run(body())
