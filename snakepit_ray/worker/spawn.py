"""How a worker actor is made."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import ray

from snakepit_ray.config import PoolConfig
from snakepit_ray.port.naming import NAMESPACE, WorkerName
from snakepit_ray.port.ray_port import UNBOUNDED, actor_id, find_worker

_making = threading.Lock()  # the first workers of a pool are created at once, in threads


@cache
def _make_class() -> Any:
    """Ray's own form of WorkerActor. Whoever makes another one for each worker pays for its export each time:
    Ray looks at every method, pickles the class by value, disassembles what it has pickled and sends it to
    the head, for 20 ms of processor time."""
    from snakepit_ray.worker.actor import WorkerActor

    return ray.remote(WorkerActor)


def spawn_worker(config: PoolConfig, worker_id: str) -> Any:
    """Creates a worker actor of the router that calls this. It is detached: it watches the router itself and
    ends when that is gone for good. What is returned is `find_worker`'s handle: a reply that carries the one
    which created the actor leaves 400 bytes in the replying process, where Ray counts it for ever."""
    router_id = actor_id()
    strategy = {"spread": "SPREAD", "pack": "DEFAULT"}.get(config.placement, config.placement)
    with _making:
        actor_class = _make_class()
    (
        actor_class.options(
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
        ).remote(config, worker_id, router_id)
    )
    return find_worker(worker_id, router_id)
