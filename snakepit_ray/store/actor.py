"""The store's actor: one in the cluster, on its head.

- A plain class (`spawn.make` wraps it). What it does is `Store`'s.
- It ends with its cluster, and Ray starts it again where it dies. Every question may come twice: Ray sends
  what was not answered to the next process, and ops make that safe.
- A worker that asks for a lease is found by its actor's name, so that a store that was started again finds
  the workers without being told. A holder is one process of a worker: the actor's name, `#`, and a number.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from snakepit_ray.core.state.asked import Changes, Data, Ended, Get, Question, Watch
from snakepit_ray.core.state.leases import LEASE_SECONDS, Lease
from snakepit_ray.errors import ConfigError, SnakepitError
from snakepit_ray.port import ray_port
from snakepit_ray.port.naming import NAMESPACE
from snakepit_ray.store import place, values
from snakepit_ray.store.disk import Disk
from snakepit_ray.store.settings import MEMORY, SQLITE, Settings
from snakepit_ray.store.store import Store
from snakepit_ray.wire.codec.envelope import portable_buffers

UNKNOWN_SECONDS = 10.0  # before a holder that was not found is looked for again


class StoreActor:
    """The store of a cluster. `first`: of the pool that made it."""

    def __init__(self, first: Settings) -> None:
        self._first = first
        self._opening: asyncio.Task[Store] | None = None
        self._unknown: dict[str, float] = {}  # holders that were not found, and when

    async def open(self) -> None:
        """The store is there. Raises ConfigError where there can be none: this actor is of no use then."""
        await self._opened()

    async def join(self, settings: Settings) -> None:
        """A pool uses the store from now on. Raises ConfigError where it wants another one than this."""
        for name, key in (("session_store", "kind"), ("session_sweep_interval", "sweep_seconds")):
            has, wants = getattr(self._first, key), getattr(settings, key)
            if has != wants:
                raise ConfigError(
                    f"pool {settings.pool!r} wants {name}={wants!r}, and the store of this cluster was made "
                    f"by pool {self._first.pool!r} with {name}={has!r}: one store serves all pools, so give "
                    "both the same",
                    key=name,
                )

    async def ask(self, questions: Sequence[Question]) -> list[Any]:
        """An answer to each; see `Store.ask`."""
        store = await self._opened()
        for question in questions:
            if isinstance(question, Get) and question.holder:
                self._look_for(store, question.holder)
        return [values.opened(answer, _portable) for answer in await store.ask(questions)]

    async def watch(self, watch: Watch) -> Changes | SnakepitError:
        """See `Store.watch`."""
        store = await self._opened()
        answer: Changes | SnakepitError = values.opened(await store.watch(watch), _portable)
        return answer

    async def get_pid(self) -> int:
        """The store's process."""
        return os.getpid()

    # ---- opening ------------------------------------------------------------------------------------------

    async def _opened(self) -> Store:
        if self._opening is None:
            ray_port.when_raylet_dies(lambda: os._exit(1))
            self._opening = ray_port.unowned_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Store:
        kind, sweep_seconds = self._first.kind, self._first.sweep_seconds
        if kind == MEMORY:
            open_after = LEASE_SECONDS if ray_port.was_restarted() else 0.0
            return Store(None, sweep_seconds, open_after=open_after)
        named = kind.removeprefix(SQLITE).removeprefix(":")
        if not named:
            place.sweep(time.time())
        path = Path(named) if named else place.default_path(ray_port.session_id()[0])
        return Store(Disk.open(path, is_named=bool(named)), sweep_seconds)

    def _look_for(self, store: Store, holder: str) -> None:
        """A worker that this process does not know yet: it has its lease with its next question."""
        now = time.monotonic()
        if store.knows(holder) or now - self._unknown.get(holder, -UNKNOWN_SECONDS) < UNKNOWN_SECONDS:
            return
        self._unknown[holder] = now
        ray_port.unowned_task(self._find(store, holder))

    async def _find(self, store: Store, holder: str) -> None:
        try:
            actor = await asyncio.to_thread(ray.get_actor, holder.partition("#")[0], NAMESPACE)
        except ValueError:
            return
        self._unknown.pop(holder, None)
        if not store.knows(holder):
            store.attach(holder, _Worker(store, holder, actor))


class _Worker:
    """A worker's actor as a holder of leases."""

    def __init__(self, store: Store, name: str, actor: Any) -> None:
        self._store = store
        self._name = name
        self._actor = actor

    def let_go(self, leases: Sequence[Lease]) -> None:
        ray_port.unowned_task(self._let_go(list(leases)))

    async def _let_go(self, leases: list[Lease]) -> None:
        released = await self._tell("let_go", leases)
        if released:
            self._store.released(released)

    def sessions_ended(self, ended: Sequence[Ended]) -> None:
        ray_port.unowned_task(self._tell("sessions_ended", list(ended)))

    async def _tell(self, method: str, *args: Any) -> Any:
        """What it answers. A worker that is gone for good is forgotten. One that does not hear loses nothing
        but time."""
        try:
            return await getattr(self._actor, method).remote(*args)
        except ray_port.ActorUnavailable:
            pass
        except ray_port.ActorDied:
            self._store.detach(self._name)
        except ray_port.RayError:
            pass


def _portable(data: Data) -> Data:
    """The value so that it travels without a copy where it is large."""
    return Data(data.json, tuple(portable_buffers(data.buffers)))
