"""Knows which telemetry events a worker emits and what they say.

Rule: what happens with every request costs one look-up while nobody listens.
"""

from __future__ import annotations

import time

from snakepit_ray import telemetry
from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.errors import WorkerCrashed


class Story:
    """The events of one worker. Times are seconds; `began` is of time.monotonic()."""

    def __init__(self, pool: str, worker_id: str) -> None:
        self._who = {"pool": pool, "worker_id": worker_id}
        self._pool = pool

    def initialized(self, seconds: float, pid: int, epoch: pb.Epoch) -> None:
        about = {**self._who, "pid": pid, "epoch": (epoch.incarnation, epoch.number)}
        telemetry.emit("worker.initialized", {"initialization_time": seconds}, about)

    def crashed(self, uptime: float, crash: WorkerCrashed) -> None:
        about = {**self._who, "exit_code": crash.exit_code, "signal": crash.signal}
        telemetry.emit("worker.crashed", {"uptime": uptime}, about)

    def enqueued(self, request: pb.Request, position: int) -> None:
        if telemetry.enabled("queue.enqueued"):
            telemetry.emit("queue.enqueued", {"position": position}, self._about(request))

    def dequeued(self, request: pb.Request, began: float) -> None:
        if telemetry.enabled("queue.dequeued"):
            telemetry.emit("queue.dequeued", {"waited": time.monotonic() - began}, self._about(request))

    def timed_out(self, request: pb.Request, waited: float, limit: float) -> None:
        telemetry.emit("queue.timeout", {"waited": waited, "limit": limit}, self._about(request))

    def saturated(self, waiting: int, limit: int) -> None:
        telemetry.emit("pool.saturated", {"queue_size": waiting, "max_queue_size": limit}, self._who)

    def moved(self, request: pb.Request, target: str, began: float) -> None:
        if telemetry.enabled("delegation.moved"):
            about = {"pool": self._pool, "from_worker": self._who["worker_id"], "to_worker": target}
            waited = {"waited": time.monotonic() - began}
            telemetry.emit("delegation.moved", waited, {**about, "command": request.command})

    def ran(self, request: pb.Request, reply: pb.Reply) -> None:
        """A command ended in the interpreter."""
        if telemetry.enabled("worker.request"):
            result = "error" if reply.HasField("failure") else "ok"
            about = {**self._about(request), "result": result}
            telemetry.emit("worker.request", {"duration": reply.ran_us / 1e6}, about)

    def executed(self, request: pb.Request, began: float, error: str) -> None:
        """A caller has its outcome; a delegated request is told by the worker that it came to first."""
        if telemetry.enabled("request.executed") and not request.options.hops:
            about = {"command": request.command, "pool": self._pool, "session": request.session or None}
            taken = {"duration_us": (time.monotonic() - began) * 1e6}
            telemetry.emit("request.executed", taken, {**about, "success": not error, "error": error or None})

    def _about(self, request: pb.Request) -> dict[str, object]:
        return {**self._who, "command": request.command, "session": request.session or None}
