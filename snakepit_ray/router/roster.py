"""How a pool's workers come and go: spawned, started, lost and found again, let go, ended.

Rules:
- Handles hear of a worker when it is ready, never before.
- At most `startup_batch_size` interpreters start at once on a node.
- A worker that cannot start is tried again, ever more slowly.
- One whose actor died leaves the handles' table at once and returns when Ray has restarted it; one that is
  gone for good is replaced.
- A leaver first leaves the table, then waits until the handles know, then hands its waiters on and finishes
  what it runs.
- A worker whose actor has not reported yet may be waiting for room: it is ended and not asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from typing import Any

from snakepit_ray import telemetry
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.routing.matching import Matcher
from snakepit_ray.errors import WorkerStartError
from snakepit_ray.port import control, ray_port
from snakepit_ray.port.messages import PoolMemory, WorkerFacts
from snakepit_ray.port.naming import number_of
from snakepit_ray.process.awaiting import within
from snakepit_ray.router.hiring import Hiring
from snakepit_ray.router.members import Member, Members
from snakepit_ray.router.updates import Updates
from snakepit_ray.telemetry import Why

AGAIN_SECONDS = 0.2
RETRY_START_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
LEAVE_SECONDS = 30.0
SETTLE_SECONDS = 0.5  # for calls that were under way when the last handle learnt that a worker leaves
UNBORN_SECONDS = 1.0  # for an actor that has not reported yet: it waits for room, or has just come
log = logging.getLogger("snakepit_ray.router")


class Roster:
    """The workers of one pool."""

    def __init__(self, config: PoolConfig, members: Members, matcher: Matcher[str], updates: Updates) -> None:
        self.closed = False
        self._config = config
        self._members = members
        self._matcher = matcher
        self._updates = updates
        self._next = 0
        self._order = 0
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._leaving: asyncio.Task[None] | None = None
        self._dismissing: asyncio.Task[None] | None = None
        self._hiring = Hiring(config, members, self._watch, self._could_not_create, updates.table_changed)
        members.size = config.size or 0
        self._node_starts: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(config.startup_batch_size)
        )

    @property
    def size(self) -> int:
        """How many workers the pool is to have."""
        return self._members.size

    # ---- what a restart would forget ----------------------------------------------------------------------

    def adopt(self, memory: PoolMemory) -> None:
        """What the router before this one had told its workers, if it is newer than what is known."""
        if memory.order > self._order:
            self._order, self._members.size = memory.order, memory.size
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
        """Creates worker actors, a few at a time; each reports for duty (`arrived`) and is started then."""
        numbers = range(self._next, self._next + max(0, count))
        self._next += len(numbers)
        self._hiring.hire([f"{self._config.name}-{number}" for number in numbers])

    def find_unborn(self) -> None:
        """Takes back into the table what the router before this one had created and what has not reported:
        such an actor waits for room."""
        for name in ray_port.workers_named():
            if name.router_id == ray_port.actor_id() and name.worker_id not in self._members.by_id:
                self._watch(self._know(name.worker_id))

    def _know(self, worker_id: str) -> Member:
        member = Member(worker_id, ray_port.find_worker(worker_id, ray_port.actor_id()), "spawned")
        self._members.add(member)
        self._next = max(self._next, number_of(worker_id) + 1)
        return member

    def arrived(self, facts: WorkerFacts) -> None:
        """A worker holds on to the router: a new one, one whose actor was restarted, or, where the router
        itself was restarted, one that has been serving all the time."""
        member = self._members.by_id.get(facts.worker_id)
        if member is None:
            member = self._know(facts.worker_id)
        elif member.actor is None:  # it was quicker than Ray's answer to its creation
            member.actor = ray_port.find_worker(facts.worker_id)
        member.overdue, member.error = False, None
        member.here.set()
        if self._members.said(member, facts):
            self.share_memory()
        self._watch(member)
        if facts.state == "ready":
            self._joined(member, facts)
            member.actor.set_queue_limit.remote(self._config.queue_share(self.size))
        elif facts.state == "quarantined":
            self._members.set_state(member, "quarantined")
        elif facts.state in ("draining", "dead"):  # the router before this one was letting it go
            self._leaving = ray_port.unowned_task(self._let_go(member))
        elif facts.worker_id not in self._starting:
            self._starting[facts.worker_id] = ray_port.unowned_task(self._start(member, facts.node_id))

    def _watch(self, member: Member) -> None:
        if member.watch is not None:
            member.watch.cancel()
        member.watch = ray_port.unowned_task(self._until_it_dies(member, member.incarnation))

    async def _until_it_dies(self, member: Member, incarnation: int) -> None:
        try:
            await member.actor.belong.remote()
        except ray_port.ActorUnavailable:
            for_good = False  # Ray restarts it
        except ray_port.RayError as error:
            for_good = True
            why = control.creation_cause(str(error))
            member.error = WorkerStartError(f"the actor of worker {member.worker_id} could not start: {why}")
        if self.closed or member.incarnation != incarnation or member.state == "leaving":
            return
        if not member.here.is_set():
            await self._never_came(member, for_good)
            return
        log.warning("the actor of worker %s died", member.worker_id)
        about = {"pool": self._config.name, "worker_id": member.worker_id, "reason": Why.ACTOR_LOST.value}
        telemetry.emit("worker.lost", {}, about)
        self._out(member, "lost")
        if for_good and member.worker_id in self._members.by_id:
            self._members.remove(member)
            self.spawn(1)
            self.share_memory()

    def _could_not_create(self, member: Member) -> None:
        member.watch = ray_port.unowned_task(self._never_came(member, True))

    async def _never_came(self, member: Member, for_good: bool) -> None:
        """Its actor could not be created, as where its node lacks a package; Ray tries again what only
        died."""
        if not for_good:
            await asyncio.sleep(AGAIN_SECONDS)
            self._watch(member)
        elif self._members.by_id.get(member.worker_id) is member:
            log.warning("the actor of worker %s could not be created: %s", member.worker_id, member.error)
            self._members.set_state(member, "failed")
            self._updates.table_changed()
            await asyncio.sleep(RETRY_START_SECONDS[-1])
            if not self.closed and self._members.by_id.get(member.worker_id) is member:
                self._members.remove(member)
                self.spawn(1)

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
                self._updates.table_changed()
            await asyncio.sleep(RETRY_START_SECONDS[min(attempt, len(RETRY_START_SECONDS) - 1)])
            attempt += 1
        self._starting.pop(member.worker_id, None)

    def _joined(self, member: Member, facts: WorkerFacts) -> None:
        self._members.said(member, facts)
        member.error = None
        self._members.set_state(member, "ready")
        self._matcher.join(member.worker_id)
        self._updates.table_changed()

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
        self._updates.table_changed()

    # ---- going --------------------------------------------------------------------------------------------

    async def resize(self, size: int) -> None:
        """Grows or shrinks; returns when leavers are gone (joiners report for duty later)."""
        self._members.size = size
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
        if not member.here.is_set():
            await self._end(member)
            self._members.remove(member)
            return
        self._members.set_state(member, "leaving")
        self._matcher.leave(member.worker_id)
        version = self._members.version
        self._updates.table_changed()
        deadline = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < deadline and not self._updates.everyone_knows(version):
            await self._updates.anything(0.1)
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
        if member.actor is None:
            return
        bound = self._config.shutdown_grace * 3 + 2 if member.here.is_set() else UNBORN_SECONDS
        try:
            await within(bound, member.actor.stop.remote())
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
        """Ends every worker. Safe to repeat: who asks again waits for the same end."""
        if self._dismissing is None:
            self.closed = True
            self._dismissing = ray_port.unowned_task(self._dismiss())
        await asyncio.shield(self._dismissing)

    async def _dismiss(self) -> None:
        await self._hiring.close()
        members = list(self._members.by_id.values())
        self._members.by_id.clear()
        await asyncio.gather(*(self._end(member) for member in members))


def _leaves_last(member: Member) -> tuple[bool, Any]:
    """Those that serve stay, the oldest first."""
    return member.state != "ready", number_of(member.worker_id)
