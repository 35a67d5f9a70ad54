"""The store's actor: made by the first question, one in a cluster, back after its death, told by name of
leases."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.state.asked import (
    Creation,
    Get,
    Join,
    Look,
    Put,
    Question,
    Remove,
    StoreStats,
    Usage,
    Watch,
)
from snakepit_ray.errors import ConfigError, SessionNotFound, VersionConflict
from snakepit_ray.port import ray_port
from snakepit_ray.port.naming import NAMESPACE
from snakepit_ray.port.store_actor import STORE
from snakepit_ray.port.store_link import StoreLink
from snakepit_ray.store import spawn
from tests.conftest import wait_until
from tests.store.harness import assign, op, plain, register, until

pytestmark = pytest.mark.ray
POOL = Creation("p", 3600.0, 100)


def end() -> None:
    spawn.end()
    wait_until(lambda: not spawn.is_there(), 20, "the store's actor is gone")


@pytest.fixture
def session(cluster: None) -> Iterator[str]:
    """An id that nobody has used. There is no store before the test and after it; the next one finds what
    this one had."""
    end()
    yield f"s-{os.urandom(4).hex()}"
    end()


def run(body: Callable[[Callable[[Question], Coroutine[Any, Any, Any]]], Any], **settings: Any) -> None:
    """With a link of a pool that has these settings."""

    async def main() -> None:
        link = StoreLink(lambda: spawn.connect(PoolConfig(name="p", **settings)), 60.0)
        await body(link.ask)

    asyncio.run(main())


def pid() -> int:
    return int(ray.get(ray.get_actor(STORE, NAMESPACE).get_pid.remote()))


def test_the_first_question_makes_it_on_the_head(session: str, shared: snakepit.Pool) -> None:
    assert shared.execute("ping")["status"] == "pong"
    assert not spawn.is_there(), "a pool without state pays nothing"
    run(lambda ask: ask(Join(session, POOL, op())))
    (row,) = [
        one
        for one in ray_port.ray_state.actors().values()
        if one["Name"] == STORE and one["State"] == "ALIVE"
    ]
    assert row["Address"]["NodeID"] == ray.get_runtime_context().get_node_id()


def test_those_who_ask_at_once_meet_one(session: str) -> None:
    assert spawn.ask_stats(60) is None

    async def main() -> None:
        doors = await asyncio.gather(*(spawn.connect(PoolConfig(name=f"p{n}")) for n in range(8)))
        assert len({ray_port.id_of(door._actor) for door in doors}) == 1

    asyncio.run(main())
    stats = spawn.ask_stats(60)
    assert isinstance(stats, StoreStats) and stats.kind == "sqlite"


def test_a_pool_that_wants_another_store_is_told_both(session: str) -> None:
    run(lambda ask: ask(Join(session, POOL, op())))
    for settings in ({"session_store": "memory"}, {"session_sweep_interval": 5.0}):
        with pytest.raises(
            ConfigError, match=r"pool 'p' wants session_.* was made by pool 'p' with session_"
        ):
            run(lambda ask: ask(Look(session)), **settings)


def test_a_path_that_is_no_good_does_not_stand_in_the_way(session: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be kept at /proc/nowhere"):
        run(lambda ask: ask(Look(session)), session_store="sqlite:/proc/nowhere/x.db")
    wait_until(lambda: not spawn.is_there(), 20, "the actor is gone")
    named = tmp_path / "sessions.db"

    async def body(ask: Any) -> None:
        await ask(Join(session, POOL, op()))
        assert (await ask(Usage())).path == str(named)

    run(body, session_store=f"sqlite:{named}")


def test_what_was_written_is_there_after_its_death_and_once(session: str) -> None:
    """One writer counts, while the store is killed again and again: each number is written once."""
    deaths, increments = 2, 120
    array = np.random.default_rng(1).random((1000, 1000))

    async def body(ask: Any) -> None:
        await ask(
            Put(session, op(), (register("n", "integer", 0), register("x", "tensor", array)), creation=POOL)
        )
        killing = asyncio.ensure_future(asyncio.to_thread(kill_often, deaths))
        for number in range(1, increments + 1):
            wrote = await ask(Put(session, op(), (assign("n", number, number),)))
            assert wrote.outcome[0].error is None
        killed = await killing
        found = (await ask(Get(session, ("n", "x")))).values
        assert (found["n"].version, plain(found["n"])) == (increments + 1, increments)
        assert (plain(found["x"]) == array).all()
        assert len({*killed, pid()}) == deaths + 1

    run(body)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_writers_that_compete_lose_no_increment_while_the_store_dies(session: str) -> None:
    """Each reads, adds one and writes at the version that it has read, until that goes through."""
    writers, increments, deaths = 8, 250, 3

    async def body(ask: Any) -> None:
        await ask(Put(session, op(), (register("n", "integer", 0),), creation=POOL))
        killing = asyncio.ensure_future(asyncio.to_thread(kill_often, deaths))
        await asyncio.gather(*(write(ask) for _ in range(writers)))
        await killing
        (found,) = (await ask(Get(session, ("n",)))).values.values()
        assert (found.version, plain(found)) == (writers * increments + 1, writers * increments)

    async def write(ask: Any) -> None:
        done = 0
        while done < increments:
            (found,) = (await ask(Get(session, ("n",)))).values.values()
            change = assign("n", plain(found) + 1, found.version)
            (written,) = (await ask(Put(session, op(), (change,)))).outcome
            done += written.error is None
            assert written.error is None or isinstance(written.error, VersionConflict)

    run(body)


def kill_often(count: int) -> list[int]:
    """Each process of the store as soon as there is one."""
    killed: list[int] = []
    while len(killed) < count:
        one = pid()
        if one not in killed:
            os.kill(one, signal.SIGKILL)
            killed.append(one)
    return killed


def test_a_store_in_memory_forgets(session: str) -> None:
    async def body(ask: Any) -> None:
        await ask(Join(session, POOL, op()))
        assert (await ask(Usage())).kind == "memory"
        os.kill(pid(), signal.SIGKILL)
        with pytest.raises(SessionNotFound):
            await ask(Look(session))

    run(body, session_store="memory")


@ray.remote(num_cpus=0)
class Worker:
    """As the store sees one: it lets go of what it is told to, and remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    async def let_go(self, leases: list[Any]) -> list[Any]:
        self.heard += leases
        return leases

    async def sessions_ended(self, ended: list[Any]) -> None:
        self.heard += [(one.session, one.reason) for one in ended]

    async def get(self) -> list[Any]:
        return self.heard


def test_workers_and_watchers_find_the_next_store(session: str) -> None:
    """A worker is found by its name, a watch goes on."""
    worker = Worker.options(name="a-worker", namespace=NAMESPACE).remote()  # type: ignore[attr-defined]
    ray.get(worker.get.remote())

    async def main() -> None:
        link = StoreLink(lambda: spawn.connect(PoolConfig(name="p")), 60.0)
        leases: list[Any] = []

        async def leased() -> bool:
            lease = (await link.ask(Get(session, ("x",), holder="a-worker"))).lease
            leases.extend([] if lease is None else [lease])
            return lease is not None

        await link.ask(Put(session, op(), (register("x", "integer", 0),), creation=POOL))
        await until(leased)
        first = await link.watch(Watch(session))
        await link.ask(Put(session, op(), (assign("x", 1),)))
        assert await worker.get.remote() == leases
        second = await link.watch(Watch(session, cursor=first.cursor))
        waiting = asyncio.ensure_future(link.watch(Watch(session, cursor=second.cursor)))
        os.kill(pid(), signal.SIGKILL)
        await until(leased)
        assert leases[0].store < leases[1].store
        await link.ask(Put(session, op(), (assign("x", 2),)))
        assert await worker.get.remote() == leases
        assert [one.newest.version for one in (await waiting).changes if one.newest] == [3]
        await link.ask(Remove(session, op()))
        await until(lambda: heard((session, "deleted")))

    async def heard(what: Any) -> bool:
        return what in await worker.get.remote()

    asyncio.run(main())
    ray.kill(worker)
