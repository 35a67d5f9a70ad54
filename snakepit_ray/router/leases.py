"""Calling processes that have ended: the workers are told, and drop what those processes had asked for.

- A process is gone when the stream that it held has ended.
- Ends that come together are told together. No worker is told more often than the pool's size allows, which
  is about 800 messages a second for all.
"""

from __future__ import annotations

import asyncio

from snakepit_ray.port import ray_port
from snakepit_ray.router.members import Members

TOGETHER_SECONDS = 0.2
MESSAGES_A_SECOND = 800.0


class Leases:
    """The calling processes of one pool."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._gone: list[str] = []
        self._telling: asyncio.Task[None] | None = None

    def gone(self, caller_id: str) -> None:
        """This calling process has ended."""
        self._gone.append(caller_id)
        if self._telling is None:
            self._telling = ray_port.unowned_task(self._tell())

    async def _tell(self) -> None:
        await asyncio.sleep(max(TOGETHER_SECONDS, len(self._members.by_id) / MESSAGES_A_SECOND))
        gone, self._gone, self._telling = self._gone, [], None
        for member in self._members.alive():
            member.actor.drop_callers.remote(gone)
