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
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from snakepit_ray import telemetry
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.circuit import Admit
from snakepit_ray.core.routing.matching import Matcher, Move
from snakepit_ray.core.routing.reporting import Pace, Pacer, Report
from snakepit_ray.errors import PoolClosed
from snakepit_ray.port import ray_port
from snakepit_ray.port.listeners import Listeners, Told
from snakepit_ray.port.messages import (
    Claimed,
    Hello,
    MoveOrder,
    PoolStats,
    ReportAnswer,
    Room,
    Snapshot,
    StartCounts,
    Update,
    WorkerFacts,
)
from snakepit_ray.process.awaiting import happens, within
from snakepit_ray.router.beginning import Beginning
from snakepit_ray.router.circuit import PoolCircuit
from snakepit_ray.router.leases import Leases
from snakepit_ray.router.members import Member, Members
from snakepit_ray.router.outlook import Outlook
from snakepit_ray.router.permits import PermitDesk
from snakepit_ray.router.roster import Roster
from snakepit_ray.router.sessions import Claims
from snakepit_ray.router.updates import Updates

FACTS_SECONDS = 2.0
RECOVER_SECONDS = 3.0  # after a restart, for the workers to say that they are there
REPLACE_SECONDS = 15.0  # after a restart, for those that do not come back
log = logging.getLogger("snakepit_ray.router")


class RouterActor:
    """The router of one pool."""

    def __init__(self, config: PoolConfig, detached: bool) -> None:
        self.config = config
        self.detached = detached
        self.generation = time.time_ns() // 1_000_000
        self.members = Members(config.capacity, version=self.generation)
        self.updates = Updates(self.members)
        self.matcher: Matcher[str] = Matcher()
        self.claims = Claims(config, self.generation, self.members, self.updates)
        self.roster = Roster(config, self.members, self.matcher, self.updates)
        self.outlook = Outlook(config, self.members)
        self.beginning = Beginning(time.monotonic())
        self.pacer = Pacer(max(1, self.roster.size), now=time.monotonic())
        self.leases = Leases(self.members)
        self.permits = PermitDesk(config.startup_timeout + config.request_timeout)
        self.circuit = PoolCircuit(config.circuit_breaker, self.members, config.name)
        self.calls: Counter[str] = Counter()
        self.listeners = Listeners()
        self._began = time.monotonic()
        self._is_ready = False
        self._forever = asyncio.Event()
        self._everybody = asyncio.Event()  # has said which sessions are its own, or has had the time
        self._was_restarted = ray_port.was_restarted()
        self._tasks = [asyncio.ensure_future(self._recover()), asyncio.ensure_future(self._undo_when_left())]

    # ---- beginning and end --------------------------------------------------------------------------------

    @ray_port.survives_restarts
    async def start(self) -> None:
        """Creates the workers; they hold on to this router and are started as they do. Safe to repeat."""
        self.beginning.asked(time.monotonic())
        if not self._was_restarted and not self.members.by_id:
            self.roster.spawn(self.roster.size)
        if not self._was_restarted:
            self.updates.known.set()
            self._everybody.set()

    async def _recover(self) -> None:
        """After a restart the workers are there already; those that do not come back are replaced."""
        ray_port.when_raylet_dies(lambda: os._exit(1))
        if not self._was_restarted:
            return
        self.roster.find_unborn()
        self.beginning.over = bool(self.members.by_id)
        if await happens(self.updates.known, RECOVER_SECONDS):
            return
        self.updates.known.set()
        await asyncio.sleep(REPLACE_SECONDS)
        self._everybody.set()
        if self.members.by_id and not self.roster.closed:
            self.roster.spawn(self.roster.size - len(self.members.by_id))

    async def _undo_when_left(self) -> None:
        """Ends the pool when whoever began it is gone before its beginning was over."""
        while not self.beginning.over:
            left = self.beginning.left(time.monotonic())
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
        self.roster.adopt(hello.memory)
        self.permits.give_back(facts.worker_id)
        self.roster.arrived(facts)
        self.claims.learn(facts.worker_id, hello.sessions)
        if sum(member.here.is_set() for member in self.members.by_id.values()) >= self.roster.size:
            self.updates.known.set()
            self._everybody.set()
        await self._forever.wait()

    @ray_port.survives_restarts
    async def starting(self, seen: StartCounts | None, wait: float) -> tuple[StartCounts, bool]:
        """How far the start is and whether it is over (every worker ready, or each had its chance and at
        least one is), as soon as that is not what was `seen`, after `wait` seconds at most.

        Raises WorkerStartError with the interpreter's own words when none could start, PoolClosed when
        somebody ended the pool."""
        deadline = time.monotonic() + wait
        while True:
            self.beginning.asked(time.monotonic())
            if self.updates.closed:
                raise PoolClosed.named(self.config.name, "it was shut down while it started")
            if self.outlook.is_hopeless():
                raise self.outlook.start_error()
            progress, over = self.outlook.progress(), self.outlook.is_over()
            if over:
                self._say_ready(progress)
            left = deadline - time.monotonic()
            if over or progress != seen or left <= 0:
                return progress, over
            await self.updates.table(left)

    def _say_ready(self, progress: StartCounts) -> None:
        if not self._is_ready:
            self._is_ready = True
            took = {"workers": progress.ready, "duration": time.monotonic() - self._began}
            telemetry.emit("pool.ready", took, {"pool": self.config.name, "failed": progress.failed})

    @ray_port.survives_restarts
    async def await_ready(self, timeout: float) -> StartCounts:
        """Waits until every worker is ready. Raises WorkerStartError when they are not in time, with the
        words of one that is missing."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0 and not self.updates.closed:
            progress = self.outlook.progress()
            if progress.ready >= progress.wanted:
                return progress
            await self.updates.table(min(left, 1.0))
        if self.updates.closed:
            raise PoolClosed.named(self.config.name, "it was shut down while it started")
        ready, _, wanted = self.outlook.progress()
        raise self.outlook.start_error(f"{ready} of {wanted} workers were ready within {timeout:g} s")

    @ray_port.survives_restarts
    async def scale(self, size: int) -> None:
        """Grows or shrinks the pool; leavers hand their waiters on and finish what they run."""
        sizes = {"old_size": self.roster.size, "new_size": size}
        await self.roster.resize(size)
        telemetry.emit("pool.scaled", sizes, {"pool": self.config.name})

    @ray_port.survives_restarts
    async def drain(self, timeout: float) -> bool:
        """Takes nothing new and lets what waits and runs come to its end; whether all of it did in time."""
        self.updates.closed = True
        self.updates.table_changed()
        return await self.roster.drained(timeout)

    @ray_port.survives_restarts
    async def recycle(self, worker_id: str | None) -> int:
        """Has one worker, or all, replace their interpreters as permits allow; how many heard it. Who asks
        for an interpreter twice, as after this router's restart, gets one new one."""
        await self.updates.known.wait()
        chosen = [m for m in self.members.ready() if worker_id in (None, m.worker_id)]
        return sum(await asyncio.gather(*(self._recycle(member) for member in chosen)))

    async def _recycle(self, member: Member) -> bool:
        try:
            await within(FACTS_SECONDS, member.actor.recycle.remote())
        except (ray_port.RayError, asyncio.TimeoutError) as error:
            log.warning("worker %s was not told to recycle: %s", member.worker_id, error)
            return False
        return True

    @ray_port.survives_restarts
    async def shutdown(self) -> None:
        """Ends every worker; whoever watches is told. The caller ends this actor after it. Safe to repeat."""
        if not self.updates.closed:
            uptime = {"uptime": time.monotonic() - self._began}
            telemetry.emit("pool.closed", uptime, {"pool": self.config.name})
        self.updates.closed = True
        self.updates.table_changed()
        await self.roster.dismiss()

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
        return Snapshot(self.members.version, self.members.entries(), self.members.size)

    async def watch(self, handle_id: str, version: int, load: int, binding: int, timeout: float) -> Update:
        """News after these versions, within `timeout` seconds."""
        self.calls["watch"] += 1
        self.pacer.count(time.monotonic())
        return await self.updates.next(handle_id, version, load, binding, timeout)

    async def departed(self, worker_id: str) -> float | None:
        """Seconds since a worker left for good; None of one that did not."""
        return self.members.departed(worker_id)

    @ray_port.survives_restarts
    async def stats(self) -> tuple[PoolStats, StartCounts]:
        """The pool's numbers, asked of the workers now, and its progress."""
        return self.members.stats(await self._facts(False), len(self.claims)), self.outlook.progress()

    @ray_port.survives_restarts
    async def workers(self) -> list[WorkerFacts]:
        """What each worker says of itself now; of one that does not answer, what it said last."""
        return await self._facts(True)

    async def _facts(self, memory: bool) -> list[WorkerFacts]:
        await self.updates.known.wait()
        members = self.members.in_state("ready", "leaving", "quarantined")
        await asyncio.gather(*(self._ask(member, memory) for member in members))
        return [member.facts for member in members if member.facts is not None]

    async def _ask(self, member: Member, memory: bool) -> None:
        try:
            facts = await within(FACTS_SECONDS, member.actor.get_facts.remote(memory))
            self.members.said(member, facts)
        except (ray_port.RayError, asyncio.TimeoutError) as error:
            log.warning("worker %s does not answer: %s", member.worker_id, error)

    @ray_port.survives_restarts
    async def stories(self) -> dict[str, list[str]]:
        """The last events of each worker that answers."""
        told: dict[str, list[str]] = {}
        for member in self.members.present():
            with contextlib.suppress(ray_port.RayError, asyncio.TimeoutError):
                told[member.worker_id] = await within(FACTS_SECONDS, member.actor.get_story.remote())
        return told

    async def caller(self, caller_id: str, *, _ray_trace_ctx: object = None) -> AsyncIterator[None]:
        """A calling process holds this stream and reads nothing of it (`ray_port.hold_lease`): Ray waits for
        it between two items, and ends the stream when that process has ended. `_ray_trace_ctx`: see
        `ray_port.TRACE_KEYWORD`."""
        self.calls["caller"] += 1
        try:
            while True:
                yield
        finally:
            self.leases.gone(caller_id)

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
        now = time.monotonic()
        self.calls["report"] += 1
        self.pacer.count(now, starving=bool(report.movable and not report.free))
        member = self.members.by_id.get(worker_id)
        if member is None or worker_id not in self.matcher:
            # Its start was quicker than the word of it. Nothing that it says counts yet, and a free slot that
            # nobody knew of would stand beside waiting requests for ever.
            again = None if report.free else self._pace(now)
            return ReportAnswer(again, [], self.generation)
        if report.load != member.load:
            self.members.set_load(member, report.load)
            self.updates.something_changed()
        self.pacer.in_vain(len(refusers))
        for target in refusers:
            self.matcher.refused(worker_id, target, now)
        moves = self.matcher.report(
            worker_id,
            report.free,
            report.movable,
            now,
            arrived=report.arrived,
            ordered=report.ordered,
            push=self.pacer.may_push(now),
        )
        self.pacer.moved(sum(move.count for move in moves))
        self._send([move for move in moves if move.source != worker_id])
        mine = [self._order(move) for move in moves if move.source == worker_id]
        return ReportAnswer(self._pace(now), [order for order in mine if order is not None], self.generation)

    async def state_changed(self, worker_id: str, state: str, facts: WorkerFacts) -> None:
        """A worker went out of service, or is back."""
        self.calls["state_changed"] += 1
        self.roster.state_changed(worker_id, state, facts)

    async def may_recycle(self, worker_id: str) -> bool:
        """Whether this worker may be one of those that recycle now; waits a while until it may."""
        self.calls["may_recycle"] += 1
        await self.updates.known.wait()
        return await self.permits.ask(worker_id, self.roster.size)

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
        now = time.monotonic()
        self.calls["unused"] += 1
        self.pacer.in_vain(count)
        self.pacer.count(now)
        self._send(self.matcher.unused(source, target, count, now, push=self.pacer.may_push(now)))

    def _send(self, moves: list[Move[str]]) -> None:
        """Tells sources to move; each counts its orders, so none is lost silently."""
        for move in moves:
            source, order = self.members.by_id.get(move.source), self._order(move)
            if source is not None and order is not None:
                self.calls["move"] += 1
                self.pacer.count(time.monotonic())
                source.actor.move.remote(order)

    def _order(self, move: Move[str]) -> MoveOrder | None:
        target = self.members.by_id.get(move.target)
        return None if target is None else MoveOrder(move.target, target.actor, move.count)

    def _pace(self, now: float) -> Pace:
        matcher = self.matcher
        workers = max(len(matcher), self.roster.size)  # while a pool starts, the others are about to join
        return self.pacer.pace(now, matcher.starving, matcher.free, workers)

    async def room(self, worker_id: str) -> Room:
        """The least loaded other worker."""
        self.calls["room"] += 1
        ready = self.members.ready()
        available = sum(member.load < self.config.capacity for member in ready)
        busy = sum(member.load > 0 for member in ready)
        others = [m for m in ready if m.worker_id != worker_id]
        if not others:
            return Room(None, available, busy)
        best = min(others, key=lambda m: m.load)
        self.members.set_load(best, best.load + 1)
        return Room(MoveOrder(best.worker_id, best.actor, 1), available, busy)

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
