"""A worker's part in the store of sessions: its link, its copies, and the calls of its interpreter.

- Nothing of the store is imported, found or made before a command asks for it.
- The holder of the copies' leases is one process of the worker. What another one has read is not its own.
- A strict session that has come from another worker is fenced before its first request runs: the worker that
  had it may not be dead, and still run one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.state.asked import Creation, Ended, Fence, Get
from snakepit_ray.core.state.copies import Copies
from snakepit_ray.core.state.leases import Lease
from snakepit_ray.errors import SessionExpired, SessionNotFound
from snakepit_ray.ledger import Ledger
from snakepit_ray.port.store_link import Door, StoreLink
from snakepit_ray.worker.session_calls import SessionCalls
from snakepit_ray.worker.session_pins import Origin, Pins


class StateOfSessions:
    """What one process of a worker has of it. `holder`: its name, of this process alone. `origin_of`,
    `binding_of`: see Pins."""

    def __init__(
        self,
        config: PoolConfig,
        worker_id: str,
        holder: str,
        ledger: Ledger,
        origin_of: Callable[[str], Origin | None],
        binding_of: Callable[[str], Awaitable[int | None]],
    ) -> None:
        self.copies = Copies(ledger.leases, holder)
        self._config = config
        self._store = StoreLink(self._connect, config.request_timeout)
        life = holder.rpartition("#")[2]
        self.calls = SessionCalls(
            self._store,
            self.copies,
            Pins(config.name, origin_of, binding_of),
            Creation(config.name, config.session_ttl, config.max_sessions),
            f"{worker_id}#{life}",
            ledger.first_lease,
        )

    async def _connect(self) -> Door:
        from snakepit_ray.store import spawn  # most pools have no state

        return await spawn.connect(self._config)

    async def fence(self, session: str, binding: int) -> None:
        """The session is this worker's by that binding: by an older one nothing is written any more.
        Without a store nothing ever was. Raises DeadlineExceeded."""
        from snakepit_ray.store import spawn

        if await asyncio.to_thread(spawn.is_there):
            with contextlib.suppress(SessionNotFound, SessionExpired):
                await self._store.ask(Get(session, (), Fence(self._config.name, binding)))

    def let_go(self, leases: Sequence[Lease]) -> list[Lease]:
        """Ends the copies of these leases; those of which nobody has a copy any more."""
        return list(self.copies.let_go(leases))

    def ended(self, ended: Sequence[Ended]) -> None:
        """These sessions are no more."""
        self.copies.ended(ended)
