"""How far a pool's start is, whether there is hope for it, and why workers did not come."""

from __future__ import annotations

from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import SnakepitError, WorkerStartError
from snakepit_ray.port.messages import StartCounts
from snakepit_ray.router.members import Members


class Outlook:
    """The start of one pool."""

    def __init__(self, config: PoolConfig, members: Members) -> None:
        self._config = config
        self._members = members

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
        tried = [member for member in judged if not member.overdue]
        together = min(self._members.size, self._config.startup_batch_size)
        left = len(self._members.by_id) - len(judged)
        return not self._members.ready() and bool(judged) and (not left or len(tried) >= together)

    def start_error(self, why: str = "") -> SnakepitError:
        """Why workers did not start, in the words of the first that said something; of an interpreter before
        those of an actor that has not come."""
        members = sorted(self._members.by_id.values(), key=lambda member: member.overdue)
        errors = [member.error for member in members if member.error is not None and member.state != "ready"]
        cause = getattr(errors[0], "cause", errors[0]) if errors else None
        text = f"pool {self._config.name!r}: {why or f'none of its {self._members.size} workers could start'}"
        if cause is None:
            return WorkerStartError(f"{text}; raise startup_timeout, or see snakepit-ray doctor")
        kind = type(cause) if isinstance(cause, SnakepitError) else WorkerStartError
        return kind(f"{text}: {cause}")
