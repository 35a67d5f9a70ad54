"""What one worker asks of the world around it: other workers, the router, the ledger.

Rules:
- A worker without surroundings (this class as it is) works, on its own.
"""

from __future__ import annotations

from snakepit_ray.core.lifecycle import WorkerState
from snakepit_ray.ledger import Entry
from snakepit_ray.supervisor.outcomes import Relayed
from snakepit_ray.wire._pb import interpreter_pb2 as pb


class Surroundings:
    """A worker on its own. Subclass it where there are others."""

    @property
    def pool_load(self) -> tuple[int, int]:
        """Workers of the pool with a free slot, and with work, as far as is known."""
        return 0, 1

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

    def begins(self, request: pb.Request, marked: bool) -> Entry | None:
        """The request is about to reach the interpreter. Its entry where the interpreter stores to that what
        it begins, which it does if it is `marked`; None where nobody will know."""
        return None

    def begun_before(self, request: pb.Request) -> int:
        """Calls of the request that have begun, or may have, where this process of the worker did not see it:
        in an earlier process, or at another worker. 0: none."""
        return 0
