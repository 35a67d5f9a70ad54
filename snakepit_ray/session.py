"""Knows one session of a pool: calls that carry its id, so that they meet the state that earlier ones
left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from snakepit_ray.calls import Call
    from snakepit_ray.config.keywords import SessionCallSettings
    from snakepit_ray.pool import Pool
    from snakepit_ray.streaming import StreamCall


class Session:
    """Calls of one session. Made by `pool.session(id)`; picklable, as the pool is."""

    def __init__(self, pool: Pool, session_id: str) -> None:
        self.pool = pool
        self.id = session_id
        self._execute = pool.execute.options(session=session_id)
        self._execute_stream = pool.execute_stream.options(session=session_id)

    @property
    def execute(self) -> Call:
        """`pool.execute` in this session: called, `.remote` and `.options`."""
        return self._execute

    @property
    def execute_stream(self) -> StreamCall:
        """`pool.execute_stream` in this session: called with a callback, and `.remote`."""
        return self._execute_stream

    async def call(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[SessionCallSettings]
    ) -> Any:
        """`pool.call` in this session."""
        return await self.pool.call(command, args, session=self.id, **options)

    def stream(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[SessionCallSettings]
    ) -> Generator[Any]:
        """`pool.stream` in this session."""
        return self.pool.stream(command, args, session=self.id, **options)

    def astream(
        self, command: str, args: Mapping[str, Any] | None = None, **options: Unpack[SessionCallSettings]
    ) -> AsyncIterator[Any]:
        """`pool.astream` in this session."""
        return self.pool.astream(command, args, session=self.id, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return Session, (self.pool, self.id)

    def __repr__(self) -> str:
        return f"<Session {self.id!r} of pool {self.pool.name!r}>"
