"""The tools of a pool, as its router keeps them: names are given once, and every worker learns of each change
before whoever made it goes on.

- core/tools/table.py decides.
- A tool that runs in the process which registered it ends with that process. A process is here while it holds
  its stream (`RouterActor.caller`). One that does not for CONFIRM_SECONDS after it has registered, or after
  this router was restarted, is gone.
- After a restart the newest table of the workers counts, and what processes say again of their own tools.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from snakepit_ray.core.tools.table import Change, ToolTable, WholeTable
from snakepit_ray.core.tools.tool import Tool, ToolInfo
from snakepit_ray.port import ray_port
from snakepit_ray.process.awaiting import within
from snakepit_ray.router.members import Member, Members

TELL_SECONDS = 5.0  # for a worker to say that it knows
CONFIRM_SECONDS = 20.0
log = logging.getLogger("snakepit_ray.router")


class RouterTools:
    """The tools of one pool."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._table = ToolTable()
        self._here: dict[str, int] = {}  # processes that hold their stream, and how many of them
        self._telling: set[asyncio.Task[None]] = set()

    # ---- what processes ask -------------------------------------------------------------------------------

    async def add(self, tools: Sequence[Tool]) -> None:
        """Registers them all, or none. Raises DuplicateTool."""
        change = self._table.add(tools, _now_ms())
        for owner in {tool.owner for tool in tools if tool.owner}:
            self._confirm_later(owner)
        await self._tell(change)

    async def remove(self, name: str, session: str) -> bool:
        """Whether there was one."""
        change = self._table.remove(name, session, _now_ms())
        await self._tell(change)
        return change is not None

    async def end_sessions(self, sessions: Sequence[str]) -> None:
        """The tools of sessions that have ended are no more."""
        await self._tell(self._table.without_sessions(sessions, _now_ms()))

    def all(self) -> list[ToolInfo]:
        """Every tool, by session and name."""
        return self._table.all()

    # ---- processes ----------------------------------------------------------------------------------------

    def came(self, owner: str) -> None:
        """A calling process holds its stream."""
        self._here[owner] = self._here.get(owner, 0) + 1

    def gone(self, owner: str) -> None:
        """It does not any more."""
        left = self._here.pop(owner, 1) - 1
        if left:
            self._here[owner] = left
        else:
            self._drop_owner(owner)

    def _confirm_later(self, owner: str) -> None:
        asyncio.get_running_loop().call_later(CONFIRM_SECONDS, self._confirm, owner)

    def _confirm(self, owner: str) -> None:
        if owner not in self._here:
            self._drop_owner(owner)

    def _drop_owner(self, owner: str) -> None:
        change = self._table.without_owners([owner], _now_ms())
        if change is not None:
            self._begin_telling(change)

    # ---- workers ------------------------------------------------------------------------------------------

    def arrived(self, worker_id: str, table: WholeTable) -> None:
        """A worker holds on to the router, and says which tools it knows."""
        if self._table.adopt(table):
            for owner in self._table.owners():
                self._confirm_later(owner)
        member = self._members.by_id.get(worker_id)
        if member is not None and member.actor is not None:  # also of no tools: the worker waits for it
            member.actor.set_tools.remote(self._table.whole())

    def _begin_telling(self, change: Change) -> None:
        task = ray_port.unowned_task(self._tell(change))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, change: Change | None) -> None:
        """Returns when every worker that answers knows the change."""
        if change is not None and change.after != change.before:
            await asyncio.gather(*(self._tell_one(one, change) for one in self._members.alive()))

    async def _tell_one(self, member: Member, change: Change) -> None:
        try:
            if not await within(TELL_SECONDS, member.actor.change_tools.remote(change)):
                await within(TELL_SECONDS, member.actor.set_tools.remote(self._table.whole()))
        except (ray_port.RayError, asyncio.TimeoutError) as error:
            # One that is restarted gets the table when it holds on to the router again.
            log.warning("worker %s was not told of a tool: %s", member.worker_id, error)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
