"""Knows the world around one worker: the other workers that it hands requests to, and what it told its
interpreter in an earlier life.

Rules: a request is delegated at most once; a delegated request that was refused keeps its place where it was;
whatever is about to run is written into the journal first, here and where it is sent on, so that no restart
of this actor runs it a second time."""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.actors import ray_port
from snakepit_ray.actors.membership import Membership
from snakepit_ray.actors.messages import Claimed, Refused
from snakepit_ray.core.lifecycle import WorkerState
from snakepit_ray.errors import SessionWorkerLost, WorkerCrashed
from snakepit_ray.process.journal import Journal
from snakepit_ray.supervisor import Relayed, Supervisor, Surroundings


class Neighbours(Surroundings):
    """The surroundings of one worker actor. `supervisor` and `membership` are set when they are made."""

    supervisor: Supervisor
    membership: Membership

    def __init__(self, journal: Journal, incarnation: int) -> None:
        self.peers: dict[str, Any] = {}
        self.incarnation = incarnation
        self._journal = journal
        self._begun_last = ""

    # ---- what has begun -----------------------------------------------------------------------------------

    def begins(self, request: pb.Request) -> None:
        self._record(request.id if request.options.hops else _whole(request))

    def _record(self, request_id: str) -> None:
        if request_id != self._begun_last:
            self._journal.record(request_id)
            self._begun_last = request_id

    def begun_before(self, request: pb.Request) -> bool:
        if self._journal.found:
            return self._journal.started_before(request.id if request.options.hops else _whole(request))
        # Without the journal of the life before (another node): whatever was sent to it may have begun there.
        return 0 < request.options.incarnation < self.incarnation

    # ---- what the worker asks of the pool -----------------------------------------------------------------

    async def may_recycle(self) -> bool:
        return await self.membership.may_recycle()

    def recycling_over(self) -> None:
        self.membership.recycling_over()

    def state_changed(self, state: WorkerState) -> None:
        self.membership.state_changed(state)

    # ---- handing on ---------------------------------------------------------------------------------------

    async def elsewhere(self, request: pb.Request) -> Relayed | None:
        """Sends a session's request to its owner, and one that comes to a worker that takes none to a worker
        that does; None when it runs here."""
        strict = bool(request.options.affinity)
        if request.session:
            claimed = await self.membership.claim(request.session, strict, request.options.rebind)
            if claimed is not None:
                return await self._to_owner(request, claimed, strict)
        away = self.supervisor.state in (WorkerState.DRAINING, WorkerState.QUARANTINED)
        if away and not (request.session and strict):
            return await self.overflow(request)
        return None

    async def _to_owner(self, request: pb.Request, claimed: Claimed, strict: bool) -> Relayed | None:
        if claimed.actor is None:
            epoch = self.supervisor.epoch
            gone = f"worker {claimed.owner} is gone"
            raise SessionWorkerLost.of(request.session, gone, None, (epoch.incarnation, epoch.number))
        self.peers[claimed.owner] = claimed.actor
        # A hint that finds its worker busy is refused there and runs here.
        return await self.delegate(claimed.owner, _one_hop_more(request, may_wait=strict), chained=True)

    async def overflow(self, request: pb.Request) -> Relayed | None:
        order = await self.membership.room()
        if order is None:
            return None
        self.peers[order.target] = order.actor
        return await self.delegate(order.target, _one_hop_more(request, may_wait=True), chained=True)

    async def delegate(self, target: str, request: pb.Request, chained: bool) -> Relayed | None:
        """Has another worker run `request`; None when that has no free slot (it did not start there), or died
        with it and the request may run twice. Raises WorkerCrashed when it died and may not."""
        actor = self.peers.get(target)
        if actor is None:
            return None
        request.options.chained = chained
        request.options.more = bool(self.supervisor.admission.queue.movable)
        request.options.incarnation = 0  # of another worker than the one it was sent to
        self._record(_whole(request))
        # Sent again by Ray it would be counted twice there: what becomes of it is decided here.
        ref = actor.execute.options(max_task_retries=0).remote(request.SerializeToString())
        try:
            value = await ref
        except asyncio.CancelledError:
            ray.cancel(ref)
            raise
        except (ray_port.ActorDied, ray_port.ActorUnavailable) as error:
            self._died(target, request, error)
            return None
        if isinstance(value, Refused):
            if not chained:
                self.membership.refused(target)
            return None
        return Relayed(value.value, value.free)

    def _died(self, target: str, request: pb.Request, error: Exception) -> None:
        self.peers.pop(target, None)
        if self.supervisor.is_idempotent(request):
            return
        raise WorkerCrashed(
            f"worker {target} died while it had a request that was moved to it ({type(error).__name__}), "
            "which may or may not have run; retry it if it is idempotent",
            worker_id=target,
            may_have_started=True,
        ) from error


def _whole(request: pb.Request) -> str:
    """What a request is remembered by where it first arrived: a batch that Ray sends again is divided
    anew, so that it must be the whole."""
    return request.id.partition("/")[0]


def _one_hop_more(request: pb.Request, *, may_wait: bool) -> pb.Request:
    sent = pb.Request()
    sent.CopyFrom(request)
    sent.options.hops += 1
    sent.options.may_wait = may_wait
    return sent
