"""Performs what the roster orders: worker actors are created, watched, started, let go and ended. The roster
hears what came of it.

Rules:
- core/pool/roster.py decides. Nothing here knows a state.
- What is begun here outlives the request that caused it (`ray_port.unowned_task`).
- A leaver first leaves the table, then waits until the handles know, then hands its waiters on and finishes
  what it runs.
- A worker whose actor has not reported yet may be waiting for room: it is ended and not asked.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any

from snakepit_ray import telemetry
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.orders import Do, Order, RosterLimits
from snakepit_ray.core.pool.roster import Roster
from snakepit_ray.core.pool.row import RowEvent
from snakepit_ray.core.routing.matching import Matcher
from snakepit_ray.core.worker.lifecycle import WorkerState
from snakepit_ray.errors import WorkerStartError
from snakepit_ray.port import cluster, control, ray_port
from snakepit_ray.port.messages import PoolMemory, WorkerFacts
from snakepit_ray.process.awaiting import within
from snakepit_ray.router.members import Member, Members
from snakepit_ray.router.updates import Updates
from snakepit_ray.telemetry import Why
from snakepit_ray.worker import spawn

ARRIVAL_SECONDS = 60.0  # for Ray to place and start an actor; startup_timeout where that is longer
LEAVE_SECONDS = 30.0
SETTLE_SECONDS = 0.5  # for calls that were under way when the last handle learnt that a worker leaves
UNBORN_SECONDS = 1.0  # for an actor that has not reported yet: it waits for room, or has just come
Tasks = dict[str, asyncio.Task[None]]
log = logging.getLogger("snakepit_ray.router")

# What a worker's report means for the roster. Draining or dead: the router before this one was letting it go.
HEARD = {
    WorkerState.STARTING: RowEvent.CAME,
    WorkerState.READY: RowEvent.SERVES,
    WorkerState.QUARANTINED: RowEvent.TROUBLED,
    WorkerState.DRAINING: RowEvent.LEAVE,
    WorkerState.DEAD: RowEvent.LEAVE,
}


def make_roster(config: PoolConfig, version: int) -> Roster:
    """The roster of a pool that begins."""
    limits = RosterLimits(
        pool=config.name,
        asked=str(cluster.demand(config)),
        batch=config.startup_batch_size,
        delay=config.startup_batch_delay,
        arrival=ARRIVAL_SECONDS,
        startup=config.startup_timeout,
    )
    return Roster(limits, config.size or 0, version)


class Reconciler:
    """The worker actors of one pool."""

    def __init__(
        self,
        config: PoolConfig,
        members: Members,
        matcher: Matcher[str],
        updates: Updates,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._members = members
        self._roster = members.roster
        self._matcher = matcher
        self._updates = updates
        self._clock = clock
        self._order = 0  # of what the workers were told to remember
        self._timer: asyncio.TimerHandle | None = None
        self._unborn: dict[str, Member] = {}  # whose actor is being created
        self._spawning: Tasks = {}
        self._starting: Tasks = {}
        self._leaving: Tasks = {}
        self._ending: Tasks = {}
        self._performers: dict[Do, Callable[[str], None]] = {
            Do.SURVEY: self._survey,
            Do.ENTER: self._enter,
            Do.SPAWN: self._spawn,
            Do.WATCH: self._watch,
            Do.START: self._start,
            Do.SERVE: self._matcher.join,
            Do.UNSERVE: self._matcher.gone,
            Do.LOST: self._say_lost,
            Do.SHARE: self._share,
            Do.GIVE_UP: self._say_overdue,
            Do.LEAVE: self._leave,
            Do.END: self._end,
            Do.FORGET: self._forget,
            Do.REMEMBER: self._remember,
            Do.PUBLISH: self._publish,
        }

    # ---- what the router hears ----------------------------------------------------------------------------

    def begin(self) -> None:
        """All workers that there are have reported, or had the time: the others are created."""
        self._do(self._roster.whole(self._clock()))

    async def resize(self, size: int) -> None:
        """Grows or shrinks; returns when leavers are gone (joiners report for duty later)."""
        self._do(self._roster.resize(size, self._clock()))
        if going := [*self._leaving.values(), *self._ending.values()]:
            await asyncio.wait(going)

    async def dismiss(self) -> None:
        """Ends every worker. Safe to repeat: who asks again waits for the same end."""
        self._do(self._roster.close(self._clock()))
        while under_way := [*self._spawning.values(), *self._leaving.values(), *self._ending.values()]:
            await asyncio.wait(under_way)

    def find_unborn(self) -> None:
        """Takes back into the table what the router before this one had created and what has not reported:
        such an actor waits for room."""
        for name in ray_port.workers_named():
            if name.router_id == ray_port.actor_id():
                self._do(self._roster.found(name.worker_id, self._clock()))

    def arrived(self, facts: WorkerFacts) -> None:
        """A worker holds on to the router: a new one, one whose actor was restarted, or, where the router
        itself was restarted, one that has been serving all the time."""
        event, incarnation = HEARD[WorkerState(facts.state)], facts.epoch[0]
        self._do(self._roster.came(facts.worker_id, incarnation, facts.node_id, event, self._clock()))
        self._hear(facts)

    def state_changed(self, worker_id: str, state: str, facts: WorkerFacts) -> None:
        """A worker was quarantined, or serves again after it."""
        hear = self._roster.troubled if state == WorkerState.QUARANTINED else self._roster.recovered
        self._do(hear(worker_id, facts.epoch[0], self._clock()))
        self._hear(facts)

    def _hear(self, facts: WorkerFacts) -> None:
        member = self._members.by_id.get(facts.worker_id)
        if member is not None and self._members.heard(member, facts):
            self._remember()

    # ---- what a restart would forget ----------------------------------------------------------------------

    def adopt(self, memory: PoolMemory) -> None:
        """What the router before this one had told its workers, if it is newer than what is known."""
        if memory.order > self._order:
            self._order = memory.order
            self._roster.adopt(memory.size, memory.next_number)
            self._members.left = dict(memory.left)

    def remind(self, worker_id: str, memory: PoolMemory) -> None:
        """A worker that has reported gets what only the router knows, where its copy is older: the others may
        die together with the router."""
        member = self._members.by_id.get(worker_id)
        if member is not None and member.actor is not None and memory.order < self._order:
            member.actor.remember.remote(self._memory())

    def _remember(self, _: str = "") -> None:
        """Gives every worker a copy of what only the router knows."""
        self._order = max(self._order + 1, time.time_ns() // 1_000_000)
        memory = self._memory()
        for member in self._members.alive():
            member.actor.remember.remote(memory)

    def _memory(self) -> PoolMemory:
        roster = self._roster
        return PoolMemory(self._order, roster.size, roster.next_number, dict(self._members.left))

    # ---- orders -------------------------------------------------------------------------------------------

    def _do(self, orders: list[Order]) -> None:
        for do, worker_id in orders:
            self._performers[do](worker_id)
        if self._timer is not None:
            self._timer.cancel()
        due = self._roster.next_at()
        if due != math.inf and not self._roster.is_closed:
            delay = max(0.0, due - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._do(self._roster.tick(self._clock()))

    def _survey(self, _: str) -> None:
        there = cluster.nodes()
        room = cluster.room(self._config, there)
        no_room = None if room == math.inf else cluster.no_room(self._config, there)
        self._do(self._roster.surveyed(len(there), room, no_room, self._clock()))

    def _enter(self, worker_id: str) -> None:
        self._members.add(self._roster.rows[worker_id])

    def _forget(self, worker_id: str) -> None:
        self._matcher.gone(worker_id)
        self._members.remove(self._members.by_id[worker_id])

    def _share(self, worker_id: str) -> None:
        share = self._config.queue_share(self._roster.size)
        self._members.by_id[worker_id].actor.set_queue_limit.remote(share)

    def _publish(self, _: str) -> None:
        self._updates.table_changed()

    def _say_overdue(self, worker_id: str) -> None:
        log.warning("worker %s has not come: %s", worker_id, self._roster.rows[worker_id].error)

    def _say_lost(self, worker_id: str) -> None:
        log.warning("the actor of worker %s died", worker_id)
        about = {"pool": self._config.name, "worker_id": worker_id, "reason": Why.ACTOR_LOST.value}
        telemetry.emit("worker.lost", {}, about)

    # ---- orders that take a while -------------------------------------------------------------------------

    def _spawn(self, worker_id: str) -> None:
        member = self._unborn[worker_id] = self._members.by_id[worker_id]
        self._begin(self._spawning, worker_id, self._create(member))

    async def _create(self, member: Member) -> None:
        """In a thread: Ray's answer takes long while a machine is busy with starts."""
        worker_id = member.worker_id
        try:
            member.actor = await asyncio.to_thread(spawn.spawn_worker, self._config, worker_id)
        except Exception as error:  # noqa: BLE001 - kept: `start_error` shows it
            log.warning("the actor of worker %s could not be created: %s", worker_id, error)
            self._do(self._roster.refused(worker_id, error, self._clock()))
        else:
            self._do(self._roster.created(worker_id, self._clock()))
        del self._unborn[worker_id]

    def _watch(self, worker_id: str) -> None:
        member = self._members.by_id[worker_id]
        if member.actor is None:  # quicker than Ray's answer to its creation, or created by another router
            member.actor = ray_port.find_worker(worker_id, ray_port.actor_id())
        if member.watch is not None:
            member.watch.cancel()
        member.watch = ray_port.unowned_task(self._until_it_dies(member, member.row.incarnation))

    async def _until_it_dies(self, member: Member, incarnation: int) -> None:
        roster, worker_id = self._roster, member.worker_id
        try:
            await member.actor.belong.remote()
        except ray_port.ActorUnavailable:
            self._do(roster.died(worker_id, incarnation, self._clock()))
        except ray_port.RayError as error:
            why = f"the actor of worker {worker_id} could not start: {control.creation_cause(str(error))}"
            self._do(roster.gone(worker_id, incarnation, WorkerStartError(why), self._clock()))

    def _start(self, worker_id: str) -> None:
        self._begin(self._starting, worker_id, self._start_interpreter(self._members.by_id[worker_id]))

    async def _start_interpreter(self, member: Member) -> None:
        roster, worker_id = self._roster, member.worker_id
        try:
            facts = await member.actor.start.remote(self._config.queue_share(roster.size))
        except ray_port.ActorUnavailable:
            self._do(roster.interrupted(worker_id, self._clock()))
        except Exception as error:  # noqa: BLE001 - kept: `start_error` shows it
            self._do(roster.could_not_start(worker_id, error, self._clock()))
        else:
            self._do(roster.started(worker_id, facts.epoch[0], self._clock()))
            self._hear(facts)

    def _leave(self, worker_id: str) -> None:
        self._matcher.leave(worker_id)
        self._begin(self._leaving, worker_id, self._let_go(self._members.by_id[worker_id]))

    async def _let_go(self, member: Member) -> None:
        deadline = self._clock() + LEAVE_SECONDS
        await self._updates.known_to_all(self._roster.version, LEAVE_SECONDS)
        await asyncio.sleep(SETTLE_SECONDS)
        try:
            await member.actor.drain.remote(max(0.0, deadline - self._clock()))
            self._members.heard(member, await member.actor.get_facts.remote())
            # Its sessions stay bound: hints move on at their next claim, strict ones learn that it is gone.
        except ray_port.RayError as error:
            log.warning("worker %s went before it was let go: %s", member.worker_id, error)
        await self._stop(member)
        self._do(self._roster.left(member.worker_id, self._clock()))

    def _end(self, worker_id: str) -> None:
        member = self._members.by_id.get(worker_id) or self._unborn[worker_id]
        if member.actor is not None and worker_id not in self._ending:
            self._begin(self._ending, worker_id, self._stop(member))

    async def _stop(self, member: Member) -> None:
        bound = self._config.shutdown_grace * 3 + 2 if member.row.is_here else UNBORN_SECONDS
        try:
            await within(bound, member.actor.stop.remote())
        except (ray_port.RayError, asyncio.TimeoutError) as error:
            log.warning("worker %s did not stop politely: %s", member.worker_id, error)
        ray_port.end(member.actor)

    def _begin(self, tasks: Tasks, worker_id: str, work: Coroutine[Any, Any, None]) -> None:
        task = tasks[worker_id] = ray_port.unowned_task(work)
        task.add_done_callback(lambda done: tasks.get(worker_id) is done and tasks.pop(worker_id))
