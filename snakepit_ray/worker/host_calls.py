"""What an interpreter may ask of its worker: handlers by method, in one table (bridge/README.md section 6).

- A handler is async. It is given the call with its payload encoded, and gives an encoded value, or yields
  several.
- A handler that wants JSON reads it on the worker's event loop, so it reads small arguments only.
- A method that is not there is an error that lists what there is.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from snakepit_ray import telemetry
from snakepit_ray.errors import PayloadTooLarge, ToolNotFound
from snakepit_ray.wire.codec import Encoded, encode_value
from snakepit_ray.wire.host_call import HostCall, HostHandler

LONGEST_CALL = 1 << 20  # bytes of JSON, which take about 10 ms to read


class HostMethods:
    """The handlers of one worker by method."""

    def __init__(self, handlers: Mapping[str, HostHandler]) -> None:
        self._handlers = dict(handlers)

    def serve(self, call: HostCall) -> Awaitable[Encoded] | AsyncIterator[Encoded]:
        """Begins one call. Raises ToolNotFound."""
        handler = self._handlers.get(call.method)
        if handler is None:
            available = sorted(self._handlers)
            raise ToolNotFound(
                f"the host has no method {call.method!r:.200}; it has {', '.join(available)}",
                tool=call.method,
                available=available,
            )
        return handler(call)


def worker_methods(
    worker_id: str,
    pool: str,
    node_id: str,
    epoch: Callable[[], tuple[int, int]],
    more: Mapping[str, HostHandler] | None = None,
) -> HostMethods:
    """What every worker answers, and `more`. `epoch` is that of its interpreter now."""
    about = {"worker_id": worker_id, "pool": pool, "node_id": node_id}

    async def info(call: HostCall) -> Encoded:
        return encode_value({**about, "epoch": list(epoch())})

    async def emit(call: HostCall) -> Encoded:
        args = read_json(call)
        event = str(args["event"])
        is_known = event in telemetry.EVENTS or event.startswith(telemetry.CUSTOM)
        metadata = {**args.get("metadata", {}), **about}
        name = event if is_known else telemetry.CUSTOM + event
        telemetry.emit(name, dict(args.get("measurements", {})), metadata)
        return encode_value(None)

    return HostMethods({"worker.info": info, "telemetry.emit": emit, **(more or {})})


def read_json(call: HostCall) -> dict[str, Any]:
    """The arguments of a call whose JSON is plain. Raises PayloadTooLarge where reading them would hold the
    worker's event loop."""
    size = len(call.payload.json)
    if size > LONGEST_CALL:
        raise PayloadTooLarge(
            f"the arguments of {call.method!r} have {size} bytes of JSON; the host reads at most "
            f"{LONGEST_CALL}: send less, or return it as the command's result",
            size=size,
            limit=LONGEST_CALL,
        )
    args: dict[str, Any] = json.loads(call.payload.json or b"{}")
    return args
