"""What an interpreter may ask of its worker: the methods of bridge/README.md section 3, in one table.

- The arguments of a call are read on the worker's event loop, so they are small. A method that is not there
  is a structured failure that lists what there is. A method that raises is a failure too, never the end of
  the stream.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import Any

from snakepit_ray import telemetry
from snakepit_ray.wire._pb import interpreter_pb2 as pb

LONGEST_CALL = 1 << 20  # bytes of JSON, which take about 10 ms to read


class HostCalls:
    """Serves one worker's interpreter."""

    def __init__(self, worker_id: str, pool: str, node_id: str, epoch: Callable[[], tuple[int, int]]) -> None:
        self._about = {"worker_id": worker_id, "pool": pool, "node_id": node_id}
        self._epoch = epoch
        self._methods: dict[str, Callable[[dict[str, Any]], Any]] = {
            "worker.info": self._info,
            "telemetry.emit": self._emit,
        }

    async def serve(self, call: pb.HostCall) -> pb.HostReply:
        """Answers one call."""
        method = self._methods.get(call.method)
        if method is None:
            available = sorted(self._methods)
            return _failure(
                call,
                pb.Failure.TOOL_NOT_FOUND,
                "ToolNotFound",
                f"the host has no method {call.method!r}; it has {', '.join(available)}",
                details={"available": available},
            )
        size = len(call.args.json)
        if size > LONGEST_CALL:
            return _failure(
                call,
                pb.Failure.PAYLOAD_TOO_LARGE,
                "PayloadTooLarge",
                f"the arguments of {call.method!r} have {size} bytes of JSON; the host reads at most "
                f"{LONGEST_CALL}: send less, or return it as the command's result",
                details={"size": size, "limit": LONGEST_CALL},
            )
        try:
            value = method(json.loads(call.args.json or b"{}"))
            return pb.HostReply(id=call.id, value=pb.Payload(json=json.dumps(value).encode()))
        except Exception as error:  # noqa: BLE001 - whatever it is, the interpreter is told
            return _failure(
                call, pb.Failure.COMMAND, type(error).__name__, str(error), trace=traceback.format_exc()
            )

    def _info(self, args: dict[str, Any]) -> dict[str, Any]:
        return {**self._about, "epoch": list(self._epoch())}

    def _emit(self, args: dict[str, Any]) -> None:
        metadata = {**args.get("metadata", {}), **self._about}
        event = str(args["event"])
        name = (
            event
            if event in telemetry.EVENTS or event.startswith(telemetry.CUSTOM)
            else telemetry.CUSTOM + event
        )
        telemetry.emit(name, dict(args.get("measurements", {})), metadata)


def _failure(
    call: pb.HostCall, kind: Any, type_name: str, message: str, *, trace: str = "", details: Any = None
) -> pb.HostReply:
    return pb.HostReply(
        id=call.id,
        failure=pb.Failure(
            kind=kind,
            type=type_name,
            message=message,
            traceback=trace,
            language="python",
            details_json=json.dumps(details or {}).encode(),
        ),
    )
