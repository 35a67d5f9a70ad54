"""Which telemetry events a worker emits and what they say. The last ones of its life are kept.

Rules:
- What happens with every request costs one look-up while nobody listens. `ran` and `executed` are called only
  where somebody does.
- What happens to the worker itself is always remembered, so that its errors and `snakepit-ray status
  --detailed` can tell it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from snakepit_ray import telemetry
from snakepit_ray.core.worker.recycling import Reason
from snakepit_ray.core.worker.restarts import Quarantine
from snakepit_ray.errors import WorkerCrashed, first_line
from snakepit_ray.supervisor.outcomes import Tally, tally_of
from snakepit_ray.telemetry import Why
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Epoch

REMEMBERED = 50
IN_ERRORS = 5


class Story:
    """The events of one worker. Times are seconds; `began` is of `clock`. `epoch` says the present
    one."""

    def __init__(
        self,
        pool: str,
        worker_id: str,
        epoch: Callable[[], Epoch],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._who = {"pool": pool, "worker_id": worker_id}
        self._pool = pool
        self._epoch = epoch
        self._events: deque[tuple[float, str]] = deque(maxlen=REMEMBERED)

    def tell(self, what: str) -> None:
        """Remembers an event of the worker's life."""
        self._events.append((time.time(), what))

    def last(self, count: int = IN_ERRORS) -> list[str]:
        """The newest events, the oldest of them first: `12:34:56.789 ready: pid 123, epoch 2`."""
        newest = list(self._events)[-count:]
        return [f"{_clock(at)} {what}" for at, what in newest]

    # ---- the worker's life --------------------------------------------------------------------------------

    def initialized(self, seconds: float, pid: int) -> None:
        self.tell(f"ready: pid {pid}, epoch {self._number}, started in {seconds:.2f} s")
        about = {**self._where, "pid": pid}
        telemetry.emit("worker.initialized", {"initialization_time": seconds}, about)

    def start_failed(self, error: Exception, seconds: float) -> None:
        self.tell(f"start failed: {type(error).__name__}: {first_line(error)}")
        about = {**self._where, "error": first_line(error)}
        telemetry.emit("worker.start_failed", {"elapsed": seconds}, about)

    def crashed(self, uptime: float, crash: WorkerCrashed, lost: int, reason: Why) -> None:
        how = crash.signal or f"exit code {crash.exit_code}"
        self.tell(f"crashed: {how} after {uptime:.1f} s, {lost} requests ran in it")
        about = {**self._where, "exit_code": crash.exit_code, "signal": crash.signal, "reason": reason.value}
        telemetry.emit("worker.crashed", {"uptime": uptime, "lost": lost}, about)

    def restarted(self, attempt: int, delay: float, reason: Why) -> None:
        self.tell(f"restarted: attempt {attempt}, {delay:.2f} s after the loss")
        about = {**self._where, "reason": reason.value}
        telemetry.emit("worker.restarted", {"attempt": attempt, "delay": delay}, about)

    def recycled(self, uptime: float, requests: int, reason: Reason) -> None:
        self.tell(f"recycled: {reason} after {uptime:.1f} s and {requests} requests")
        about = {**self._where, "reason": reason.value}
        telemetry.emit("worker.recycled", {"uptime": uptime, "request_count": requests}, about)

    def terminated(self, uptime: float, requests: int) -> None:
        self.tell(f"stopped after {uptime:.1f} s and {requests} requests")
        about = {**self._where, "reason": Why.SHUTDOWN.value}
        telemetry.emit("worker.terminated", {"uptime": uptime, "request_count": requests}, about)

    def quarantined(self, quarantine: Quarantine) -> None:
        seconds, losses, window = quarantine
        self.tell(f"quarantined for {seconds:.0f} s: {losses} losses lately (within {window:g} s)")
        telemetry.emit("worker.quarantined", {"restarts": losses, "window": window}, self._where)

    def session_not_moved(self, session: str, why: str) -> None:
        self.tell(f"session {session!r} lost its state: {why}")
        telemetry.emit("session.not_moved", {}, {**self._where, "session": session, "error": why})

    def health_check_failed(self, error: str) -> None:
        self.tell(f"health: {error}")
        telemetry.emit("worker.health_check_failed", {}, {**self._where, "error": error})

    # ---- requests -----------------------------------------------------------------------------------------

    def enqueued(self, request: pb.Request, position: int) -> None:
        if telemetry.listening["queue.enqueued"]:
            telemetry.emit("queue.enqueued", {"position": position}, self._about(request))

    def dequeued(self, request: pb.Request, began: float) -> None:
        if telemetry.listening["queue.dequeued"]:
            telemetry.emit("queue.dequeued", {"waited": self._clock() - began}, self._about(request))

    def timed_out(self, request: pb.Request, waited: float, limit: float) -> None:
        telemetry.emit("queue.timeout", {"waited": waited, "limit": limit}, self._about(request))

    def dropped(self, request: pb.Request, waited: float) -> None:
        """A waiting request was cancelled."""
        telemetry.emit("queue.cancelled", {"waited": waited}, self._about(request))

    def full(self, capacity: int, load: int) -> None:
        """A request found all slots taken, and waits."""
        if telemetry.listening["pool.capacity_reached"]:
            about = {**self._who, "rejected": False}
            telemetry.emit("pool.capacity_reached", {"capacity": capacity, "load": load}, about)

    def saturated(self, waiting: int, limit: int, capacity: int, load: int, pool: tuple[int, int]) -> None:
        """A request found all slots taken and the queue full, and was refused. `pool`: its workers that have
        a free slot, and that have work."""
        about = {**self._who, "rejected": True}
        telemetry.emit("pool.capacity_reached", {"capacity": capacity, "load": load}, about)
        others = {"available_workers": pool[0], "busy_workers": pool[1]}
        size = {"queue_size": waiting, "max_queue_size": limit}
        telemetry.emit("pool.saturated", size, {**self._who, **others})

    def moved(self, request: pb.Request, target: str, began: float) -> None:
        if telemetry.listening["delegation.moved"]:
            about = {"pool": self._pool, "from_worker": self._who["worker_id"], "to_worker": target}
            waited = {"waited": self._clock() - began}
            telemetry.emit("delegation.moved", waited, {**about, "command": request.command})

    def not_moved(self, request: pb.Request, target: str) -> None:
        """Another worker refused a waiting request."""
        if telemetry.listening["delegation.failed"]:
            about = {"pool": self._pool, "from_worker": self._who["worker_id"], "to_worker": target}
            telemetry.emit("delegation.failed", {}, {**about, "command": request.command})

    def retried(self, request: pb.Request, attempt: int, delay: float, error: Exception) -> None:
        about = {**self._who, "command": request.command, "error": type(error).__name__}
        telemetry.emit("request.retried", {"attempt": attempt, "delay": delay}, about)

    def ran(self, request: pb.Request, reply: pb.Reply) -> None:
        """A command ended in the interpreter."""
        tally = tally_of(reply, request.batch.count or 1)
        about = {**self._where, **self._about(request), "result": "error" if tally.failed else "ok"}
        telemetry.emit("worker.request", {"duration": reply.ran_us / 1e6, **tally._asdict()}, about)

    def executed(self, request: pb.Request, began: float, tally: Tally, error: str = "") -> None:
        """A caller has its outcome: told by the worker that the request came to first."""
        taken = {"duration_us": (self._clock() - began) * 1e6, **tally._asdict()}
        about = {**self._about(request), "success": not tally.failed, "error": error or None}
        telemetry.emit("request.executed", taken, about)

    def cancelled(self, request: pb.Request, began: float, items: int) -> None:
        """Its caller wants it no more."""
        if telemetry.listening["request.cancelled"]:
            taken = {"duration_us": (self._clock() - began) * 1e6, "items": items}
            telemetry.emit("request.cancelled", taken, self._about(request))

    @property
    def _number(self) -> int:
        return self._epoch().number

    @property
    def _where(self) -> dict[str, object]:
        return {**self._who, "epoch": tuple(self._epoch())}

    def _about(self, request: pb.Request) -> dict[str, object]:
        return {**self._who, "command": request.command, "session": request.session or None}


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03d}"
