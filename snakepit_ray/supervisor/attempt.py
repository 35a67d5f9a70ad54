"""One request at one worker: its budget, which try it is, and whether it may have run.

Rules:
- Only the attempt says "it was not executed" or "it may have had effects". The rooms that a request passes
  see one try each, or one interpreter. The attempt remembers all of them, so that what they noticed becomes
  the caller's error here and nowhere else.
- `queue_timeout` bounds the wait of a request that has never begun. A request that has begun was admitted
  once; it waits for its next try for as long as its budget lasts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from snakepit_ray.errors import (
    DeadlineExceeded,
    NotNow,
    PoolClosed,
    SnakepitError,
    WorkerCrashed,
    WorkerFault,
    first_line,
)
from snakepit_ray.ledger import ALL
from snakepit_ray.supervisor.outcomes import Closing, Sink, TooLate
from snakepit_ray.wire._pb import interpreter_pb2 as pb


class Attempt:
    """One request on its way through this worker. `begun_before` says how many calls of it an earlier process
    of this worker, or another worker, has begun, or may have: 0, or ALL where nobody can tell. `ends_at` is
    when its budget is used up, of time.monotonic(); inf without one."""

    def __init__(
        self,
        request: pb.Request,
        budget: float | None,
        begun_before: Callable[[pb.Request], int],
        task: asyncio.Task[object],
        *,
        sink: Sink | None,
        worker_id: str,
        pool: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.request = request
        self.sink = sink  # of a stream
        self.task = task
        self.budget = budget
        self.began = self.entered = self._clock()  # of the first try; of this one
        self.ends_at = math.inf if budget is None else self.began + budget
        self.came_ms = int(time.time() * 1000)
        self.number = max(1, request.attempt)
        self.is_back = False  # it waits in the queue already: it was there, or ran, before
        self.may_move = False
        self.may_nest = True  # until an interpreter has given it back
        self.losses = 0  # interpreters that died with it in them and had not begun it
        self.crash: WorkerCrashed | None = None  # of the last interpreter that may have begun it
        self._begun_before = begun_before
        self._worker_id = worker_id
        self._pool = pool

    @property
    def waited(self) -> float:
        """Seconds since it came."""
        return self._clock() - self.began

    @property
    def may_have_begun(self) -> bool:
        """Whether any try of it may have begun, here or elsewhere."""
        return self.crash is not None or self._begun_before(self.request) > 0

    @property
    def expires_at(self) -> float:
        """When it has waited for too long, of time.monotonic()."""
        queued = self.entered + self.request.options.queue_ms / 1000
        if self.may_have_begun and self.budget is not None:
            return self.ends_at
        return min(self.ends_at, queued)

    @property
    def terms(self) -> tuple[float, float, bool]:
        """How it waits in the queue when it comes back: since when, until when, and whether it may move."""
        return self.entered, self.expires_at, self.may_move

    def crashed(self, crash: WorkerCrashed) -> WorkerCrashed:
        """The interpreter died with it. What is to be raised if it is not tried again."""
        if not crash.may_have_started:
            return self._in_its_own_words(crash) if self.may_have_begun else crash
        if self.crash is not None:  # of a batch: the calls that any try has begun
            known = None in (crash.begun, self.crash.begun)
            crash.begun = None if known else max(crash.begun or 0, self.crash.begun or 0)
        self.crash = crash
        return crash

    # ---- what its caller is told ---------------------------------------------------------------------------

    def told(self, error: Exception) -> SnakepitError:
        """What its caller is told of the error that ended its last try."""
        if isinstance(error, TooLate | Closing):
            told = self.too_late(error.began) if isinstance(error, TooLate) else self.closed(error.began)
            told.__cause__ = None  # they are words between the rooms of a worker
            return told
        if isinstance(error, NotNow):
            return self.refused(error)
        if isinstance(error, SnakepitError):
            return error
        failed = self.failed(error)
        failed.__cause__ = error
        return failed

    def too_late(self, began: bool = False) -> DeadlineExceeded:
        """Its budget is used up. `began`: it may have begun in this try."""
        budget, command = self.budget or 0.0, self.request.command
        if began or not self.may_have_begun:
            return DeadlineExceeded.after(budget, "running" if began else "waiting", command)
        return DeadlineExceeded(
            f"command {command!r} used up its budget of {budget:g} s: an interpreter died while it ran, and "
            "it was "
            "still waiting to be run again; it may have had effects: raise timeout= (or request_timeout), "
            "or make it "
            "shorter",
            budget_s=budget,
            where="running",
            command=command,
        )

    def refused(self, refusal: NotNow) -> SnakepitError:
        """It did not get a slot for this try. `refusal` says that it was not executed, which holds for a
        request that has never begun."""
        if not self.may_have_begun:
            return refusal
        error = self._in_its_own_words(refusal)
        error.__cause__ = refusal
        return error

    def closed(self, began: bool = False) -> PoolClosed:
        """The worker stops. `began`: it may have begun in this try."""
        may = "may have had effects" if began or self.may_have_begun else "was not executed"
        return PoolClosed(
            f"pool {self._pool!r} was shut down (worker {self._worker_id} has stopped); command "
            f"{self.request.command!r} {may}",
            pool=self._pool,
        )

    def failed(self, error: Exception) -> SnakepitError:
        """It could not be handed to the interpreter, for a reason that nobody expected."""
        may = "may have had effects" if self.may_have_begun else "was not executed"
        return WorkerFault(
            f"worker {self._worker_id} could not hand command {self.request.command!r} to its interpreter: "
            f"{type(error).__name__}: {error}; the command {may}"
        )

    def begun_elsewhere(self) -> WorkerCrashed:
        """It began before this process of the worker had it, and must not run twice."""
        begun = self._begun_before(self.request)
        return WorkerCrashed(
            f"worker {self._worker_id} died while command {self.request.command!r} ran in it; the command "
            "may "
            "have had its effects, so it is not sent again unless it is idempotent (idempotent=True)",
            worker_id=self._worker_id,
            may_have_started=True,
            begun=begun if begun < ALL else None,
        )

    def _in_its_own_words(self, why: SnakepitError) -> WorkerCrashed:
        earlier = self.crash
        error = WorkerCrashed(
            f"worker {self._worker_id} lost its interpreter while command {self.request.command!r} ran in "
            "it, and could "
            f"not run it again: {first_line(why)} (that is of the last try alone: the command may have had "
            "its effects)" + (f"\nThe earlier try: {earlier}" if earlier is not None else ""),
            worker_id=self._worker_id,
            may_have_started=True,
        )
        if earlier is not None:
            error.exit_code, error.signal, error.begun = earlier.exit_code, earlier.signal, earlier.begun
            error.stderr_tail, error.argv = earlier.stderr_tail, earlier.argv
        return error
