"""What the workers of a pool say when they are asked: facts, memory, events, whether they are idle.

- A worker that does not answer within FACTS_SECONDS is shown with what it said last.
- A worker that has not come has a row as well, with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from snakepit_ray.core.worker.command_info import CommandInfo
from snakepit_ray.port import cluster, ray_port
from snakepit_ray.port.messages import PoolStats, WorkerFacts
from snakepit_ray.process.awaiting import within
from snakepit_ray.router.members import Member, Members
from snakepit_ray.router.updates import Updates

FACTS_SECONDS = 2.0
SETTLE_SECONDS = 0.5  # for calls that are under way when a pool takes nothing new any more
DIED_SECONDS = 1.0  # for the table to lose a worker that did not answer
log = logging.getLogger("snakepit_ray.router")


class Census:
    """Questions to all workers of one pool."""

    def __init__(
        self, members: Members, updates: Updates, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._members = members
        self._updates = updates

    async def stats(self, sessions: int) -> PoolStats:
        """The pool's numbers now."""
        return self._members.stats(await self._ask_all(memory=False), sessions)

    async def workers(self) -> list[WorkerFacts]:
        """A row for each worker of the pool."""
        await self._ask_all(memory=True)
        names = cluster.node_names()
        members = self._members
        return [member.described(members.capacity, names) for member in members.by_id.values()]

    async def stories(self) -> dict[str, list[str]]:
        """The last events of each worker that answers."""
        stories: dict[str, list[str]] = {}
        for member in self._members.alive():
            with contextlib.suppress(ray_port.RayError, asyncio.TimeoutError):
                stories[member.worker_id] = await within(FACTS_SECONDS, member.actor.get_story.remote())
        return stories

    async def commands(self) -> list[CommandInfo]:
        """The commands of the pool's interpreters, as the first worker says that answers; none where no
        worker is ready."""
        await self._updates.known.wait()
        for member in self._members.ready():
            with contextlib.suppress(ray_port.RayError, asyncio.TimeoutError):
                commands: list[CommandInfo] = await within(
                    FACTS_SECONDS, member.actor.describe_commands.remote()
                )
                return commands
        return []

    async def recycle(self, worker_id: str | None) -> int:
        """Has one worker, or all, replace their interpreters; how many heard it."""
        await self._updates.known.wait()
        chosen = [member for member in self._members.ready() if worker_id in (None, member.worker_id)]
        return sum(await asyncio.gather(*(self._recycle(member) for member in chosen)))

    async def drained(self, timeout: float) -> bool:
        """Waits until no worker has anything left to do; whether that was within `timeout` seconds."""
        deadline = self._clock() + timeout
        await asyncio.sleep(min(SETTLE_SECONDS, timeout))
        while (left := deadline - self._clock()) > 0:
            idle = [member.actor.until_idle.remote(left) for member in self._members.alive()]
            try:
                return all(await asyncio.gather(*idle))
            except ray_port.RayError:
                await self._updates.table(min(left, DIED_SECONDS))
        return False

    async def _recycle(self, member: Member) -> bool:
        try:
            await within(FACTS_SECONDS, member.actor.recycle.remote())
        except (ray_port.RayError, asyncio.TimeoutError) as error:
            log.warning("worker %s was not told to recycle: %s", member.worker_id, error)
            return False
        return True

    async def _ask_all(self, *, memory: bool) -> list[WorkerFacts]:
        await self._updates.known.wait()
        alive = self._members.alive()
        await asyncio.gather(*(self._ask(member, memory) for member in alive))
        return [member.facts for member in alive if member.facts is not None]

    async def _ask(self, member: Member, memory: bool) -> None:
        try:
            facts = await within(FACTS_SECONDS, member.actor.get_facts.remote(memory))
            self._members.heard(member, facts)
        except (ray_port.RayError, asyncio.TimeoutError) as error:
            log.warning("worker %s does not answer: %s", member.worker_id, error)
