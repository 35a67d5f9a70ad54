"""How a worker actor is made."""

from __future__ import annotations

from typing import Any

import ray

from snakepit_ray.config import PoolConfig
from snakepit_ray.port.naming import NAMESPACE, WorkerName
from snakepit_ray.port.ray_port import UNBOUNDED, actor_id, find_worker


def spawn_worker(config: PoolConfig, worker_id: str) -> Any:
    """Creates a worker actor of the router that calls this. It is detached: it watches the router itself and
    ends when that is gone for good. What is returned is `find_worker`'s handle: a reply that carries the one
    which created the actor leaves 400 bytes in the replying process, where Ray counts it for ever."""
    from snakepit_ray.worker.actor import WorkerActor

    router_id = actor_id()
    strategy = {"spread": "SPREAD", "pack": "DEFAULT"}.get(config.placement, config.placement)
    (
        ray.remote(WorkerActor)
        .options(
            name=str(WorkerName(router_id, worker_id)),
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=config.num_cpus,
            num_gpus=config.num_gpus,
            resources=dict(config.resources),
            label_selector=dict(config.labels) or None,
            scheduling_strategy=strategy,
            max_restarts=-1,
            max_concurrency=UNBOUNDED,
            enable_task_events=False,
        )
        .remote(config, worker_id, router_id)
    )
    return find_worker(worker_id, router_id)
