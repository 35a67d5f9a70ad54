"""Knows a worker's side of its talk with the router: belonging, reporting, claiming sessions, obeying moves.

Rules: a worker belongs as long as the router lives: it holds again while the router restarts and ends itself,
interpreter first, when that is gone for good; reports are as few as core/reporting.py allows; a session that
this worker knows to be its own costs no message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from snakepit_ray.actors import ray_port
from snakepit_ray.actors.messages import Claimed, MoveOrder, ReportAnswer, WorkerFacts
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.reporting import Decision, Report, Reporter
from snakepit_ray.errors import PoolNotFound, SessionQuotaExceeded, SessionWorkerLost
from snakepit_ray.supervisor import Supervisor, WorkerState

HOLD_AGAIN_SECONDS = 0.2
CLAIM_AGAIN = 0.5  # of session_ttl: a session is claimed anew long before the router may have let it expire


class Ownership(NamedTuple):
    """A session of this worker: when the router last confirmed it, and which interpreter has its state (None:
    none)."""

    claimed_at: float
    epoch: tuple[int, int] | None


class Membership:
    """One worker's membership in its pool. `peers` learns the actors that the router names."""

    def __init__(
        self,
        supervisor: Supervisor,
        config: PoolConfig,
        worker_id: str,
        facts: Callable[[], WorkerFacts],
        peers: dict[str, Any],
    ) -> None:
        self.reports = 0
        self._supervisor = supervisor
        self._config = config
        self._worker_id = worker_id
        self._facts = facts
        self._peers = peers
        self._router: Any = None
        self._stopped = False
        self._refusers: list[str] = []
        self._reporter = Reporter(time.monotonic())
        self._wake: asyncio.TimerHandle | None = None
        self._wake_at = 0.0
        self._sending: asyncio.Task[None] | None = None
        self._mine: dict[str, Ownership] = {}
        self._claims: dict[str, asyncio.Future[Claimed]] = {}
        supervisor.admission.changed = self._changed
        supervisor.admission.progressed = lambda: self._reporter.progressed(time.monotonic())

    # ---- belonging ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Holds on to the router until that is gone for good, then ends this worker."""
        while not self._stopped:
            try:
                self._router = ray_port.find_router(self._config.name)
                self._reporter = Reporter(time.monotonic())  # a router that restarted counts from 0
                await self._router.hold.remote(self._facts())
            except ray_port.ActorUnavailable:
                await asyncio.sleep(HOLD_AGAIN_SECONDS)
            except (ray_port.RayError, PoolNotFound):
                break
        if not self._stopped:
            self._stopped = True
            await self._supervisor.stop()
            ray_port.end(ray_port.find_worker(self._worker_id))

    def stop(self) -> None:
        """The router ends this worker on purpose."""
        self._stopped = True

    # ---- reporting ----------------------------------------------------------------------------------------

    def _changed(self) -> None:
        admission = self._supervisor.admission
        queue = admission.queue
        self._act(
            self._reporter.observe(
                admission.free if self._supervisor.state is WorkerState.READY else 0,
                queue.movable,
                queue.oldest_movable_at(),
                admission.slots.running + len(queue),
                time.monotonic(),
            )
        )

    def _act(self, decision: Decision) -> None:
        if decision.report is not None and self._router is not None and not self._stopped:
            self._sending = asyncio.ensure_future(self._report(decision.report))
        elif decision.wake_at is not None and (self._wake is None or decision.wake_at < self._wake_at):
            if self._wake is not None:
                self._wake.cancel()
            self._wake_at = decision.wake_at
            delay = max(0.0, decision.wake_at - time.monotonic())
            self._wake = asyncio.get_running_loop().call_later(delay, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self._act(self._reporter.tick(time.monotonic()))

    async def _report(self, report: Report) -> None:
        self.reports += 1
        pace = None
        try:
            refusers, self._refusers = self._refusers, []
            answer: ReportAnswer = await self._router.report.remote(self._worker_id, report, refusers)
            pace = answer.pace
            for order in answer.moves:
                self.obey(order)
        except ray_port.RayError:
            pass  # the router restarts or is gone: `run` sees to it, the reporter tries again
        self._act(self._reporter.answered(pace, time.monotonic()))

    def obey(self, order: MoveOrder) -> int:
        """Sends waiting requests to another worker; how many went."""
        self._peers[order.target] = order.actor
        taken = self._supervisor.admission.move(order.requests, order.target)
        self._reporter.moved(order.requests, taken)
        if taken < order.requests:
            self._router.unused.remote(self._worker_id, order.target, order.requests - taken)
        return taken

    def delegate_arrived(self, accepted: bool, chained: bool) -> None:
        """Another worker sent a request here."""
        self._reporter.delegate_arrived(accepted, chained=chained)

    def delegate_ended(self, more: bool) -> None:
        """It ended; `more`: its source may send the next at once."""
        self._reporter.delegate_ended(more, time.monotonic())

    def refused(self, target: str) -> None:
        """A worker that the router named had no free slot: it is told with the next report."""
        self._refusers.append(target)

    async def room(self) -> MoveOrder | None:
        """A worker with room for one more, None when there is none or the router does not answer."""
        try:
            order: MoveOrder | None = await self._router.room.remote(self._worker_id)
        except ray_port.RayError:
            return None
        return order

    async def hand_over(self) -> None:
        """A leaver's waiters go to other workers."""
        waiting = self._supervisor.admission.queue.movable
        order = await self.room() if waiting else None
        if order is not None:
            self.obey(order._replace(requests=max(1, waiting // 2)))

    # ---- sessions -----------------------------------------------------------------------------------------

    async def claim(self, session: str, strict: bool, rebind: bool) -> Claimed | None:
        """None: the session is this worker's. Otherwise who owns it.

        Raises SessionQuotaExceeded, and for strict sessions SessionWorkerLost when the interpreter that held
        the state is not the one that serves now."""
        now = time.monotonic()
        mine = self._mine.get(session)
        if mine is None or now - mine.claimed_at > self._config.session_ttl * CLAIM_AGAIN:
            claimed = await self._claim_once(session, strict, rebind)
            if claimed.owner != self._worker_id:
                self._mine.pop(session, None)
                return claimed
            self._mine[session] = Ownership(now, mine.epoch if mine else None)
        return None

    def enter(self, session: str, rebind: bool) -> None:
        """A strict session's request is about to run: raises SessionWorkerLost when the interpreter that
        holds the session's state is not the one that serves now, unless the caller accepts that with
        `rebind`."""
        epoch = self._epoch()
        mine = self._mine.get(session) or Ownership(time.monotonic(), None)
        if mine.epoch not in (None, epoch) and not rebind:
            raise SessionWorkerLost.of(session, "crashed", mine.epoch, epoch)
        self._mine[session] = mine._replace(epoch=epoch)

    async def _claim_once(self, session: str, strict: bool, rebind: bool) -> Claimed:
        """One claim at the router for all requests of a session that arrive together."""
        pending = self._claims.get(session)
        if pending is None:
            pending = self._claims[session] = asyncio.ensure_future(self._ask(session, strict, rebind))
            pending.add_done_callback(lambda _: self._claims.pop(session, None))
        return await asyncio.shield(pending)

    async def _ask(self, session: str, strict: bool, rebind: bool) -> Claimed:
        try:
            claimed: Claimed | None = await self._router.claim.remote(
                session, self._worker_id, strict, rebind
            )
        except ray_port.RayError:
            # Without a router nobody can move the session either: it lives where its caller sent it.
            return Claimed(self._worker_id, None, 0)
        if claimed is None:
            limit = self._config.max_sessions
            raise SessionQuotaExceeded.of("max_sessions", limit, limit)
        return claimed

    def _epoch(self) -> tuple[int, int]:
        epoch = self._supervisor.epoch
        return epoch.incarnation, epoch.number
