"""Knows a pool: its workers, the sessions that live on them, what handles are told, which waiter goes to
which free slot.

Rules: the control plane only: no request and no result passes here, and `message_counts` shows it; a plain
class (`ray_port.spawn_router` wraps it); after a restart it rebuilds its table from the workers' own reports.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter

from snakepit_ray.actors import ray_port
from snakepit_ray.actors.crew import Crew
from snakepit_ray.actors.members import Member, Members, PoolStats
from snakepit_ray.actors.messages import Claimed, MoveOrder, ReportAnswer, Snapshot, Update, WorkerFacts
from snakepit_ray.actors.news import News
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.affinity import Bindings
from snakepit_ray.core.rebalancing import Matcher, Move
from snakepit_ray.core.reporting import Pace, Pacer, Report
from snakepit_ray.errors import PoolClosed

FACTS_SECONDS = 2.0
log = logging.getLogger("snakepit_ray.router")


class RouterActor:
    """The router of one pool."""

    def __init__(self, config: PoolConfig, detached: bool) -> None:
        self.config = config
        self.detached = detached
        self.members = Members(config.capacity)
        self.news = News(self.members)
        self.matcher: Matcher[str] = Matcher()
        self.bindings: Bindings[str] = Bindings(config.session_ttl, config.max_sessions)
        self.crew = Crew(config, self.members, self.matcher, self.news)
        self.pacer = Pacer(max(1, self.crew.size), now=time.monotonic())
        self.calls: Counter[str] = Counter()
        self._forever = asyncio.Event()

    # ---- beginning and end --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Creates the workers; they hold on to this router and are started as they do. Safe to repeat."""
        if not self.members.by_id:
            self.crew.spawn(self.crew.size)

    async def hold(self, facts: WorkerFacts) -> None:
        """A worker belongs to this pool as long as it awaits this; it never returns while the router
        lives."""
        self.calls["hold"] += 1
        self.crew.arrived(facts)
        await self._forever.wait()

    async def progress(self) -> tuple[int, int, int]:
        """(ready, failed, wanted) workers."""
        return self.crew.progress()

    async def await_ready(self, timeout: float, everyone: bool) -> tuple[int, int, int]:
        """Waits until every worker is ready, or (not `everyone`) start-up is over with at least one.

        Raises WorkerStartError with the interpreter's own words when none could start, or when time is up.
        """
        deadline = time.monotonic() + timeout
        while True:
            ready, failed, wanted = self.crew.progress()
            if ready >= wanted or (ready and not everyone and ready + failed >= wanted):
                return ready, failed, wanted
            if not everyone and self.crew.hopeless():
                raise self.crew.start_error()
            if self.news.closed:
                raise PoolClosed.named(self.config.name, "it was shut down while it started")
            left = deadline - time.monotonic()
            if left <= 0:
                if ready and not everyone:
                    return ready, failed, wanted
                raise self.crew.start_error(f"{ready} of {wanted} workers were ready within {timeout:g} s")
            await self.news.table(min(left, 1.0))

    async def scale(self, size: int) -> None:
        """Grows or shrinks the pool; leavers hand their waiters on and finish what they run."""
        await self.crew.resize(size)

    async def shutdown(self) -> None:
        """Ends every worker; whoever watches is told. The caller ends this actor after it. Safe to repeat."""
        self.news.closed = True
        self.news.table_changed()
        await self.crew.dismiss()

    # ---- what handles ask ---------------------------------------------------------------------------------

    async def describe(self) -> tuple[PoolConfig, bool]:
        """The pool's configuration, and whether it is detached."""
        self.calls["describe"] += 1
        return self.config, self.detached

    async def snapshot(self) -> Snapshot:
        """The table as it is."""
        self.calls["snapshot"] += 1
        return Snapshot(self.members.version, self.members.entries())

    async def watch(self, handle_id: str, version: int, load: int, binding: int, timeout: float) -> Update:
        """News after these versions, within `timeout` seconds."""
        self.calls["watch"] += 1
        self.pacer.count(time.monotonic())
        return await self.news.next(handle_id, version, load, binding, timeout)

    async def stats(self) -> tuple[PoolStats, tuple[int, int, int]]:
        """The pool's numbers, asked of the workers now, and its `progress`."""
        return self.members.stats(await self.workers(), len(self.bindings)), self.crew.progress()

    async def workers(self) -> list[WorkerFacts]:
        """What each worker says of itself now; of one that does not answer, what it said last."""
        members = self.members.in_state("ready", "leaving")
        await asyncio.gather(*(self._ask(member) for member in members))
        return [member.facts for member in members if member.facts is not None]

    async def _ask(self, member: Member) -> None:
        try:
            member.facts = await asyncio.wait_for(member.actor.get_facts.remote(), FACTS_SECONDS)
        except (ray_port.RayError, asyncio.TimeoutError) as error:
            log.warning("worker %s does not answer: %s", member.worker_id, error)

    async def get_pid(self) -> int:
        """The router's process."""
        return os.getpid()

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
        if member is None:
            return ReportAnswer(self._pace(now), [])
        if report.load != member.load:
            self.members.set_load(member, report.load)
            self.news.something_changed()
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
        return ReportAnswer(self._pace(now), [order for order in mine if order is not None])

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
        workers = max(len(matcher), self.crew.size)  # while a pool starts, the others are about to join
        return self.pacer.pace(now, matcher.starving, matcher.free, workers)

    async def room(self, worker_id: str) -> MoveOrder | None:
        """The least loaded other worker."""
        self.calls["room"] += 1
        others = [m for m in self.members.ready() if m.worker_id != worker_id]
        if not others:
            return None
        best = min(others, key=lambda m: m.load)
        self.members.set_load(best, best.load + 1)
        return MoveOrder(best.worker_id, best.actor, 1)

    async def claim(self, session: str, claimant: str, strict: bool, rebind: bool) -> Claimed | None:
        """Who owns `session`: its present owner, or from now on `claimant`. None: no room for another
        session."""
        self.calls["claim"] += 1
        now = time.monotonic()
        ready = {m.worker_id for m in self.members.ready()}
        claim = self.bindings.claim(session, claimant, now, self.bindings.counts(), ready, strict=strict)
        if claim.owner is None:
            return None
        owner, version = claim.owner, claim.version
        if owner not in ready and rebind:
            owner, version = claimant, self.bindings.rebind(session, claimant, now)
        if claim.created or owner != claim.owner:
            self.news.bound(session, owner, version)
        member = self.members.by_id.get(owner)
        return Claimed(owner, member.actor if member is not None else None, version)
