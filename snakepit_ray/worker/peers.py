"""The other workers, as one worker sees them: what it hands on to them, and what it asks them for.

Rules:

- A request is delegated at most once. It goes by the lane of a worker of this node, else by Ray.
- A delegated request that was refused keeps its place where it was.
- What a request had come to before a restart, here or at the worker that it was moved to, is asked for and
  not run again. Where that means to wait for a restart, an idempotent request runs again instead."""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from snakepit_ray.core.pool.worker_ids import WorkerId
from snakepit_ray.errors import NotNow, SessionWorkerLost, WorkerCrashed
from snakepit_ray.ledger import HERE, Begun, Ended, State
from snakepit_ray.port import ray_port
from snakepit_ray.port.messages import Claimed, Delegated, Refused
from snakepit_ray.process.awaiting import within
from snakepit_ray.supervisor import OtherWorkers, Relayed, Supervisor
from snakepit_ray.wire import lane
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.requests import parcel
from snakepit_ray.worker.memory import Memory
from snakepit_ray.worker.peer_links import LaneEnded, Peer, PeerLinks
from snakepit_ray.worker.pool_link import PoolLink

BACK_SECONDS = 10.0  # for an actor that died to be restarted and say what it knows


class Peers(OtherWorkers):
    """The other workers of one worker's pool. `known`: those that the router has named, by worker id."""

    def __init__(
        self,
        pool: str,
        memory: Memory,
        supervisor: Supervisor,
        pool_link: PoolLink,
        known: dict[str, Peer],
        links: PeerLinks,
    ) -> None:
        self.known = known
        self.links = links
        self._pool = pool
        self._memory = memory
        self._supervisor = supervisor
        self._pool_link = pool_link

    # ---- handing on ---------------------------------------------------------------------------------------

    async def elsewhere(self, request: pb.Request, state: State) -> Relayed | None:
        """Has another worker run a request that does not belong here; None when it runs here, or is refused
        here. `state`: what was known of the request when it came."""
        if self._memory.begun_before(request):
            relayed = await self._recalled(request, state)
            if relayed is not None or not self._supervisor.is_idempotent(request):
                return relayed  # None: it is refused here; another worker would run it
        placed = await self.place(request)
        if placed is None:
            return None
        relayed = await self.delegate(*placed, chained=True)
        if relayed is not None and isinstance(relayed.value, WorkerCrashed) and _never_began(relayed.value):
            # A hint that its owner's interpreter did not live to begin runs here; a strict one waits there.
            return relayed if placed[1].options.may_wait else None
        return relayed

    async def place(self, request: pb.Request) -> tuple[str, pb.Request] | None:
        """Where to send a session's request, its owner, and one that comes to a worker that takes none, a
        worker that does, with the request to send; None when it runs here."""
        strict = bool(request.options.affinity)
        if request.session:
            claimed = await self._pool_link.sessions.claim(request.session, strict, request.options.rebind)
            if claimed is not None:
                return self._owner(request, claimed, strict)
        if self._supervisor.takes_none and not (request.session and strict):
            return await self._room(request)
        return None

    async def _recalled(self, request: pb.Request, state: State) -> Relayed | None:
        """What became of a request in an earlier life of this worker, which ran it or had moved it to another
        one; None where that is not known."""
        if isinstance(state, Ended):
            return self._memory.answer(request, state)
        if not isinstance(state, Begun) or state.place == HERE:
            return None
        try:
            actor = ray_port.find_worker(str(WorkerId(self._pool, state.place - 1)))
        except ValueError:
            return None
        asked = _one_hop_more(request, may_wait=True)
        outcome = await self._recall(actor, asked, request.budget_ms / 1000 or None)
        return outcome if isinstance(outcome, Relayed) else None

    async def _recall(self, actor: Any, request: pb.Request, seconds: float | None) -> Relayed | bool:
        """What became of a request that was moved to `actor`, which may be waiting for its restart; where
        that is not known, whether it may have begun there."""
        asked = pb.Request(id=request.id, command=request.command, options=request.options)
        asked.batch.count = request.batch.count
        # One that may run twice does not wait for an actor that is down.
        retries = 0 if self._supervisor.is_idempotent(request) else -1
        try:
            ref = actor.recall.options(max_task_retries=retries).remote(asked.SerializeToString())
            outcome: Delegated | bool = await within(seconds, ray_port.owned(ref))
        except (ray_port.RayError, asyncio.TimeoutError):
            return True
        return Relayed(outcome.value) if isinstance(outcome, Delegated) else outcome

    def _owner(self, request: pb.Request, claimed: Claimed, strict: bool) -> tuple[str, pb.Request]:
        if claimed.actor is None:
            gone = f"worker {claimed.owner} is gone"
            raise SessionWorkerLost.of(request.session, gone, None, self._supervisor.epoch)
        self.known[claimed.owner] = Peer(claimed.actor, claimed.lane)
        # A hint that finds its worker busy is refused there and runs here.
        return claimed.owner, _one_hop_more(request, may_wait=strict)

    @property
    def pool_load(self) -> tuple[int, int]:
        return self._pool_link.pool_load

    async def overflow(self, request: pb.Request) -> Relayed | None:
        placed = await self._room(request)
        return None if placed is None else await self.delegate(*placed, chained=True)

    async def _room(self, request: pb.Request) -> tuple[str, pb.Request] | None:
        order = await self._pool_link.room()
        if order is None:
            return None
        self.known[order.target] = Peer(order.actor, order.lane)
        return order.target, _one_hop_more(request, may_wait=True)

    async def delegate(self, target: str, request: pb.Request, chained: bool) -> Relayed | None:
        """Has another worker run `request`; None when that has no free slot (it did not start there), or died
        with it and the request may run twice. Raises WorkerCrashed when it died and may not."""
        peer = self.known.get(target)
        if peer is None:
            return None
        request.options.chained = chained
        request.options.more = bool(self._supervisor.movable)
        request.options.incarnation = 0  # of another worker than the one it was sent to
        self._memory.moves(request.id, 1 + WorkerId.parse(target).number)
        try:
            value = await self._run_there(target, peer, request)
        except (ray_port.ActorDied, ray_port.ActorUnavailable, LaneEnded) as error:
            return await self._after_its_death(target, peer.actor, request, error)
        if isinstance(value, Refused):
            self._memory.refused(request.id)
            if not chained:
                self._pool_link.refused(target)
            return None
        if _never_began(value.value):  # its queue is full, too, or it waited there for nothing
            self._memory.refused(request.id)
        return Relayed(value.value, value.free)

    async def _run_there(self, target: str, peer: Peer, request: pb.Request) -> Delegated | Refused:
        """By its lane, or by Ray. Raises ActorDied, ActorUnavailable and LaneEnded when it has died."""
        blob = request.SerializeToString()
        beside = parcel(self._supervisor.beside(request))
        answer = None if beside else await self.links.run(peer.lane, request, blob)
        if answer is not None:
            if answer.refused:
                return Refused(target)
            return Delegated(lane.relayed(answer, request), answer.free)
        # Sent again by Ray it would be counted twice there: what becomes of it is decided here.
        ref = peer.actor.execute.options(max_task_retries=0).remote(blob, *beside)
        try:
            outcome: Delegated | Refused = await ray_port.owned(ref)
        except asyncio.CancelledError:
            ray.cancel(ref)
            raise
        return outcome

    async def _after_its_death(
        self, target: str, actor: Any, request: pb.Request, error: Exception
    ) -> Relayed | None:
        """What became of a request whose worker died with it; None where it may run again. Raises
        WorkerCrashed where it may not."""
        self.known.pop(target, None)
        if self._supervisor.is_idempotent(request):
            self._memory.lost(request.id)
            return None
        outcome = await self._recall(actor, request, BACK_SECONDS)
        if isinstance(outcome, Relayed):
            return outcome
        if not outcome:
            self._memory.refused(request.id)
            return None
        raise WorkerCrashed(
            f"worker {target} died while it had a request that was moved to it ({type(error).__name__}), "
            "which may or may not have run; retry it if it is idempotent",
            worker_id=target,
            may_have_started=True,
        ) from error


def _never_began(outcome: object) -> bool:
    if isinstance(outcome, WorkerCrashed):
        return not outcome.may_have_started
    return isinstance(outcome, NotNow)


def _one_hop_more(request: pb.Request, *, may_wait: bool) -> pb.Request:
    sent = pb.Request()
    sent.CopyFrom(request)
    sent.options.hops += 1
    sent.options.may_wait = may_wait
    return sent
