"""The router of a pool: its workers, the sessions that live on them, what handles are told, which waiter goes
to which free slot.

Rules:
- The control plane only: no request and no result passes here, and `message_counts` shows it.
- A plain class (`spawn.spawn_router` wraps it).
- After a restart it rebuilds its table, its bindings and its counters from what the workers say. It
  answers nobody from a table that is not whole: Ray asks it again what is marked with `survives_restarts`.
- A strict session that it does not know may be one of a worker that has yet to say so, and waits for all.
- Whatever it numbers goes on above the numbers of the router before it.
- A pool whose beginning was cut is undone (`beginning`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

from snakepit_ray import telemetry
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.circuit import Admit
from snakepit_ray.core.routing.matching import Matcher
from snakepit_ray.core.routing.reporting import Report
from snakepit_ray.core.tools.tool import Tool, ToolInfo
from snakepit_ray.core.worker.command_info import CommandInfo
from snakepit_ray.errors import PoolClosed
from snakepit_ray.port import ray_port
from snakepit_ray.port.listeners import Listeners, Told
from snakepit_ray.port.messages import (
    Claimed,
    Hello,
    PoolStats,
    ReportAnswer,
    Room,
    Snapshot,
    StartCounts,
    Update,
    WorkerFacts,
)
from snakepit_ray.process.awaiting import happens
from snakepit_ray.router.beginning import Beginning
from snakepit_ray.router.census import Census
from snakepit_ray.router.circuit import PoolCircuit
from snakepit_ray.router.leases import Leases
from snakepit_ray.router.members import Members
from snakepit_ray.router.moves import Moves
from snakepit_ray.router.outlook import Outlook
from snakepit_ray.router.permits import PermitDesk
from snakepit_ray.router.reconciler import Reconciler, make_roster
from snakepit_ray.router.sessions import Claims
from snakepit_ray.router.tools import RouterTools
from snakepit_ray.router.updates import Updates

RECOVER_SECONDS = 3.0  # after a restart, for the workers to say that they are there
REPLACE_SECONDS = 15.0  # after a restart, for those that do not come back
log = logging.getLogger("snakepit_ray.router")


class RouterActor:
    """The router of one pool."""

    def __init__(
        self, config: PoolConfig, detached: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self.config = config
        self.detached = detached
        self.generation = time.time_ns() // 1_000_000
        self.members = Members(config.capacity, make_roster(config, self.generation))
        self.updates = Updates(self.members)
        self.matcher: Matcher[str] = Matcher()
        self.claims = Claims(config, self.generation, self.members, self.updates)
        self.reconciler = Reconciler(config, self.members, self.matcher, self.updates)
        self.beginning = Beginning(self._clock())
        self.outlook = Outlook(config, self.members, self.updates, self.beginning)
        self.census = Census(self.members, self.updates)
        self.leases = Leases(self.members)
        self.tools = RouterTools(self.members)
        self.permits = PermitDesk(config.startup_timeout + config.request_timeout)
        self.circuit = PoolCircuit(config.circuit_breaker, self.members, config.name)
        self.calls: Counter[str] = Counter()
        self.moves = Moves(self.members, self.matcher, self.updates, self.generation, self.calls)
        self.listeners = Listeners()
        self._began = self._clock()
        self._forever = asyncio.Event()
        self._everybody = asyncio.Event()  # has said which sessions are its own, or has had the time
        self._was_restarted = ray_port.was_restarted()
        self._tasks = [asyncio.ensure_future(self._recover()), asyncio.ensure_future(self._undo_when_left())]

    # ---- beginning and end --------------------------------------------------------------------------------

    @ray_port.survives_restarts
    async def start(self) -> None:
        """Creates the workers; they hold on to this router and are started as they do. Safe to repeat."""
        self.beginning.asked(self._clock())
        if not self._was_restarted:
            self._begin()

    def _begin(self) -> None:
        """Every worker that there is has reported, or had the time."""
        self.updates.known.set()
        self._everybody.set()
        self.reconciler.begin()

    async def _recover(self) -> None:
        """After a restart the workers are there already; those that do not come back are replaced."""
        ray_port.when_raylet_dies(lambda: os._exit(1))
        if not self._was_restarted:
            return
        self.reconciler.find_unborn()
        self.beginning.over = bool(self.members.by_id)
        if await happens(self._everybody, RECOVER_SECONDS):
            return
        self.updates.known.set()
        if not await happens(self._everybody, REPLACE_SECONDS):
            self._everybody.set()
            if self.members.by_id:
                self._begin()

    async def _undo_when_left(self) -> None:
        """Ends the pool when whoever began it is gone before its beginning was over."""
        while not self.beginning.over:
            left = self.beginning.left(self._clock())
            if not left:
                log.warning("the start of pool %s was cut: its workers end", self.config.name)
                await self.shutdown()
                ray_port.end(ray_port.find_router(self.config.name))
                return
            await asyncio.sleep(left)

    @ray_port.survives_restarts
    async def begun(self) -> None:
        """The process that started the pool has its handle: from now on the pool is there for good."""
        self.beginning.over = True

    async def hold(self, hello: Hello) -> None:
        """A worker belongs to this pool as long as it awaits this; it never returns while the router
        lives."""
        self.calls["hold"] += 1
        facts = hello.facts
        self.reconciler.adopt(hello.memory)
        self.permits.give_back(facts.worker_id)
        self.reconciler.arrived(facts)
        self.reconciler.remind(facts.worker_id, hello.memory)
        self.claims.learn(facts.worker_id, hello.sessions)
        self.tools.arrived(facts.worker_id, hello.tools)
        if self.members.have_reported() or self._everybody.is_set():
            self._begin()
        await self._forever.wait()

    @ray_port.survives_restarts
    async def starting(self, seen: StartCounts | None, wait: float) -> tuple[StartCounts, bool]:
        """How far the start is and whether it is over (every worker ready, or each had its chance and at
        least one is), as soon as that is not what was `seen`, after `wait` seconds at most.

        Raises WorkerStartError with the interpreter's own words when none could start, PoolClosed when
        somebody ended the pool."""
        return await self.outlook.next(seen, wait)

    @ray_port.survives_restarts
    async def await_ready(self, timeout: float) -> StartCounts:
        """Waits until every worker is ready. Raises WorkerStartError when they are not in time, with the
        words of one that is missing."""
        return await self.outlook.all_ready(timeout)

    @ray_port.survives_restarts
    async def scale(self, size: int) -> None:
        """Grows or shrinks the pool; leavers hand their waiters on and finish what they run."""
        sizes = {"old_size": self.members.size, "new_size": size}
        await self.reconciler.resize(size)
        telemetry.emit("pool.scaled", sizes, {"pool": self.config.name})

    @ray_port.survives_restarts
    async def drain(self, timeout: float) -> bool:
        """Takes nothing new and lets what waits and runs come to its end; whether all of it did in time."""
        self.updates.closed = True
        self.updates.table_changed()
        return await self.census.drained(timeout)

    @ray_port.survives_restarts
    async def recycle(self, worker_id: str | None) -> int:
        """Has one worker, or all, replace their interpreters as permits allow; how many heard it. Who asks
        for an interpreter twice, as after this router's restart, gets one new one."""
        return await self.census.recycle(worker_id)

    @ray_port.survives_restarts
    async def shutdown(self) -> None:
        """Ends every worker; whoever watches is told. The caller ends this actor after it. Safe to repeat."""
        if not self.updates.closed:
            uptime = {"uptime": self._clock() - self._began}
            telemetry.emit("pool.closed", uptime, {"pool": self.config.name})
        self.updates.closed = True
        self.updates.table_changed()
        await self.reconciler.dismiss()

    # ---- what handles ask ---------------------------------------------------------------------------------

    @ray_port.survives_restarts
    async def describe(self) -> tuple[PoolConfig, bool]:
        """The pool's configuration, and whether it is detached. Raises PoolClosed when it is ending."""
        self.calls["describe"] += 1
        if self.updates.closed:
            raise PoolClosed.named(self.config.name, "it is being shut down")
        return self.config, self.detached

    @ray_port.survives_restarts
    async def snapshot(self) -> Snapshot:
        """The table as it is."""
        self.calls["snapshot"] += 1
        await self.updates.known.wait()
        return Snapshot(self.members.version, self.members.entries(), self.updates.counts)

    async def watch(self, handle_id: str, version: int, load: int, binding: int, timeout: float) -> Update:
        """News after these versions, within `timeout` seconds."""
        self.calls["watch"] += 1
        self.moves.count_message()
        return await self.updates.next(handle_id, version, load, binding, timeout)

    async def departed(self, worker_id: str) -> float | None:
        """Seconds since a worker left for good; None of one that did not."""
        return self.members.departed(worker_id)

    @ray_port.survives_restarts
    async def stats(self) -> tuple[PoolStats, StartCounts]:
        """The pool's numbers, asked of the workers now, and its progress."""
        return await self.census.stats(len(self.claims)), self.outlook.progress()

    @ray_port.survives_restarts
    async def workers(self) -> list[WorkerFacts]:
        """A row for each worker of the pool: what it says of itself now, or what it said last where it does
        not answer. A worker that has not come has a row with the reason."""
        return await self.census.workers()

    @ray_port.survives_restarts
    async def commands(self) -> list[CommandInfo]:
        """What the pool's interpreters serve; none where no worker is ready."""
        self.calls["commands"] += 1
        return await self.census.commands()

    @ray_port.survives_restarts
    async def stories(self) -> dict[str, list[str]]:
        """The last events of each worker that answers."""
        return await self.census.stories()

    async def caller(self, caller_id: str, *, _ray_trace_ctx: object = None) -> AsyncIterator[None]:
        """A calling process holds this stream and reads nothing of it (`ray_port.hold_lease`): Ray waits for
        it between two items, and ends the stream when that process has ended. `_ray_trace_ctx`: see
        `ray_port.TRACE_KEYWORD`."""
        self.calls["caller"] += 1
        self.tools.came(caller_id)
        try:
            while True:
                yield
        finally:
            self.leases.gone(caller_id)
            self.tools.gone(caller_id)

    # ---- tools --------------------------------------------------------------------------------------------

    @ray_port.survives_restarts
    async def add_tools(self, tools: Sequence[Tool]) -> None:
        """Registers tools, all or none, and returns when the workers know. Raises DuplicateTool."""
        self.calls["add_tools"] += 1
        await self.updates.known.wait()  # the workers may have yet to say which tools there are
        await self.tools.add(tools)

    @ray_port.survives_restarts
    async def remove_tool(self, name: str, session: str) -> bool:
        """Takes a tool away, and returns when the workers know; whether there was one."""
        self.calls["remove_tool"] += 1
        await self.updates.known.wait()
        return await self.tools.remove(name, session)

    @ray_port.survives_restarts
    async def end_tools_of(self, sessions: Sequence[str]) -> None:
        """Takes the tools of sessions away that have ended, and returns when the workers know."""
        self.calls["end_tools_of"] += 1
        await self.updates.known.wait()
        await self.tools.end_sessions(sessions)

    @ray_port.survives_restarts
    async def list_tools(self) -> list[ToolInfo]:
        """The tools that there are, by session and name."""
        self.calls["list_tools"] += 1
        await self.updates.known.wait()
        return self.tools.all()

    async def get_pid(self) -> int:
        """The router's process."""
        return os.getpid()

    async def events(self, listener: str, patterns: Sequence[str], timeout: float) -> Told:
        """The events of the pool itself that `patterns` match, for a listener in another process."""
        self.calls["events"] += 1
        return await self.listeners.next(listener, patterns, timeout)

    @ray_port.survives_restarts
    async def message_counts(self) -> dict[str, int]:
        """Messages that passed here since the start, by kind: what shows that requests do not."""
        return dict(self.calls)

    # ---- what workers say ---------------------------------------------------------------------------------

    async def report(self, worker_id: str, report: Report, refusers: list[str]) -> ReportAnswer:
        """A worker's load, and who refused what it was told to move; the answer says what to move and how
        soon to report again."""
        self.calls["report"] += 1
        return self.moves.report(worker_id, report, refusers)

    async def state_changed(self, worker_id: str, state: str, facts: WorkerFacts) -> None:
        """A worker went out of service, or is back."""
        self.calls["state_changed"] += 1
        self.reconciler.state_changed(worker_id, state, facts)

    async def may_recycle(self, worker_id: str) -> bool:
        """Whether this worker may be one of those that recycle now; waits a while until it may."""
        self.calls["may_recycle"] += 1
        await self.updates.known.wait()
        return await self.permits.ask(worker_id, self.members.size)

    async def recycling_over(self, worker_id: str) -> None:
        """Another one may."""
        self.calls["recycling_over"] += 1
        self.permits.give_back(worker_id)

    async def circuit_failed(self, probe: bool) -> None:
        """A request failed by the pool's own fault."""
        self.calls["circuit_failed"] += 1
        self.circuit.failed(probe)

    async def circuit_succeeded(self) -> None:
        """The request that tried an open circuit went well."""
        self.calls["circuit_succeeded"] += 1
        self.circuit.succeeded()

    async def circuit_admit(self) -> Admit:
        """Whether a request may try now."""
        self.calls["circuit_admit"] += 1
        return self.circuit.admit()

    async def unused(self, source: str, target: str, count: int) -> None:
        """A worker had `count` waiting requests fewer than it was told to move to `target`."""
        self.calls["unused"] += 1
        self.moves.unused(source, target, count)

    async def room(self, worker_id: str) -> Room:
        """The least loaded other worker."""
        self.calls["room"] += 1
        return self.moves.room(worker_id)

    async def claim(
        self, session: str, claimant: str, strict: bool, rebind: bool, life: int
    ) -> Claimed | None:
        """Who owns `session`: its present owner, or from now on `claimant`, which is in that `life` (its
        actor's incarnation). None: no room for another session."""
        self.calls["claim"] += 1
        await self.updates.known.wait()  # the session may be bound to a worker that has yet to say so
        if strict and not self.claims.knows(session):
            await self._everybody.wait()
        return self.claims.claim(session, claimant, strict, rebind, life)
