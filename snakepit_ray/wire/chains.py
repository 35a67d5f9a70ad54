"""The calls that led to the code that runs here: of a tool, which may make calls of its own.

- A request that code of a tool makes carries the chain, and has no more time than the tool's caller has left.
- A chain goes from one task or thread to those that it starts as other context variables do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from snakepit_ray.core.pool.worker_ids import WorkerId
from snakepit_ray.errors import InvalidArguments
from snakepit_ray.wire._pb import interpreter_pb2 as pb

MOST_CALLS = 16  # a chain that is longer calls itself
LEAST_SECONDS = 0.001


@dataclass(frozen=True, eq=False)
class Inside:
    """The call whose tool runs here. `deadline`: of its budget, a time of `time.monotonic()`; None for
    none. `on_call` is called when it calls a pool: from then on its caller waits for a slot, maybe."""

    chain: pb.Chain
    deadline: float | None = None
    on_call: Callable[[], None] | None = None

    def calls(self) -> pb.Chain:
        """The chain of a call that is made here."""
        if self.on_call is not None:
            self.on_call()
        return self.chain

    def within(self, budget: float) -> float:
        """`budget` seconds, or what is left of the caller's where that is less."""
        if self.deadline is None:
            return budget
        return max(LEAST_SECONDS, min(budget, self.deadline - time.monotonic()))


_inside: ContextVar[Inside | None] = ContextVar("snakepit_inside", default=None)


def inside() -> Inside | None:
    """The call whose tool runs in this task or thread; None outside of one."""
    return _inside.get()


@contextlib.contextmanager
def entered(call: Inside | None) -> Iterator[None]:
    """What is done in this block is done on behalf of `call`."""
    before = _inside.set(call)
    try:
        yield
    finally:
        _inside.reset(before)


def lengthened(chain: pb.Chain | None, request_id: str, call: str, worker_id: str, began_ms: int) -> pb.Chain:
    """The chain of what the request `request_id` calls: its own, and itself as `call` ("pool.command") at a
    worker, which began at `began_ms` (since 1970) where it is the first. Raises InvalidArguments for a chain
    of more than MOST_CALLS."""
    longer = pb.Chain(root=request_id, began_ms=began_ms)
    if chain is not None:
        longer.CopyFrom(chain)
    longer.calls.append(call)
    longer.workers.append(worker_id)
    if len(longer.calls) > MOST_CALLS:
        raise InvalidArguments(
            f"commands call each other {len(longer.calls)} deep, at most {MOST_CALLS} are allowed: "
            f"{written(longer)}"
        )
    return longer


def worker_of(chain: pb.Chain, pool: str) -> str | None:
    """The worker of that pool where a command of the chain waits, the last of them: what comes back to it
    needs no slot. None where there is none."""
    return next((one for one in reversed(chain.workers) if WorkerId.parse(one).pool == pool), None)


def written(chain: pb.Chain) -> str:
    """The chain for a message."""
    return " -> ".join(chain.calls)
