"""What stays the same for a request as long as it runs: which life of its session it means, and by which
binding a strict session is this worker's.

- A request that has met a session means that one. Where it was deleted meanwhile, also where another one was
  made under its id, the request's questions end with SessionNotFound. So a command that still runs does not
  bring back what somebody has deleted.
- A request that is run again is another execution, and may meet another session.
- A strict session's request keeps the binding that it has asked by first. When the session has moved since
  then, the other worker's binding is higher, and the store refuses the older one.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from snakepit_ray.core.state.asked import Fence
from snakepit_ray.errors import SessionNotFound, SessionWorkerLost
from snakepit_ray.wire.host_call import HostCall

FEW = 64  # requests that are remembered whether they run or not


class Origin(NamedTuple):
    """The request that a call comes from: which attempt of it, whether its session is a strict one, and since
    when this try of it has been here (the worker's clock)."""

    attempt: int
    is_strict: bool
    since: float = math.inf


@dataclass
class Pin:
    """`generation`: of the session; 0 as long as there is none, or the request has not met it. `since`: no
    later than when its command began."""

    attempt: int = 0
    since: float = math.inf
    generation: int = 0
    fence: Fence | None = None


class Pins:
    """The pins of one worker's requests.

    Args:
        pool: whose bindings those are.
        origin_of: the request of an id that is in an interpreter; None where it is in none.
        binding_of: under which version a session is this worker's; None where it is another's.
    """

    def __init__(
        self,
        pool: str,
        origin_of: Callable[[str], Origin | None],
        binding_of: Callable[[str], Awaitable[int | None]],
    ) -> None:
        self._pool = pool
        self._origin_of = origin_of
        self._binding_of = binding_of
        self._pins: dict[str, Pin] = {}
        self._most = FEW

    async def of(self, call: HostCall) -> Pin:
        """The pin of the request that has made the call. Raises SessionNotFound for a request without a
        session, SessionWorkerLost where the session has moved."""
        if not call.session:
            raise SessionNotFound(
                f"{call.method}: this request has no session, and so no variables; call the command in one: "
                "pool.session(id).execute(...), or session=id"
            )
        origin = self._origin_of(call.request_id)
        if origin is None:
            return Pin()
        pin = self._pins.get(call.request_id)
        if pin is None or pin.attempt != origin.attempt:
            self._make_room()
            pin = self._pins[call.request_id] = Pin(origin.attempt, origin.since)
        if origin.is_strict and pin.fence is None:
            binding = await self._binding_of(call.session)
            if binding is None:
                raise SessionWorkerLost.of(call.session, "moved")
            pin.fence = pin.fence or Fence(self._pool, binding)
        return pin

    def _make_room(self) -> None:
        if len(self._pins) < self._most:
            return
        self._pins = {name: pin for name, pin in self._pins.items() if self._origin_of(name) is not None}
        self._most = max(FEW, 2 * len(self._pins))
