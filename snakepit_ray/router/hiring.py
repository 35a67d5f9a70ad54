"""How worker actors come into being: a few at a time, so that no machine starts a hundred processes at once.

A worker's turn begins with the creation of its actor and lasts until its interpreter serves or could not
start. At most `startup_batch_size` workers for each node of the cluster have their turn at once. Limits of
time count within a turn: a pool takes as long to start as its workers take one batch after another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import WorkerStartError
from snakepit_ray.port import cluster, ray_port
from snakepit_ray.process.awaiting import happens
from snakepit_ray.router.members import Member, Members
from snakepit_ray.worker import spawn

ARRIVAL_SECONDS = 60.0  # for Ray to place and start an actor; startup_timeout where that is longer
log = logging.getLogger("snakepit_ray.router")


class Hiring:
    """Creates the worker actors of one pool.

    `created` hears of each that Ray took, `failed` of each that Ray refused (its `error` says why), `changed`
    when one is given up that may still come."""

    def __init__(
        self,
        config: PoolConfig,
        members: Members,
        created: Callable[[Member], None],
        failed: Callable[[Member], None],
        changed: Callable[[], None],
    ) -> None:
        self.closed = False
        self._config = config
        self._members = members
        self._created = created
        self._failed = failed
        self._changed = changed
        self._turns = asyncio.Semaphore(config.startup_batch_size)
        self._tasks: set[asyncio.Task[None]] = set()
        self._creating: dict[str, asyncio.Task[Any]] = {}

    def hire(self, worker_ids: list[str]) -> None:
        """Enters these workers into the table and creates their actors, turn by turn."""
        if not worker_ids or self.closed:
            return
        there = cluster.nodes()
        if not self._tasks:
            self._turns = asyncio.Semaphore(self._config.startup_batch_size * max(1, len(there)))
        room = cluster.room(self._config, there) - len(self._members.by_id)
        for index, worker_id in enumerate(worker_ids):
            member = Member(worker_id)
            self._members.add(member)
            if index >= room:
                self._give_up(member, cluster.no_room(self._config, there))
            task = ray_port.unowned_task(self._bring(member))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _bring(self, member: Member) -> None:
        async with self._turns:
            if not self._is_wanted(member):
                return
            try:
                member.actor = await asyncio.shield(self._create(member))
            except Exception as error:  # noqa: BLE001 - kept: `start_error` shows it
                member.error = error
                self._failed(member)
                return
            if not self._is_wanted(member):
                ray_port.end(member.actor)
                return
            if member.state == "expected":
                member.state = "spawned"
            self._created(member)
            if not member.overdue:
                await self._until_it_serves(member)

    def _create(self, member: Member) -> asyncio.Task[Any]:
        """In a thread: Ray's answer takes long while a machine is busy with starts."""
        creating = asyncio.ensure_future(
            asyncio.to_thread(spawn.spawn_worker, self._config, member.worker_id)
        )
        self._creating[member.worker_id] = creating
        creating.add_done_callback(lambda _: self._creating.pop(member.worker_id, None))
        return creating

    async def _until_it_serves(self, member: Member) -> None:
        limit = max(ARRIVAL_SECONDS, self._config.startup_timeout)
        if not await happens(member.here, limit):
            asked = cluster.demand(self._config)
            error = WorkerStartError(
                f"Ray did not start the actor of worker {member.worker_id}, which asks for {asked}, within "
                f"{limit:g} s: other work may occupy the cluster; free what it occupies, or raise "
                "startup_timeout"
            )
            self._give_up(member, error)
            return
        await happens(member.settled, limit + self._config.startup_timeout)

    def _is_wanted(self, member: Member) -> bool:
        return not self.closed and self._members.by_id.get(member.worker_id) is member

    def _give_up(self, member: Member, error: Exception) -> None:
        """Nobody waits for it any more; it joins when it comes."""
        log.warning("worker %s has not come: %s", member.worker_id, error)
        member.overdue, member.error = True, error
        self._changed()

    async def close(self) -> None:
        """Creates no further actor. Those whose creation is under way are known when it returns."""
        self.closed = True
        creating = dict(self._creating)
        for task in self._tasks:
            task.cancel()
        actors = await asyncio.gather(*creating.values(), return_exceptions=True)
        for worker_id, actor in zip(creating, actors, strict=True):
            member = self._members.by_id.get(worker_id)
            if member is not None and not isinstance(actor, BaseException):
                member.actor = actor
