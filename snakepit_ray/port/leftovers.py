"""What is left of pools whose router is gone: worker actors that wait for room.

A worker that runs sees the end of its router and ends itself. One that waits for room cannot see anything,
and Ray keeps it because it is detached. So whoever meets the name of such a worker ends it: the start of a
pool of that name, `snakepit.shutdown`, `snakepit-ray down`, and the workers of the same router that do run.
"""

from __future__ import annotations

import contextlib

from snakepit_ray.errors import PoolNotFound
from snakepit_ray.port import ray_port
from snakepit_ray.port.naming import WorkerName


def reap(pool: str | None = None, *, router_id: str | None = None) -> list[str]:
    """Ends the waiting workers of routers that are gone: of one pool, of one router, or all. Their ids."""
    left = find(pool, router_id)
    for worker in left:
        with contextlib.suppress(ValueError):  # it has ended meanwhile
            ray_port.end(ray_port.find_worker(worker.worker_id, worker.router_id))
    return [worker.worker_id for worker in left]


def find(pool: str | None = None, router_id: str | None = None) -> list[WorkerName]:
    """The waiting workers of routers that are gone: of one pool, of one router, or all."""
    named = [
        worker
        for worker in ray_port.workers_named()
        if pool in (None, worker.pool) and router_id in (None, worker.router_id)
    ]
    left = orphans(named, {worker.pool: _router_of(worker.pool) for worker in named})
    running = ray_port.running_actors() if left else set()
    return [worker for worker in left if str(worker) not in running]


def orphans(named: list[WorkerName], routers: dict[str, str | None]) -> list[WorkerName]:
    """Those whose router is none of `routers`, which has the id of each pool's router, None where it has
    none. The routers must have been looked up after the workers: a name is given to one router after
    another."""
    return [worker for worker in named if routers[worker.pool] != worker.router_id]


def _router_of(pool: str) -> str | None:
    try:
        return ray_port.id_of(ray_port.find_router(pool))
    except PoolNotFound:
        return None
