"""How the store's actor is found, and made where there is none.

- It is detached: it lives as long as its cluster, whichever pool has made it.
- It is on the head by a resource that only the head has. Affinity to a node would make it unschedulable for
  good once that node is gone.
- The first question makes it, no start of a pool: a pool without state pays nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.state.asked import StoreStats, Usage
from snakepit_ray.errors import ConfigError, SnakepitError, WorkerStartError
from snakepit_ray.port import control, ray_port, store_actor
from snakepit_ray.port.naming import NAMESPACE
from snakepit_ray.port.ray_port import UNBOUNDED
from snakepit_ray.port.store_actor import STORE, ActorDoor
from snakepit_ray.port.store_link import StoreLost
from snakepit_ray.store.settings import Settings, settings_of

HEAD = {"node:__internal_head__": 0.001}


async def connect(config: PoolConfig) -> ActorDoor:
    """The door of the cluster's store, for a pool with that configuration.

    Raises StoreLost where it is to be tried again, ConfigError where the store cannot be opened or the pool
    wants another one than there is, WorkerStartError where the actor cannot be made."""
    actor = await asyncio.to_thread(_find_or_make, settings_of(config))
    try:
        await store_actor.answer(ray_port.unowned(actor.open))
    except ConfigError:
        ray_port.end(actor)  # so that another setting may be tried
        raise
    except StoreLost as error:
        if "creation task" in str(error):
            cause = control.creation_cause(str(error))
            raise WorkerStartError(f"the session store could not start: {cause}") from None
        raise
    await store_actor.answer(ray_port.unowned(actor.join, settings_of(config)))
    return ActorDoor(actor)


def _find_or_make(settings: Settings) -> Any:
    return _found() or make(settings)


def _found() -> Any:
    """The store's actor, None where there is none."""
    try:
        return ray.get_actor(STORE, NAMESPACE)
    except ValueError:
        return None


def make(settings: Settings) -> Any:
    """The store's actor; another process may make it at the same time."""
    from snakepit_ray.store.actor import StoreActor  # with SQLite and all, which no caller needs

    return (
        ray.remote(StoreActor)
        .options(
            name=STORE,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            resources=HEAD,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=UNBOUNDED,
            enable_task_events=False,
        )
        .remote(settings)
    )


def is_there() -> bool:
    """Whether the cluster has a store."""
    return _found() is not None


def ask_stats(seconds: float) -> StoreStats | SnakepitError | None:
    """What the cluster's store says of itself, None where there is none. Blocks."""
    actor = _found()
    if actor is None:
        return None
    try:
        (stats,) = ray_port.get(actor.ask.remote([Usage()]), seconds, "")
    except SnakepitError as error:
        return error
    found: StoreStats | SnakepitError = stats
    return found


def end() -> None:
    """Ends the store's actor. What it has on the disk stays. Safe to repeat."""
    actor = _found()
    if actor is not None:
        ray_port.end(actor)
