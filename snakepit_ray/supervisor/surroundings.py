"""Knows what one worker asks of the world around it: other workers, the router, the journal.

Rule: a worker without surroundings (this class as it is) works, on its own."""

from __future__ import annotations

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.core.lifecycle import WorkerState
from snakepit_ray.process.marks import Mark
from snakepit_ray.supervisor.outcomes import Done, Relayed


class Surroundings:
    """A worker on its own. Subclass it where there are others."""

    async def delegate(self, target: str, request: pb.Request, chained: bool) -> Relayed | None:
        """Has the worker `target` run a waiting request; None when it was refused there."""
        return None

    async def overflow(self, request: pb.Request) -> Relayed | None:
        """Has any worker with room run a request that finds the queue full; None when none has."""
        return None

    async def may_recycle(self) -> bool:
        """Whether this worker may be one of those that recycle now."""
        return True

    def recycling_over(self) -> None:
        """It recycles no more."""

    def state_changed(self, state: WorkerState) -> None:
        """The worker's state is another one."""

    def begins(self, request: pb.Request, marked: bool) -> Mark | None:
        """The request is about to reach the interpreter, which says what it begins if it is `marked`: the
        mark where it does so, to be given back; None where it does not."""
        return None

    def ended(self, request: pb.Request, done: Done) -> None:
        """The interpreter has answered, and nobody has heard of it yet."""

    def begun_before(self, request: pb.Request) -> bool:
        """Whether an earlier process of this worker may have sent the request to its interpreter."""
        return False
