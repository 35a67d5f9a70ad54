"""The three ports of a supervisor: the other workers, the pool, and the record of what ran.

Each class is a port of a worker that is on its own. Where there is more, a subclass says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from snakepit_ray.core.worker.lifecycle import WorkerState
from snakepit_ray.ledger import Entry
from snakepit_ray.supervisor.outcomes import Relayed
from snakepit_ray.wire._pb import interpreter_pb2 as pb


class OtherWorkers:
    """The workers that a waiting request may be moved to."""

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


class PoolSide:
    """The pool that the worker belongs to: what it permits, and what it is told."""

    async def may_recycle(self) -> bool:
        """Whether this worker may be one of those that recycle now."""
        return True

    def recycling_over(self) -> None:
        """The permit to recycle is free again."""

    def state_changed(self, state: WorkerState) -> None:
        """The worker's state is another one."""

    def session_moved(self, session: str, epoch_number: int) -> None:
        """The session's state was taken into the interpreter of that epoch."""

    def queue_changed(self) -> None:
        """Slots or waiting requests have changed."""

    def queue_progressed(self) -> None:
        """A waiting request has started here."""


class Record:
    """What outlives this process: which requests have begun."""

    def begins(self, request: pb.Request, marked: bool) -> Entry | None:
        """The request is about to reach the interpreter. Its entry where the interpreter stores to that what
        it begins, which it does if it is `marked`; None where nobody will know."""
        return None

    def begun_before(self, request: pb.Request) -> int:
        """Calls of the request that have begun, or may have, where this process of the worker did not see it:
        in an earlier process, or at another worker. 0: none."""
        return 0


@dataclass(frozen=True)
class Ports:
    """The ports of one supervisor."""

    others: OtherWorkers = field(default_factory=OtherWorkers)
    pool: PoolSide = field(default_factory=PoolSide)
    record: Record = field(default_factory=Record)
