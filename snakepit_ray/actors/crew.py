"""Knows how a pool's workers come and go: spawned, started, lost and found again, let go, ended.

Rules: nothing is in the table before its handshake; at most `startup_batch_size` interpreters start at once
on a node; a worker that cannot start is tried again, ever more slowly; one whose actor died leaves the table
at once and returns when Ray has restarted it, one that is gone for good is replaced; a leaver first leaves
the table, then waits until the handles know, then hands its waiters on and finishes what it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from typing import Any

from snakepit_ray import telemetry
from snakepit_ray.actors import ray_port
from snakepit_ray.actors.members import Member, Members
from snakepit_ray.actors.messages import PoolMemory, WorkerFacts
from snakepit_ray.actors.news import News
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.rebalancing import Matcher
from snakepit_ray.errors import SnakepitError, WorkerStartError
from snakepit_ray.telemetry import Why

AGAIN_SECONDS = 0.2
RETRY_START_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
LEAVE_SECONDS = 30.0
SETTLE_SECONDS = 0.5  # for calls that were under way when the last handle learnt that a worker leaves
log = logging.getLogger("snakepit_ray.router")


class Crew:
    """The workers of one pool."""

    def __init__(self, config: PoolConfig, members: Members, matcher: Matcher[str], news: News) -> None:
        self.size = config.size or 0
        self.closed = False
        self._config = config
        self._members = members
        self._matcher = matcher
        self._news = news
        self._next = 0
        self._order = 0
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._leaving: asyncio.Task[None] | None = None
        self._node_starts: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(config.startup_batch_size)
        )

    # ---- what a restart would forget ----------------------------------------------------------------------

    def adopt(self, memory: PoolMemory) -> None:
        """What the router before this one had told its workers, if it is newer than what is known."""
        if memory.order > self._order:
            self._order, self.size = memory.order, memory.size
            self._next = max(self._next, memory.next_number)
            self._members.left = dict(memory.left)

    def share_memory(self) -> None:
        """Gives every worker a copy of what only the router knows."""
        self._order = max(self._order + 1, time.time_ns() // 1_000_000)
        memory = PoolMemory(self._order, self.size, self._next, dict(self._members.left))
        for member in self._members.present():
            member.actor.remember.remote(memory)

    # ---- coming -------------------------------------------------------------------------------------------

    def spawn(self, count: int) -> None:
        """Creates worker actors; each reports for duty (`arrived`) and is started then."""
        for _ in range(count):
            worker_id = f"{self._config.name}-{self._next}"
            self._next += 1
            self._members.add(Member(worker_id, ray_port.spawn_worker(self._config, worker_id)))

    def arrived(self, facts: WorkerFacts) -> None:
        """A worker holds on to the router: a new one, one whose actor was restarted, or, where the router
        itself was restarted, one that has been serving all the time."""
        member = self._members.by_id.get(facts.worker_id)
        if member is None:
            member = Member(facts.worker_id, ray_port.find_worker(facts.worker_id))
            self._members.add(member)
            self._next = max(self._next, int(facts.worker_id.rpartition("-")[2]) + 1)
        if self._members.said(member, facts):
            self.share_memory()
        self._watch(member)
        if facts.state == "ready":
            self._joined(member, facts)
            member.actor.set_queue_limit.remote(self._config.queue_share(self.size))
        elif facts.state == "quarantined":
            self._members.set_state(member, "quarantined")
        elif facts.state in ("draining", "dead"):  # the router before this one was letting it go
            self._leaving = asyncio.ensure_future(self._let_go(member))
        elif facts.worker_id not in self._starting:
            self._starting[facts.worker_id] = asyncio.ensure_future(self._start(member, facts.node_id))

    def _watch(self, member: Member) -> None:
        if member.watch is not None:
            member.watch.cancel()
        member.watch = asyncio.ensure_future(self._until_it_dies(member, member.incarnation))

    async def _until_it_dies(self, member: Member, incarnation: int) -> None:
        try:
            await member.actor.belong.remote()
        except ray_port.ActorUnavailable:
            for_good = False  # Ray restarts it
        except ray_port.RayError:
            for_good = True
        if self.closed or member.incarnation != incarnation or member.state == "leaving":
            return
        log.warning("the actor of worker %s died", member.worker_id)
        about = {"pool": self._config.name, "worker_id": member.worker_id, "reason": Why.ACTOR_LOST.value}
        telemetry.emit("worker.lost", {}, about)
        self._out(member, "lost")
        if for_good and member.worker_id in self._members.by_id:
            self._members.remove(member)
            self.spawn(1)
            self.share_memory()

    async def _start(self, member: Member, node_id: str) -> None:
        attempt = 0
        while not self.closed and member.worker_id in self._members.by_id:
            self._members.set_state(member, "starting")
            try:
                async with self._node_starts[node_id]:
                    facts = await member.actor.start.remote(self._config.queue_share(self.size))
                    await asyncio.sleep(self._config.startup_batch_delay)
                self._joined(member, facts)
                break
            except ray_port.ActorUnavailable:
                await asyncio.sleep(
                    AGAIN_SECONDS
                )  # its actor restarts, or our connection is to the one before
                continue
            except Exception as error:  # noqa: BLE001 - kept: `start_error` shows it
                member.error = error
                self._members.set_state(member, "failed")
                self._news.table_changed()
            await asyncio.sleep(RETRY_START_SECONDS[min(attempt, len(RETRY_START_SECONDS) - 1)])
            attempt += 1
        self._starting.pop(member.worker_id, None)

    def _joined(self, member: Member, facts: WorkerFacts) -> None:
        self._members.said(member, facts)
        member.error = None
        self._members.set_state(member, "ready")
        self._matcher.join(member.worker_id)
        self._news.table_changed()

    def state_changed(self, worker_id: str, state: str, facts: WorkerFacts) -> None:
        """A worker was quarantined, or serves again after it."""
        member = self._members.by_id.get(worker_id)
        if member is None or member.state == "leaving" or facts.epoch[0] < member.incarnation:
            return
        if state == "quarantined":
            self._out(member, "quarantined")
        elif state == "ready" and member.state == "quarantined":
            self._joined(member, facts)

    def _out(self, member: Member, state: str) -> None:
        """It serves nobody now: handles and the matcher forget it until it is back."""
        self._members.set_state(member, state)
        self._matcher.gone(member.worker_id)
        self._news.table_changed()

    def progress(self) -> tuple[int, int, int]:
        """(ready, failed, wanted) workers."""
        return len(self._members.ready()), len(self._members.in_state("failed")), self.size

    def hopeless(self) -> bool:
        """Whether none is ready and those that began their start together have all failed."""
        ready, failed, _ = self.progress()
        at_it = bool(self._members.in_state("starting"))
        together = min(self.size, self._config.startup_batch_size)
        return not ready and failed > 0 and (not at_it or failed >= together)

    def start_error(self, why: str = "") -> SnakepitError:
        """Why workers did not start, in the words of the first interpreter that said something."""
        errors = [m.error for m in self._members.in_state("failed") if m.error is not None]
        cause = getattr(errors[0], "cause", errors[0]) if errors else None
        text = f"pool {self._config.name!r}: {why or f'none of its {self.size} workers could start'}"
        if cause is None:
            return WorkerStartError(f"{text}; raise startup_timeout, or see snakepit-ray doctor")
        kind = type(cause) if isinstance(cause, SnakepitError) else WorkerStartError
        return kind(f"{text}: {cause}")

    # ---- going --------------------------------------------------------------------------------------------

    async def resize(self, size: int) -> None:
        """Grows or shrinks; returns when leavers are gone (joiners report for duty later)."""
        self.size = size
        present = [m for m in self._members.by_id.values() if m.state != "leaving"]
        self.spawn(size - len(present))
        self.share_memory()
        leavers = sorted(present, key=_leaves_last)[size:]
        await asyncio.gather(*(self._let_go(member) for member in leavers))
        share = self._config.queue_share(size)
        await asyncio.gather(*(self._set_share(m, share) for m in self._members.ready()))

    async def _set_share(self, member: Member, share: int | None) -> None:
        try:
            await member.actor.set_queue_limit.remote(share)
        except ray_port.RayError as error:
            log.warning("worker %s does not answer: %s", member.worker_id, error)

    async def _let_go(self, member: Member) -> None:
        self._members.set_state(member, "leaving")
        self._matcher.leave(member.worker_id)
        version = self._members.version
        self._news.table_changed()
        deadline = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < deadline and not self._news.everyone_knows(version):
            await self._news.anything(0.1)
        await asyncio.sleep(SETTLE_SECONDS)
        try:
            await member.actor.drain.remote(max(0.0, deadline - time.monotonic()))
            member.facts = await member.actor.get_facts.remote()
            # Its sessions stay bound: hints move on at their next claim, strict ones learn that it is gone.
            await self._end(member)
        except ray_port.RayError as error:
            log.warning("worker %s went before it was let go: %s", member.worker_id, error)
            ray_port.end(member.actor)
        self._matcher.gone(member.worker_id)
        self._members.remove(member)
        self.share_memory()

    async def _end(self, member: Member) -> None:
        bound = self._config.shutdown_grace * 3 + 2
        try:
            await asyncio.wait_for(member.actor.stop.remote(), bound)
        except (ray_port.RayError, asyncio.TimeoutError) as error:
            log.warning("worker %s did not stop politely: %s", member.worker_id, error)
        ray_port.end(member.actor)

    async def drained(self, timeout: float) -> bool:
        """Waits until no worker has anything left to do; whether that was within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        await asyncio.sleep(min(SETTLE_SECONDS, timeout))  # for calls that are under way
        while time.monotonic() < deadline:
            try:
                facts = await asyncio.gather(*(m.actor.get_facts.remote() for m in self._members.ready()))
            except ray_port.RayError:
                facts = []
            if facts and not any(said.running or said.waiting or said.present for said in facts):
                return True
            await asyncio.sleep(0.05)
        return False

    async def dismiss(self) -> None:
        """Ends every worker. Safe to repeat."""
        self.closed = True
        members = list(self._members.by_id.values())
        self._members.by_id.clear()
        await asyncio.gather(*(self._end(member) for member in members))


def _leaves_last(member: Member) -> tuple[bool, Any]:
    """Those that serve stay, the oldest first."""
    return member.state != "ready", int(member.worker_id.rpartition("-")[2])
