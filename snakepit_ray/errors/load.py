"""The errors of a pool that has too much to do, and of requests that were ended before they had a result."""

from __future__ import annotations

from snakepit_ray.errors.base import NotNow, Stopped


class CircuitOpen(NotNow):
    """Too many requests failed, so the pool refuses more for a while. Try again in `retry_after_s`
    seconds."""

    def __init__(
        self,
        message: str = "",
        *,
        pool: str | None = None,
        failures: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.pool = pool
        self.failures = failures
        self.retry_after_s = retry_after_s

    @classmethod
    def opened(cls, pool: str, failures: int, window_s: float, retry_after_s: float) -> CircuitOpen:
        """For a `pool` with so many `failures` within `window_s` seconds; it tries again in `retry_after_s`
        seconds."""
        return cls(
            f"pool {pool!r} takes no requests: {failures} failed within {window_s:g} s; it tries one again "
            "in "
            f"{retry_after_s:.1f} s, so call again then, and look at what fails",
            pool=pool,
            failures=failures,
            retry_after_s=retry_after_s,
        )


class PoolSaturated(NotNow):
    """As many requests wait as max_queue_size allows; this one was not executed."""

    def __init__(
        self,
        message: str = "",
        *,
        pool: str | None = None,
        waiting: int | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(message)
        self.pool = pool
        self.waiting = waiting
        self.limit = limit

    @classmethod
    def full(cls, pool: str, waiting: int, limit: int, where: str = "the pool") -> PoolSaturated:
        """For a `pool` where `waiting` requests wait and `limit` may. `where` is "the pool", or the worker
        whose share is full for a request that may not go elsewhere."""
        return cls(
            f"pool {pool!r} is saturated: {waiting} requests wait at {where}, the limit is {limit}; raise "
            "max_queue_size "
            "(None: unbounded) or size, send more slowly, or use pool.map, which paces itself",
            pool=pool,
            waiting=waiting,
            limit=limit,
        )

    @classmethod
    def by_older_calls(cls, pool: str, calls: str) -> PoolSaturated:
        """For a request that a command has made, at the end of a chain of `calls`: all slots of `pool` where
        it would wait are held by commands of older chains that wait themselves."""
        return cls(
            f"{calls}: all slots of pool {pool!r} that it could wait for are held by commands of older calls "
            "which wait themselves, so it might wait for ever; nothing was executed: raise size, or have "
            "commands call fewer commands",
            pool=pool,
        )


class QueueTimeout(NotNow):
    """No slot became free within queue_timeout; the request was not executed."""

    def __init__(
        self,
        message: str = "",
        *,
        pool: str | None = None,
        waited_s: float | None = None,
        limit_s: float | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(message)
        self.pool = pool
        self.waited_s = waited_s
        self.limit_s = limit_s
        self.position = position

    @classmethod
    def after(cls, waited_s: float, limit_s: float, pool: str, position: int | None = None) -> QueueTimeout:
        """For a request of `pool` that waited `waited_s` of `limit_s` seconds, behind `position` others."""
        behind = f", {position} requests were still before it" if position is not None else ""
        return cls(
            f"no slot of pool {pool!r} was free within queue_timeout={limit_s:g} s (waited {waited_s:.2f} "
            f"s{behind}); "
            "the request was not executed: raise queue_timeout or size, or send fewer at once",
            pool=pool,
            waited_s=waited_s,
            limit_s=limit_s,
            position=position,
        )


class WorkerBusy(NotNow):
    """The session's worker has no free slot and affinity is strict_fail_fast; the request was not
    executed."""

    def __init__(
        self,
        message: str = "",
        *,
        session: str | None = None,
        worker_id: str | None = None,
        running: int | None = None,
    ) -> None:
        super().__init__(message)
        self.session = session
        self.worker_id = worker_id
        self.running = running

    @classmethod
    def pinned(cls, session: str, worker_id: str, running: int, capacity: int) -> WorkerBusy:
        """For a `session` whose worker `worker_id` has `running` requests in `capacity` slots. It may be busy
        with less, while its interpreter is replaced."""
        replaced = "" if running else ", and its interpreter is being replaced"
        return cls(
            f"worker {worker_id} of session {session!r} is busy ({running} of {capacity} slots "
            f"taken{replaced}), "
            "and the affinity is 'strict_fail_fast'; nothing was executed: try again, or use "
            "affinity='strict_queue' to wait or 'hint' to run elsewhere",
            session=session,
            worker_id=worker_id,
            running=running,
        )


class SessionQuotaExceeded(NotNow):
    """A quota of sessions, or of what one session holds, is used up. Delete some, or raise the limit it
    names."""

    def __init__(
        self,
        message: str = "",
        *,
        quota: str | None = None,
        used: int | None = None,
        limit: int | None = None,
        session: str | None = None,
    ) -> None:
        super().__init__(message)
        self.quota = quota
        self.used = used
        self.limit = limit
        self.session = session

    @classmethod
    def of(cls, quota: str, used: int, limit: int, session: str | None = None) -> SessionQuotaExceeded:
        """For a `quota`, such as "max_sessions", of which `used` are used and `limit` allowed; of one
        `session`, or of the session store."""
        whose = f"session {session!r}" if session else "the session store"
        return cls(
            f"{whose} is full: {used} of {quota}={limit}; delete what is no longer used "
            "(pool.sessions.delete, "
            f"cleanup_expired) or raise {quota}",
            quota=quota,
            used=used,
            limit=limit,
            session=session,
        )


class VersionConflict(NotNow):
    """Somebody else changed it first; nothing was written. Read it again, decide anew, write with that
    version."""

    def __init__(
        self,
        message: str = "",
        *,
        name: str | None = None,
        expected: int | None = None,
        actual: int | None = None,
    ) -> None:
        super().__init__(message)
        self.name = name
        self.expected = expected
        self.actual = actual

    @classmethod
    def of(cls, name: str, expected: int, actual: int) -> VersionConflict:
        """For what is called `name`: its version is `actual`, not `expected`."""
        return cls(
            f"{name!r} has version {actual}, not the expected {expected}: somebody else wrote it; read it "
            "again "
            "and write with the version that you then get",
            name=name,
            expected=expected,
            actual=actual,
        )


class DeadlineExceeded(Stopped):
    """The request's whole budget (waiting and running) was used up. `where` says in what: "waiting" or
    "running"."""

    def __init__(
        self,
        message: str = "",
        *,
        budget_s: float | None = None,
        where: str | None = None,
        command: str | None = None,
    ) -> None:
        super().__init__(message)
        self.budget_s = budget_s
        self.where = where
        self.command = command

    @classmethod
    def after(cls, budget_s: float, where: str, command: str | None = None) -> DeadlineExceeded:
        """For a call of `command` whose `budget_s` seconds were used up `where` "waiting" or "running"."""
        what = f"command {command!r}" if command else "the request"
        may = "it was not executed" if where == "waiting" else "it may have had effects"
        return cls(
            f"{what} used up its budget of {budget_s:g} s while {where}; {may}: raise timeout= (or "
            "request_timeout), "
            "or make it shorter",
            budget_s=budget_s,
            where=where,
            command=command,
        )


class RequestCancelled(Stopped):
    """The request was cancelled, or what it belonged to ended. `may_have_started` says whether it could
    have effects."""

    def __init__(
        self,
        message: str = "",
        *,
        command: str | None = None,
        may_have_started: bool = True,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.command = command
        self.may_have_started = may_have_started
        self.reason = reason

    @classmethod
    def because(
        cls, reason: str, command: str | None = None, *, may_have_started: bool = True
    ) -> RequestCancelled:
        """For a call of `command`. `reason` completes the sentence: "the caller cancelled it", "the pool is
        shutting down". `may_have_started`: it could have effects."""
        what = f"command {command!r}" if command else "the request"
        effects = "it may have had effects" if may_have_started else "it was not executed"
        return cls(
            f"{what} was cancelled: {reason}; {effects}. Send it again if you still need its result",
            command=command,
            may_have_started=may_have_started,
            reason=reason,
        )
