"""How far a pool's start is, whether there is hope for it, and why workers did not come."""

from __future__ import annotations

import time
from collections.abc import Callable

from snakepit_ray import telemetry
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.row import RowState
from snakepit_ray.errors import PoolClosed, SnakepitError, WorkerStartError
from snakepit_ray.port.messages import StartCounts
from snakepit_ray.router.beginning import Beginning
from snakepit_ray.router.members import Members
from snakepit_ray.router.updates import Updates


class Outlook:
    """The start of one pool."""

    def __init__(
        self,
        config: PoolConfig,
        members: Members,
        updates: Updates,
        beginning: Beginning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._members = members
        self._updates = updates
        self._beginning = beginning
        self._clock = clock
        self._began = clock()
        self._is_ready = False

    async def next(self, seen: StartCounts | None, wait: float) -> tuple[StartCounts, bool]:
        """How far the start is and whether it is over, as soon as that is not what was `seen`, after `wait`
        seconds at most. Raises WorkerStartError where none could start, PoolClosed where the pool was ended.
        """
        deadline = self._clock() + wait
        while True:
            self._beginning.asked(self._clock())
            self._check_open()
            if self.is_hopeless():
                raise self.start_error()
            progress, over = self.progress(), self.is_over()
            if over:
                self._say_ready(progress)
            left = deadline - self._clock()
            if over or progress != seen or left <= 0:
                return progress, over
            await self._updates.table(left)

    async def all_ready(self, timeout: float) -> StartCounts:
        """Waits until every worker is ready. Raises WorkerStartError when they are not in time, with the
        words of one that is missing, PoolClosed where the pool was ended."""
        deadline = self._clock() + timeout
        while (left := deadline - self._clock()) > 0 and not self._updates.closed:
            progress = self.progress()
            if progress.ready >= progress.wanted:
                return progress
            await self._updates.table(left)
        self._check_open()
        ready, _, wanted = self.progress()
        raise self.start_error(f"{ready} of {wanted} workers were ready within {timeout:g} s")

    def _check_open(self) -> None:
        if self._updates.closed:
            raise PoolClosed.named(self._config.name, "it was shut down while it started")

    def _say_ready(self, progress: StartCounts) -> None:
        if not self._is_ready:
            self._is_ready = True
            took = {"workers": progress.ready, "duration": self._clock() - self._began}
            telemetry.emit("pool.ready", took, {"pool": self._config.name, "failed": progress.failed})

    def progress(self) -> StartCounts:
        """How many workers are ready, have failed, are wanted."""
        members = self._members
        return StartCounts(len(members.ready()), len(members.failed()), members.size)

    def is_over(self) -> bool:
        """Whether every worker has had its chance and at least one is ready; the others go on trying."""
        ready, _, wanted = self.progress()
        return bool(ready) and (ready >= wanted or len(self._members.judged()) >= wanted)

    def is_hopeless(self) -> bool:
        """Whether none is ready and as many as start together have all failed, or nobody is left to wait
        for."""
        judged = self._members.judged()
        tried = [member for member in judged if not member.row.is_overdue]
        together = min(self._members.size, self._config.startup_batch_size)
        left = len(self._members.by_id) - len(judged)
        return not self._members.ready() and bool(judged) and (not left or len(tried) >= together)

    def start_error(self, why: str = "") -> SnakepitError:
        """Why workers did not start, in the words of the first that said something; of an interpreter before
        those of an actor that has not come."""
        members = sorted(self._members.by_id.values(), key=lambda member: member.row.is_overdue)
        errors = [m.row.error for m in members if m.row.error is not None and m.state is not RowState.READY]
        cause = getattr(errors[0], "cause", errors[0]) if errors else None
        text = f"pool {self._config.name!r}: {why or f'none of its {self._members.size} workers could start'}"
        if cause is None:
            return WorkerStartError(f"{text}; raise startup_timeout, or see snakepit-ray doctor")
        kind = type(cause) if isinstance(cause, SnakepitError) else WorkerStartError
        return kind(f"{text}: {cause}")
