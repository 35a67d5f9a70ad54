"""The requests that other workers send here: taken or refused, and what their sender learns of the slot."""

from __future__ import annotations

from snakepit_ray.port.messages import Refused
from snakepit_ray.supervisor import Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.worker.pool_link import PoolLink


class Delegations:
    """Of one worker. A request that finds no free slot is refused at once, so that it keeps its place where
    it was, unless its sender lets it wait here."""

    def __init__(self, supervisor: Supervisor, pool_link: PoolLink) -> None:
        self._supervisor = supervisor
        self._pool_link = pool_link

    def refusal(self, options: pb.CallOptions) -> Refused | None:
        """The answer to a request that is not taken; None of one that is."""
        if options.may_wait:
            return None
        accepted = self._supervisor.free > 0
        self._pool_link.delegate_arrived(accepted, options.chained)
        return None if accepted else Refused(self._supervisor.worker_id)

    def is_tried_again(self, request: pb.Request) -> bool:
        """Whether a request that an interpreter died with runs again at the worker that sent it. It may not
        wait here, so it was not tried again here."""
        sent = request.options.hops and not request.options.may_wait
        return bool(sent) and self._supervisor.is_idempotent(request)

    def ended(self, options: pb.CallOptions) -> bool:
        """One has ended here; whether there is a free slot now, so that its sender may send the next."""
        free = self._supervisor.free > 0
        self._pool_link.delegate_ended(free and options.more)
        return free
