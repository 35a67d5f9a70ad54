"""A worker's side of its talk with the router: belonging, reporting, obeying moves.

Rules:
- A worker belongs as long as the router lives. It holds on again while the router restarts, and ends itself,
  interpreter first, when that is gone for good.
- Reports are as few as core/routing/reporting.py allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableSequence
from typing import Any

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.circuit import Admit
from snakepit_ray.core.routing.reporting import Decision, Report, Reporter
from snakepit_ray.core.tools.table import WholeTable
from snakepit_ray.core.worker.lifecycle import WorkerState
from snakepit_ray.errors import PoolNotFound
from snakepit_ray.port import leftovers, ray_port
from snakepit_ray.port.messages import (
    Claimed,
    Hello,
    MoveOrder,
    PoolMemory,
    ReportAnswer,
    Room,
    WorkerFacts,
)
from snakepit_ray.process.session_log import SessionLog
from snakepit_ray.supervisor import PoolSide, Supervisor
from snakepit_ray.worker import pool_notes
from snakepit_ray.worker.peer_links import Peer
from snakepit_ray.worker.sessions import OwnSessions

HOLD_AGAIN_SECONDS = 0.2
HAND_OVER_SECONDS = 0.05  # until the router is asked again for room elsewhere: no event tells of it


class PoolLink(PoolSide):
    """One worker's membership in its pool. `known` learns the workers that the router names; `log` has the
    sessions of an earlier process of this worker, `notes` what the router had told it. `tools`: the tools
    that this worker knows. `moved_here`: see OwnSessions."""

    def __init__(
        self,
        supervisor: Supervisor,
        config: PoolConfig,
        worker_id: str,
        router_id: str,
        facts: Callable[[], WorkerFacts],
        known: dict[str, Peer],
        gone: Callable[[], Awaitable[None]],
        log: SessionLog,
        notes: MutableSequence[int] | memoryview,
        tools: Callable[[], WholeTable],
        moved_here: Callable[[str, int], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.reports = 0
        self.pool_load = (0, 1)  # workers with a free slot and with work, as the router said last
        self._notes = notes
        self._tools = tools
        self.memory = pool_notes.load(notes)
        self.generation = 0  # of the router that answered last
        self.sessions = OwnSessions(supervisor, config, worker_id, log, self._claim, moved_here)
        self._supervisor = supervisor
        self._config = config
        self._worker_id = worker_id
        self._router_id = router_id
        self._facts = facts
        self._known = known
        self._gone = gone
        self._router: Any = None
        self._stopped = False
        self._handing_over: asyncio.Task[None] | None = None
        self._away = False  # the router was told that this worker is quarantined
        self._refusers: list[str] = []
        self._reporter = Reporter(self._clock())
        self._wake: asyncio.TimerHandle | None = None
        self._wake_at = 0.0
        self._sending: asyncio.Task[None] | None = None

    # ---- belonging ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Holds on to the router until that is gone for good, then ends this worker."""
        while not self._stopped:
            try:
                self._router = self._find_router()
                self._reporter = Reporter(self._clock())  # a router that restarted counts from 0
                hello = Hello(self._facts(), self.memory, self.sessions.owned(), self._tools())
                await self._router.hold.remote(hello)
            except ray_port.ActorUnavailable:
                await asyncio.sleep(HOLD_AGAIN_SECONDS)
            except (ray_port.RayError, PoolNotFound):
                break
        if not self._stopped:
            self._stopped = True
            await self._gone()
            with contextlib.suppress(ray_port.RayError):  # the next who meets their names ends them
                await asyncio.to_thread(leftovers.reap, router_id=self._router_id)
            ray_port.end(ray_port.find_worker(self._worker_id, self._router_id))

    def _find_router(self) -> Any:
        """Not whichever router has the pool's name now: a worker belongs to one router for good."""
        return ray_port.find_own_router(self._config.name, self._router_id)

    def stop(self) -> None:
        """The router ends this worker on purpose."""
        self._stopped = True

    def remember(self, memory: PoolMemory) -> None:
        """Keeps what the router would forget; it comes back with the next `hold`."""
        if memory.order > self.memory.order:
            self.memory = memory
            pool_notes.store(self._notes, memory)

    def state_changed(self, state: WorkerState) -> None:
        """The router must know who can serve: a loss that is replaced at once is not its business."""
        away = state is WorkerState.QUARANTINED
        if away or (self._away and state is WorkerState.READY):
            self._away = away
            self._tell("state_changed", self._worker_id, state.value, self._facts())
        if away:
            self._handing_over = ray_port.unowned_task(self._hand_over_all())

    def session_moved(self, session: str, epoch_number: int) -> None:
        """The session's state was taken into the interpreter of that epoch."""
        self.sessions.moved(session, epoch_number)

    def end_tools_of(self, sessions: list[str]) -> None:
        """The store has ended these sessions, which have tools."""
        self._tell("end_tools_of", sessions)

    async def _hand_over_all(self) -> None:
        """Nothing will run here for a while: whoever may move does, as fast as there is room."""
        while self._away and not self._stopped:
            changes = self._supervisor.next_change()
            await self.hand_over()
            if self._supervisor.movable:
                await asyncio.sleep(HAND_OVER_SECONDS)
            else:  # what comes next is a change, and so is the next interpreter
                await changes.wait()

    async def may_recycle(self) -> bool:
        """Whether this worker may be one of those that recycle now; without a router, later."""
        try:
            return bool(await ray_port.unowned(self._router.may_recycle, self._worker_id))
        except ray_port.RayError:
            return False

    def recycling_over(self) -> None:
        """Another one may recycle."""
        self._tell("recycling_over", self._worker_id)

    def circuit_failed(self, probe: bool) -> None:
        """A request failed by the pool's own fault."""
        self._tell("circuit_failed", probe)

    def circuit_succeeded(self) -> None:
        """The request that tried an open circuit went well."""
        self._tell("circuit_succeeded")

    async def circuit_admit(self) -> Admit:
        """Whether a request may try an open circuit; without a router, it may."""
        try:
            admit: Admit = await ray_port.owned(self._router.circuit_admit.remote())
        except ray_port.RayError:
            return Admit(True)
        return admit

    def _tell(self, method: str, *args: Any) -> None:
        """Says something that the router learns in another way if it is lost: nobody waits for the answer."""
        if self._router is not None and not self._stopped:
            ray_port.unowned(getattr(self._router, method), *args)

    async def _claim(self, session: str, strict: bool, rebind: bool, life: int) -> Claimed | None:
        router = self._router or self._find_router()
        # Who may go on without a router is not asked to wait for one; a strict session has one home.
        claim = router.claim.options(max_task_retries=-1) if strict else router.claim
        # Other requests of the session wait for the same answer.
        claimed: Claimed | None = await ray_port.unowned(
            claim, session, self._worker_id, strict, rebind, life
        )
        return claimed

    # ---- reporting ----------------------------------------------------------------------------------------

    def queue_progressed(self) -> None:
        """The others that wait come nearer without anybody's help."""
        self._reporter.progressed(self._clock())

    def queue_changed(self) -> None:
        """Reports to the router what it must know."""
        self._act(self._reporter.observe(*self._supervisor.load(), self._clock()))

    def _act(self, decision: Decision) -> None:
        if decision.report is not None and self._router is not None and not self._stopped:
            self._sending = ray_port.unowned_task(self._report(decision.report))
        elif decision.wake_at is not None and (self._wake is None or decision.wake_at < self._wake_at):
            if self._wake is not None:
                self._wake.cancel()
            self._wake_at = decision.wake_at
            delay = max(0.0, decision.wake_at - self._clock())
            self._wake = asyncio.get_running_loop().call_later(delay, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self._act(self._reporter.tick(self._clock()))

    async def _report(self, report: Report) -> None:
        self.reports += 1
        pace = None
        try:
            refusers, self._refusers = self._refusers, []
            answer: ReportAnswer = await self._router.report.remote(self._worker_id, report, refusers)
            pace, self.generation = answer.pace, answer.generation
            for order in answer.moves:
                self.obey(order)
        except ray_port.RayError:
            pass  # the router restarts or is gone: `run` sees to it, the reporter tries again
        self._act(self._reporter.answered(pace, self._clock()))

    def obey(self, order: MoveOrder) -> int:
        """Sends waiting requests to another worker; how many went."""
        self._known[order.target] = Peer(order.actor, order.lane)
        taken = self._supervisor.move(order.requests, order.target)
        self._reporter.moved(order.requests, taken)
        if taken < order.requests:
            missing = order.requests - taken
            ray_port.unowned(self._router.unused, self._worker_id, order.target, missing)
        return taken

    def delegate_arrived(self, accepted: bool, chained: bool) -> None:
        """Another worker sent a request here."""
        self._reporter.delegate_arrived(accepted, chained=chained)

    def delegate_ended(self, more: bool) -> None:
        """It ended; `more`: its source may send the next at once."""
        self._reporter.delegate_ended(more, self._clock())

    def refused(self, target: str) -> None:
        """A worker that the router named had no free slot: it is told with the next report."""
        self._refusers.append(target)

    async def room(self) -> MoveOrder | None:
        """A worker with room for one more, None when there is none or the router does not answer."""
        try:
            room: Room = await ray_port.owned(self._router.room.remote(self._worker_id))
        except ray_port.RayError:
            return None
        self.pool_load = room.available, room.busy
        return room.order

    async def hand_over(self) -> None:
        """A leaver's waiters go to other workers."""
        waiting = self._supervisor.movable
        order = await self.room() if waiting else None
        if order is not None:
            self.obey(order._replace(requests=max(1, waiting // 2)))
