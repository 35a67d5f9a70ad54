"""Knows the world around one worker: the other workers that it hands requests to, and what it told its
interpreter, and heard of it, in an earlier life.

Rules: a request is delegated at most once; a delegated request that was refused keeps its place where it was;
whatever is about to run is written into the journal first, here and where it is sent on, so that no restart
of this actor runs it a second time; what had come to its end before a restart, here or there, is asked for,
not run again (where that means to wait for a restart, an idempotent one runs again instead)."""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.actors import ray_port
from snakepit_ray.actors.answers import Answers, is_part
from snakepit_ray.actors.membership import Membership
from snakepit_ray.actors.messages import Claimed, Delegated, Refused
from snakepit_ray.core.lifecycle import WorkerState
from snakepit_ray.errors import NotNow, SessionWorkerLost, WorkerCrashed
from snakepit_ray.process.journal import HERE, Journal
from snakepit_ray.process.marks import Mark
from snakepit_ray.requests import parcel
from snakepit_ray.supervisor import Done, Relayed, Supervisor, Surroundings

BACK_SECONDS = 10.0  # for an actor that died to be restarted and say what it knows


class Neighbours(Surroundings):
    """The surroundings of one worker actor. `supervisor` and `membership` are set when they are made."""

    supervisor: Supervisor
    membership: Membership

    def __init__(self, pool: str, journal: Journal, incarnation: int, answers: Answers) -> None:
        self._pool = pool
        self.peers: dict[str, Any] = {}
        self.incarnation = incarnation
        self._journal = journal
        self._answers = answers
        self._whole_recorded = ""  # the batch whose parts run now

    # ---- what has begun -----------------------------------------------------------------------------------

    def begins(self, request: pb.Request, marked: bool) -> Mark | None:
        if not is_part(request):
            return self._journal.record(request.id, marked=marked)
        self._record_whole(request)
        return self._journal.marks.take_spare() if marked else None

    def _record_whole(self, request: pb.Request) -> None:
        if self._whole_recorded != _whole(request):
            self._whole_recorded = _whole(request)
            self._journal.record(self._whole_recorded)

    def _withdraw(self, request: pb.Request) -> None:
        if not is_part(request):  # other parts of the batch may have begun
            self._journal.withdraw(request.id)

    def ended(self, request: pb.Request, done: Done) -> None:
        self._answers.keep(request, done)

    def begun_before(self, request: pb.Request) -> bool:
        whole = request.id if request.options.hops else _whole(request)
        # A batch goes in many parts: those before this one are no reason to refuse it.
        known = self._journal.started_before if whole == request.id else self._journal.started_earlier
        if known(whole):
            return True
        # Without the journal of the life before (another node): whatever was sent to it may have begun there.
        return not self._journal.found and 0 < request.options.incarnation < self.incarnation

    # ---- what the worker asks of the pool -----------------------------------------------------------------

    async def may_recycle(self) -> bool:
        return await self.membership.may_recycle()

    def recycling_over(self) -> None:
        self.membership.recycling_over()

    def state_changed(self, state: WorkerState) -> None:
        self.membership.state_changed(state)

    # ---- handing on ---------------------------------------------------------------------------------------

    async def elsewhere(self, request: pb.Request) -> Relayed | None:
        """Has another worker run a request that does not belong here; None when it runs here."""
        if self.begun_before(request):
            relayed = await self._recalled(request)
            if relayed is not None or not self.supervisor.is_idempotent(request):
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
            claimed = await self.membership.sessions.claim(request.session, strict, request.options.rebind)
            if claimed is not None:
                return self._owner(request, claimed, strict)
        away = self.supervisor.state in (WorkerState.DRAINING, WorkerState.QUARANTINED)
        if away and not (request.session and strict):
            return await self._room(request)
        return None

    async def _recalled(self, request: pb.Request) -> Relayed | None:
        """What became of a request in an earlier life of this worker, which ran it or had moved it to another
        one; None where that is not known."""
        place = self._journal.where(request.id)
        if place == HERE:
            return self._answers.kept(request)
        try:
            actor = ray_port.find_worker(f"{self._pool}-{place - 1}")
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
        retries = 0 if self.supervisor.is_idempotent(request) else -1
        try:
            ref = actor.recall.options(max_task_retries=retries).remote(asked.SerializeToString())
            outcome: Delegated | bool = await asyncio.wait_for(ref, seconds)
        except (ray_port.RayError, asyncio.TimeoutError):
            return True
        return Relayed(outcome.value) if isinstance(outcome, Delegated) else outcome

    def _owner(self, request: pb.Request, claimed: Claimed, strict: bool) -> tuple[str, pb.Request]:
        if claimed.actor is None:
            epoch = self.supervisor.epoch
            gone = f"worker {claimed.owner} is gone"
            raise SessionWorkerLost.of(request.session, gone, None, (epoch.incarnation, epoch.number))
        self.peers[claimed.owner] = claimed.actor
        # A hint that finds its worker busy is refused there and runs here.
        return claimed.owner, _one_hop_more(request, may_wait=strict)

    async def overflow(self, request: pb.Request) -> Relayed | None:
        placed = await self._room(request)
        return None if placed is None else await self.delegate(*placed, chained=True)

    async def _room(self, request: pb.Request) -> tuple[str, pb.Request] | None:
        order = await self.membership.room()
        if order is None:
            return None
        self.peers[order.target] = order.actor
        return order.target, _one_hop_more(request, may_wait=True)

    async def delegate(self, target: str, request: pb.Request, chained: bool) -> Relayed | None:
        """Has another worker run `request`; None when that has no free slot (it did not start there), or died
        with it and the request may run twice. Raises WorkerCrashed when it died and may not."""
        actor = self.peers.get(target)
        if actor is None:
            return None
        request.options.chained = chained
        request.options.more = bool(self.supervisor.admission.queue.movable)
        request.options.incarnation = 0  # of another worker than the one it was sent to
        if is_part(request):
            self._record_whole(request)
        else:
            self._journal.record(request.id, 1 + int(target.rpartition("-")[2]))
        # Sent again by Ray it would be counted twice there: what becomes of it is decided here.
        beside = parcel(self.supervisor.cargo.beside(request))
        ref = actor.execute.options(max_task_retries=0).remote(request.SerializeToString(), *beside)
        try:
            value = await ref
        except asyncio.CancelledError:
            ray.cancel(ref)
            raise
        except (ray_port.ActorDied, ray_port.ActorUnavailable) as error:
            return await self._after_its_death(target, actor, request, error)
        if isinstance(value, Refused):
            self._withdraw(request)
            if not chained:
                self.membership.refused(target)
            return None
        if _never_began(value.value):  # its queue is full, too, or it waited there for nothing
            self._withdraw(request)
        return Relayed(value.value, value.free)

    async def _after_its_death(
        self, target: str, actor: Any, request: pb.Request, error: Exception
    ) -> Relayed | None:
        """What became of a request whose worker died with it; None where it may run again. Raises
        WorkerCrashed where it may not."""
        self.peers.pop(target, None)
        if self.supervisor.is_idempotent(request):
            return None
        outcome = await self._recall(actor, request, BACK_SECONDS)
        if isinstance(outcome, Relayed):
            return outcome
        if not outcome:
            self._withdraw(request)
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
