"""How a pool's router actor is made."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import ActorAlreadyExistsError

from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import PoolExists
from snakepit_ray.port.naming import NAMESPACE, router_name
from snakepit_ray.port.ray_port import UNBOUNDED


def spawn_router(config: PoolConfig, detached: bool) -> Any:
    """Creates the pool's router, owned by this process unless `detached`. Raises PoolExists."""
    from snakepit_ray.router.actor import RouterActor

    options: dict[str, Any] = {"lifetime": "detached"} if detached else {}
    try:
        return (
            ray.remote(RouterActor)
            .options(
                name=router_name(config.name),
                namespace=NAMESPACE,
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=UNBOUNDED,
                enable_task_events=False,
                **options,
            )
            .remote(config, detached)
        )
    except ActorAlreadyExistsError as error:
        raise PoolExists.named(config.name) from error
