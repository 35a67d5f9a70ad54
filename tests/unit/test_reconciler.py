"""How workers come and go, without Ray: turns, room, failures, an end in the midst of a beginning."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.placing import Node
from snakepit_ray.core.pool.row import Row, RowState
from snakepit_ray.core.routing.matching import Matcher
from snakepit_ray.core.routing.reporting import Report
from snakepit_ray.errors import PoolClosed, WorkerStartError
from snakepit_ray.port import cluster, ray_port
from snakepit_ray.port.messages import Hello, PoolMemory, WorkerFacts
from snakepit_ray.port.naming import WorkerName
from snakepit_ray.router import beginning, reconciler
from snakepit_ray.router.actor import RouterActor
from snakepit_ray.router.members import Members
from snakepit_ray.router.outlook import Outlook
from snakepit_ray.router.reconciler import Reconciler, make_roster
from snakepit_ray.router.updates import Updates
from snakepit_ray.worker import spawn

BOUND = 10.0


def facts(worker_id: str, state: str = "starting", **more: Any) -> WorkerFacts:
    given = dict.fromkeys(WorkerFacts._fields, 0) | {"worker_id": worker_id, "node_id": "n", "state": state}
    return WorkerFacts(**given | {"epoch": (1, 1), **more})


class Actor:
    """A worker's actor as its router sees it: it comes and starts when the world lets it."""

    def __init__(self, world: World, worker_id: str) -> None:
        self.world = world
        self.worker_id = worker_id

    def __getattr__(self, method: str) -> Any:
        answer = getattr(self.world, f"_{method}", None) or self.world._nothing
        if method == "remember":
            return SimpleNamespace(remote=partial(self.world.remembered.__setitem__, self.worker_id))
        return SimpleNamespace(remote=lambda *args: asyncio.ensure_future(answer(self.worker_id)))


class World:
    """The cluster of one test."""

    def __init__(self) -> None:
        self.created: list[str] = []
        self.ended: list[str] = []
        self.stopped: list[str] = []
        self.deaths: dict[str, Exception] = {}
        self.held_back = asyncio.Event()  # the end of this event's wait is the end of every start
        self.remembered: dict[str, PoolMemory] = {}
        self.idle = asyncio.Event()  # no worker has anything to do
        self.died: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.restarts: Counter[str] = Counter()

    def actor(self, worker_id: str) -> Actor:
        return Actor(self, worker_id)

    async def _belong(self, worker_id: str) -> None:
        if worker_id in self.deaths:
            raise self.deaths[worker_id]
        await self.died[worker_id].wait()
        raise ray_port.ActorUnavailable("it died", None)

    async def _start(self, worker_id: str) -> WorkerFacts:
        await self.held_back.wait()
        return facts(worker_id, "ready", epoch=(1 + self.restarts[worker_id], 1))

    async def _get_facts(self, worker_id: str) -> WorkerFacts:
        return facts(worker_id, "ready")

    async def _until_idle(self, worker_id: str) -> bool:
        return self.idle.is_set()

    async def _stop(self, worker_id: str) -> None:
        self.stopped.append(worker_id)
        if worker_id not in self.here:
            await asyncio.Event().wait()  # it waits for room: nobody answers

    async def _nothing(self, worker_id: str) -> None:
        return None

    here: set[str] = set()  # noqa: RUF012 - each test has its own, from `world`


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Patches what asks Ray; `make()` gives the world of the running loop."""
    made: list[World] = []

    def make() -> World:
        new = World()
        new.here = set()
        made.append(new)
        return new

    def created(config: PoolConfig, worker_id: str) -> Actor:
        made[-1].created.append(worker_id)
        return made[-1].actor(worker_id)

    monkeypatch.setattr(spawn, "spawn_worker", created)
    monkeypatch.setattr(ray_port, "find_worker", lambda name, router_id=None: made[-1].actor(name))
    monkeypatch.setattr(ray_port, "find_router", lambda pool: SimpleNamespace(worker_id=f"router of {pool}"))
    monkeypatch.setattr(ray_port, "end", lambda actor: made[-1].ended.append(actor.worker_id))
    monkeypatch.setattr(ray_port, "actor_id", lambda: "router")
    monkeypatch.setattr(ray_port, "was_restarted", lambda: False)
    monkeypatch.setattr(ray_port, "workers_named", lambda: [])
    monkeypatch.setattr(ray_port, "when_raylet_dies", lambda act: None)
    monkeypatch.setattr(cluster, "nodes", lambda: [Node({"CPU": 2.0})])
    monkeypatch.setattr(cluster, "node_names", lambda: {"n": "node-a"})
    monkeypatch.setattr(reconciler, "UNBORN_SECONDS", 0.01)
    return SimpleNamespace(make=make)


class Stage:
    """A reconciler with all that belongs to it."""

    def __init__(self, world: World, **settings: Any) -> None:
        self.world = world
        self.config = PoolConfig(name="p", **settings)
        self.members = Members(1, make_roster(self.config, 1))
        updates = Updates(self.members)
        self.reconciler = Reconciler(self.config, self.members, Matcher(), updates)
        self.outlook = Outlook(self.config, self.members, updates, beginning.Beginning(0.0))

    def arrive(self, *worker_ids: str) -> None:
        for worker_id in worker_ids:
            self.world.here.add(worker_id)
            self.reconciler.arrived(facts(worker_id))


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), BOUND))  # type: ignore[arg-type]


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - of the code that is tested, which has no event for it
        await asyncio.sleep(0)


def test_no_more_workers_are_born_at_once_than_have_their_turn(world: SimpleNamespace) -> None:
    async def body() -> None:
        there = world.make()
        stage = Stage(there, size=10, startup_batch_size=3)
        stage.reconciler.begin()
        came: set[str] = set()
        most = 0
        there.held_back.set()
        while len(came) < 10:
            await until(lambda: set(there.created) - came)
            await asyncio.sleep(0.01)
            born = [name for name in there.created if name not in came]
            most = max(most, len(born))
            stage.arrive(born[0])
            came.add(born[0])
            await until(lambda: len(stage.members.ready()) == len(came))
        assert most == 3
        assert stage.outlook.is_over() and stage.outlook.progress() == (10, 0, 10)
        assert there.created == [f"p-{i}" for i in range(10)]
        await stage.reconciler.dismiss()

    run(body)


def test_who_does_not_come_gives_its_turn_away_and_joins_later(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "ARRIVAL_SECONDS", 0.05)

    async def body() -> None:
        there = world.make()
        there.held_back.set()
        stage = Stage(there, size=2, startup_batch_size=1, startup_timeout=0.05, num_cpus=1)
        stage.reconciler.begin()
        await until(lambda: "p-1" in there.created)
        stage.arrive("p-1")
        await until(stage.outlook.is_over)
        assert stage.outlook.progress() == (1, 1, 2)
        error = str(stage.outlook.start_error())
        assert "p-0" in error and "CPU 1" in error and "within 0.05 s" in error
        stage.arrive("p-0")
        await until(lambda: stage.outlook.progress() == (2, 0, 2))
        await stage.reconciler.dismiss()

    run(body)


def test_who_can_have_no_room_is_told_at_once(world: SimpleNamespace) -> None:
    async def body() -> None:
        there = world.make()
        there.held_back.set()
        stage = Stage(there, size=5, num_cpus=1)
        stage.reconciler.begin()
        await until(lambda: len(there.created) == 5)
        assert stage.outlook.progress() == (0, 3, 5)
        assert not stage.outlook.is_hopeless(), "two have room"
        stage.arrive("p-0", "p-1")
        await until(stage.outlook.is_over)
        assert stage.outlook.progress() == (2, 3, 5)
        assert "asks for CPU 1: it has 1 node with at most CPU 2" in str(stage.outlook.start_error())
        await stage.reconciler.dismiss()

    run(body)


def test_where_nodes_may_be_added_nobody_is_told_that_there_is_no_room(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PoolConfig(num_gpus=1)
    with pytest.raises(WorkerStartError, match="asks for GPU 1: it has 1 node with at most GPU 0 on one"):
        cluster.check_room(config)
    monkeypatch.setattr(cluster, "nodes", lambda: [Node({"CPU": 2.0}, {cluster.NODE_GROUP: "small"})])
    cluster.check_room(config)
    assert cluster.room(config, cluster.nodes()) == math.inf


def test_an_actor_that_cannot_be_created_says_why(world: SimpleNamespace) -> None:
    async def body() -> None:
        there = world.make()
        text = "an error raised in its creation task\nModuleNotFoundError: No module named 'snakepit_ray'"
        there.deaths = {f"p-{i}": ray_port.RayError(text) for i in range(2)}
        stage = Stage(there, size=2)
        stage.reconciler.begin()
        await until(stage.outlook.is_hopeless)
        error = stage.outlook.start_error()
        assert isinstance(error, WorkerStartError)
        assert "No module named 'snakepit_ray'" in str(error) and "Install snakepit-ray" in str(error)
        await stage.reconciler.dismiss()

    run(body)


def test_everyone_who_asks_for_the_end_waits_for_it_and_nobody_is_left(world: SimpleNamespace) -> None:
    async def body() -> None:
        there = world.make()
        there.held_back.set()
        stage = Stage(there, size=4, startup_batch_size=2)
        stage.reconciler.begin()
        await until(lambda: len(there.created) == 2)
        await until(lambda: stage.members.by_id["p-0"].state is RowState.SPAWNED)
        stage.arrive("p-0")
        await asyncio.gather(stage.reconciler.dismiss(), stage.reconciler.dismiss())
        assert sorted(there.ended) == sorted(there.created), "also who waited for room"
        assert there.stopped.count("p-0") == 1
        assert len(there.created) <= 3, "nobody is created for a pool that ends"

    run(body)


def test_shrinking_does_not_wait_for_a_worker_that_waits_for_room(world: SimpleNamespace) -> None:
    async def body() -> None:
        there = world.make()
        there.held_back.set()
        stage = Stage(there, size=2)
        stage.reconciler.begin()
        await until(lambda: len(there.created) == 2)
        stage.arrive("p-0")
        await until(lambda: len(stage.members.ready()) == 1)
        await stage.reconciler.resize(1)
        assert list(stage.members.by_id) == ["p-0"]
        assert there.ended == ["p-1"]
        assert stage.outlook.progress() == (1, 0, 1)
        await stage.reconciler.dismiss()

    run(body)


# ---- the router --------------------------------------------------------------------------------------------


def test_a_router_that_is_told_to_start_late_starts(world: SimpleNamespace) -> None:
    async def body() -> None:
        there = world.make()
        there.held_back.set()
        router = RouterActor(PoolConfig(name="p", size=1), detached=True)
        await asyncio.sleep(0.05)
        await router.start()
        await router.start()
        await until(lambda: there.created)
        free = Report(free=1, movable=0, load=0, arrived=0, ordered=0)
        early = await router.report("p-0", free, [])
        assert early.pace is None, "it does not count, and so it is said again"
        hold = asyncio.ensure_future(router.hold(Hello(facts("p-0"), PoolMemory(), [])))
        progress, over = await router.starting(None, 0.0)
        while not over:
            progress, over = await router.starting(progress, 1.0)
        assert progress == (1, 0, 1) and there.created == ["p-0"]
        assert (await router.report("p-0", free, [])).pace is not None and router.matcher.free == 1
        there.here.add("p-0")
        hold.cancel()
        await router.shutdown()
        with pytest.raises(PoolClosed, match="being shut down"):
            await router.describe()
        with pytest.raises(PoolClosed, match="while it started"):
            await router.starting(None, 0.0)

    run(body)


def test_every_wanted_worker_has_a_row_with_its_state_its_node_and_its_last_error(
    world: SimpleNamespace,
) -> None:
    async def body() -> None:
        there = world.make()
        there.held_back.set()
        text = "in its creation task\nModuleNotFoundError: No module named 'x'"
        there.deaths["p-1"] = ray_port.RayError(text)
        there.here = {"p-0"}
        router = RouterActor(PoolConfig(name="p", size=3), detached=True)
        await router.start()
        hold = asyncio.ensure_future(router.hold(Hello(facts("p-0"), PoolMemory(), [])))
        await until(lambda: len(router.members.ready()) == 1 and len(router.members.failed()) == 1)
        rows = {row.worker_id: row for row in await router.workers()}
        assert [(name, row.state) for name, row in rows.items()] == [
            ("p-0", "ready"),
            ("p-1", "starting"),
            ("p-2", "starting"),
        ]
        assert rows["p-0"].node_name == "node-a" and rows["p-0"].error == ""
        assert "No module named 'x'" in rows["p-1"].error and rows["p-1"].pid == 0
        assert rows["p-2"].error == rows["p-2"].node_name == "", "it is on its way"
        hold.cancel()
        await router.shutdown()

    run(body)


def test_a_worker_whose_actor_died_says_so_until_it_is_back(world: SimpleNamespace) -> None:
    async def body() -> None:
        there = world.make()
        there.held_back.set()
        stage = Stage(there, size=1)
        stage.reconciler.begin()
        await until(lambda: there.created)
        stage.arrive("p-0")
        await until(lambda: stage.members.ready())
        there.died["p-0"].set()
        await until(lambda: not stage.members.ready())
        shown = stage.members.by_id["p-0"].described(1, {"n": "node-a"})
        assert (shown.state, shown.node_name, shown.pid) == ("starting", "node-a", 0)
        assert shown.error == "its actor died; Ray starts it again"
        there.died["p-0"].clear()
        there.restarts["p-0"] += 1
        stage.reconciler.arrived(facts("p-0", epoch=(2, 1)))
        await until(lambda: stage.members.ready())
        assert stage.members.by_id["p-0"].described(1, {}).error == ""
        await stage.reconciler.dismiss()

    run(body)


def test_a_drain_waits_for_every_worker_and_no_longer_than_it_may(world: SimpleNamespace) -> None:
    async def body() -> None:
        there = world.make()
        there.held_back.set()
        router = RouterActor(PoolConfig(name="p", size=2), detached=True)
        await router.start()
        await until(lambda: len(there.created) == 2)
        there.here = set(there.created)
        hellos = [Hello(facts(worker_id), PoolMemory(), []) for worker_id in there.created]
        holds = [asyncio.ensure_future(router.hold(hello)) for hello in hellos]
        await until(lambda: len(router.members.ready()) == 2)
        assert not await router.drain(0.01), "p-0 and p-1 still run something"
        there.idle.set()
        assert await router.drain(5.0)
        assert router.updates.closed
        for hold in holds:
            hold.cancel()
        await router.shutdown()

    run(body)


def test_a_full_worker_hears_where_there_is_room_and_how_full_the_pool_is(world: SimpleNamespace) -> None:
    async def body() -> None:
        there = world.make()
        router = RouterActor(PoolConfig(name="p", size=3), detached=True)
        for number, load in enumerate([5.0, 1.0, 0.0]):
            member = router.members.add(Row(f"p-{number}", number, RowState.READY))
            member.actor, member.load = there.actor(f"p-{number}"), load
        order, *pool = await router.room("p-0")
        assert order is not None and order.target == "p-2"
        assert pool == [1, 2]
        del router.members.by_id["p-1"], router.members.by_id["p-2"]
        assert await router.room("p-0") == (None, 0, 1)
        router.members.by_id.clear()
        await router.shutdown()

    run(body)


def test_a_router_that_nobody_asks_any_more_ends_its_pool(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginning, "UNASKED_SECONDS", 0.2)

    async def body() -> None:
        there = world.make()
        never_told = RouterActor(PoolConfig(name="p", size=1), detached=True)
        await until(lambda: there.ended == ["router of p"])
        assert never_told.members.roster.is_closed
        there.ended.clear()
        cut = RouterActor(PoolConfig(name="q", size=2), detached=True)
        await cut.start()
        await until(lambda: "router of q" in there.ended)
        assert set(there.ended) == {"router of q", *there.created}
        there.ended.clear()
        begun = RouterActor(PoolConfig(name="r", size=1), detached=True)
        await begun.start()
        await begun.begun()
        await asyncio.sleep(0.4)
        assert there.ended == []
        await begun.shutdown()

    run(body)


def test_a_router_that_was_restarted_finds_who_waits_for_room(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = [WorkerName("router", "p-3"), WorkerName("another", "p-9")]
    monkeypatch.setattr(ray_port, "workers_named", lambda: named)
    monkeypatch.setattr(ray_port, "was_restarted", lambda: True)

    async def body() -> None:
        there = world.make()
        router = RouterActor(PoolConfig(name="p", size=2), detached=True)
        await until(lambda: router.members.by_id)
        assert list(router.members.by_id) == ["p-3"] and router.beginning.over
        await router.start()
        router.reconciler.begin()
        await until(lambda: there.created)
        assert there.created == ["p-4"], "no number is given twice"
        await router.shutdown()
        assert sorted(there.ended) == ["p-3", "p-4"]

    run(body)


def test_a_restarted_router_ends_nobody_before_it_knows_how_large_the_pool_is(
    world: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool of one was scaled to two, and the worker that came later reports first: it has heard nothing."""
    named = [WorkerName("router", "p-0"), WorkerName("router", "p-1")]
    monkeypatch.setattr(ray_port, "workers_named", lambda: named)
    monkeypatch.setattr(ray_port, "was_restarted", lambda: True)

    async def body() -> None:
        there = world.make()
        there.here = {"p-0", "p-1"}
        router = RouterActor(PoolConfig(name="p", size=1), detached=True)
        await until(lambda: len(router.members.by_id) == 2)
        later = Hello(facts("p-1", "ready", epoch=(2, 1)), PoolMemory(), [])
        first = Hello(facts("p-0", "ready", epoch=(2, 1)), PoolMemory(order=7, size=2, next_number=2), [])
        holds = [asyncio.ensure_future(router.hold(hello)) for hello in (later, first)]
        await until(lambda: len(router.members.ready()) == 2)
        assert router.members.size == 2 and router.members.roster.is_whole
        assert not there.ended and not there.created
        for hold in holds:
            hold.cancel()
        await router.shutdown()

    run(body)


def test_who_comes_later_is_told_what_a_restart_of_the_router_would_forget(world: SimpleNamespace) -> None:
    async def body() -> None:
        there = world.make()
        there.held_back.set()
        router = RouterActor(PoolConfig(name="p", size=1), detached=True)
        await router.start()
        await router.scale(2)
        await until(lambda: len(there.created) == 2)
        there.here = set(there.created)
        holds = [
            asyncio.ensure_future(router.hold(Hello(facts(name), PoolMemory(), []))) for name in there.created
        ]
        await until(lambda: len(there.remembered) == 2)
        assert {name: memory.size for name, memory in there.remembered.items()} == {"p-0": 2, "p-1": 2}
        for hold in holds:
            hold.cancel()
        await router.shutdown()

    run(body)
