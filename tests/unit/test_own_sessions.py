"""A worker's own sessions over its restarts, and a router that waits for who has yet to speak; no Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.placing import Node
from snakepit_ray.errors import SessionWorkerLost
from snakepit_ray.port import cluster, ray_port
from snakepit_ray.port.messages import Claimed, Hello, Owned, PoolMemory, WorkerFacts
from snakepit_ray.process.session_log import SessionLog
from snakepit_ray.router import actor as router
from snakepit_ray.router.actor import RouterActor
from snakepit_ray.wire.codec import Epoch
from snakepit_ray.worker import spawn
from snakepit_ray.worker.sessions import OwnSessions


class Worker:
    """One life of a worker, and what its router answers."""

    def __init__(
        self,
        base: Path,
        life: int,
        owner: str = "w-0",
        life_of_state: int = 0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.supervisor: Any = SimpleNamespace(
            epoch=Epoch(life, 1),
            why_ended=lambda number: "crashed",
        )
        self.asked: list[str] = []
        self.answer = Claimed(owner, None, 7, life_of_state)
        self.log = SessionLog.open("w-0", 100, base)
        config = PoolConfig(name="w", size=1, session_ttl=100.0)
        self.sessions = OwnSessions(self.supervisor, config, "w-0", self.log, self.ask, clock, wall_clock)

    async def ask(self, session: str, strict: bool, rebind: bool, life: int) -> Claimed | None:
        self.asked.append(session)
        return self.answer

    async def call(self, session: str, *, strict: bool = True, rebind: bool = False) -> Claimed | None:
        claimed = await self.sessions.claim(session, strict, rebind)
        if claimed is None and strict:
            self.sessions.enter(session, rebind)
        return claimed

    def dies(self) -> None:
        self.log.close()


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 20))


def test_what_an_earlier_life_held_is_lost_until_rebind_whatever_the_router_knows(tmp_path: Path) -> None:
    async def body() -> None:
        first = Worker(tmp_path, 1)
        for name in ("a", "b", "moved"):
            assert await first.call(name) is None
        first.dies()
        second = Worker(tmp_path, 2)
        assert second.sessions.owned() == [Owned(name, 7, True, 1) for name in ("a", "b", "moved")]
        for _ in range(2):
            with pytest.raises(SessionWorkerLost) as lost:
                await second.call("a")
        assert (lost.value.old_epoch, lost.value.new_epoch) == ((1, 1), (2, 1))
        assert second.asked == ["a"], "confirmed once"
        with pytest.raises(SessionWorkerLost):
            second.sessions.enter("b", rebind=False)  # as another worker's request does
        assert await second.call("a", rebind=True) is None
        assert await second.call("a") is None
        second.answer = Claimed("w-1", None, 9)
        assert await second.call("moved") == second.answer, "the router has the last word"
        second.dies()
        third = Worker(tmp_path, 3)
        assert {one.session: one.life for one in third.sessions.owned()} == {"b": 1, "a": 2}
        third.sessions.disown(["a", "b", "never"])
        third.dies()
        assert Worker(tmp_path, 4).sessions.owned() == []

    run(body)


def test_the_binding_of_a_session_that_another_worker_has_sent_is_asked_for_once(tmp_path: Path) -> None:
    async def body() -> None:
        worker = Worker(tmp_path, 1)
        await worker.call("own")
        assert (await worker.sessions.binding("own"), worker.asked) == (7, ["own"])
        worker.sessions.enter("sent", rebind=False)
        assert [await worker.sessions.binding("sent") for _ in range(2)] == [7, 7]
        assert worker.asked == ["own", "sent"]
        worker.answer = Claimed("w-1", None, 9)
        assert await worker.sessions.binding("moved") is None

    run(body)


def test_a_strict_session_that_has_come_from_another_worker_is_told_before_it_runs(tmp_path: Path) -> None:
    async def body() -> None:
        worker, told = Worker(tmp_path, 1), []

        async def moved_here(session: str, version: int) -> None:
            assert worker.sessions.owned() == []
            told.append((session, version))

        worker.sessions.moved_here = moved_here
        await worker.call("a", strict=False, rebind=True)
        await worker.call("b", strict=True)
        assert told == [], "nobody had them before"
        worker.sessions.disown(["a", "b"])
        await worker.call("c", rebind=True)
        assert told == [("c", 7)]
        await worker.call("c", rebind=True)
        assert told == [("c", 7)], "it is here already"

    run(body)


def test_hints_and_what_has_no_state_yet_are_not_written_down(tmp_path: Path) -> None:
    async def body() -> None:
        worker = Worker(tmp_path, 1)
        await worker.call("hint", strict=False)
        await worker.sessions.claim("claimed", True, False)
        assert worker.log.homes == {}
        await worker.call("hint", strict=True)
        assert list(worker.log.homes) == ["hint"], "it is one no more"

    run(body)


def test_only_changes_are_written(tmp_path: Path) -> None:
    async def body() -> None:
        now = [1000.0]
        worker = Worker(tmp_path, 1, clock=lambda: now[0])
        await worker.call("s")
        size = worker.log.path.stat().st_size
        for _ in range(100):
            await worker.call("s")
            worker.sessions.enter("s", rebind=False)
        assert worker.log.path.stat().st_size == size and worker.asked == ["s"]
        now[0] += 51  # more than half of session_ttl
        worker.sessions.enter("s", rebind=False)
        assert worker.log.path.stat().st_size > size, "sent here by another worker: confirmed now"
        await worker.call("s")
        assert worker.asked == ["s"]

    run(body)


def test_what_has_expired_meanwhile_is_forgotten(tmp_path: Path) -> None:
    async def body() -> None:
        worker = Worker(tmp_path, 1)
        await worker.call("s")
        worker.dies()
        after = Worker(tmp_path, 2, wall_clock=lambda: time.time() + 101)
        assert after.sessions.owned() == [] and after.log.homes == {}
        assert await after.call("s") is None

    run(body)


# ---- the router -----------------------------------------------------------------------------------------


class Actor:
    """A worker's actor that never answers."""

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *args: asyncio.get_running_loop().create_future())


def hello(number: int, *owned: Owned) -> Hello:
    facts = WorkerFacts(f"p-{number}", "node", 1, 1, (5, 1), "ready", 1, *[0] * 12, 0.0)
    return Hello(facts, PoolMemory(), list(owned))


def test_a_router_that_was_restarted_asks_everybody_before_it_gives_a_strict_session_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_port, "find_worker", lambda name, router_id=None: Actor())
    monkeypatch.setattr(ray_port, "when_raylet_dies", lambda act: None)
    monkeypatch.setattr(ray_port, "was_restarted", lambda: True)
    monkeypatch.setattr(ray_port, "actor_id", lambda: "router")
    monkeypatch.setattr(ray_port, "workers_named", lambda: [])
    monkeypatch.setattr(router, "RECOVER_SECONDS", 0.01)

    async def body() -> None:
        table = RouterActor(PoolConfig(name="p", size=2), detached=False)
        holds = [asyncio.ensure_future(table.hold(hello(0)))]
        strict = asyncio.ensure_future(table.claim("s", "p-0", True, False, 5))
        hint = await table.claim("h", "p-0", False, False, 5)
        assert hint is not None and hint.owner == "p-0", "its time to recover is over"
        assert not strict.done()
        holds.append(asyncio.ensure_future(table.hold(hello(1, Owned("s", 3, True, 4)))))
        claimed = await strict
        assert claimed is not None and (claimed.owner, claimed.life) == ("p-1", 4)
        other = await table.claim("new", "p-0", True, False, 5)
        assert other is not None and other.owner == "p-0"

    run(body)


def test_a_router_does_not_wait_for_ever_for_a_worker_that_does_not_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_port, "find_worker", lambda name, router_id=None: Actor())
    monkeypatch.setattr(spawn, "spawn_worker", lambda config, name: Actor())
    monkeypatch.setattr(cluster, "nodes", lambda: [Node({"CPU": 8.0})])
    monkeypatch.setattr(ray_port, "when_raylet_dies", lambda act: None)
    monkeypatch.setattr(ray_port, "was_restarted", lambda: True)
    monkeypatch.setattr(ray_port, "actor_id", lambda: "router")
    monkeypatch.setattr(ray_port, "workers_named", lambda: [])
    monkeypatch.setattr(router, "RECOVER_SECONDS", 0.01)
    monkeypatch.setattr(router, "REPLACE_SECONDS", 0.01)

    async def body() -> None:
        table = RouterActor(PoolConfig(name="p", size=2), detached=False)
        hold = asyncio.ensure_future(table.hold(hello(0)))
        claimed = await table.claim("s", "p-0", True, False, 5)
        assert claimed is not None and claimed.owner == "p-0"
        hold.cancel()

    run(body)


def test_a_session_whose_first_request_never_began_has_no_state_anywhere(tmp_path: Path) -> None:
    async def body() -> None:
        worker = Worker(tmp_path, 1)
        sessions, supervisor = worker.sessions, worker.supervisor

        def enters(name: str) -> Callable[[], None] | None:
            return sessions.enter(name, rebind=False)

        assert await worker.sessions.claim("new", True, False) is None
        for name in ("new", "sent by another worker"):
            undo = enters(name)
            assert undo is not None
            supervisor.epoch = supervisor.epoch._replace(
                number=supervisor.epoch.number + 1
            )  # the interpreter died before it began the request
            undo()
            again = enters(name)  # in the next one
            assert again is not None
            assert enters(name) is None, "another request was there before"
            again()  # by then the other may have begun
            supervisor.epoch = supervisor.epoch._replace(number=supervisor.epoch.number + 1)
            with pytest.raises(SessionWorkerLost):
                enters(name)
        assert worker.asked == ["new"], "the claim stays"

    run(body)
