"""The names of a pool's actors in Ray's table of names.

Rules:
- A router is named after its pool, so that two pools of one name cannot run.
- A worker's name carries the id of the router actor that it belongs to. So nobody takes what is left of an
  earlier pool for a worker of this one, and a name that is left blocks no other pool.
"""

from __future__ import annotations

from typing import NamedTuple

from snakepit_ray.core.pool.worker_ids import WorkerId

NAMESPACE = "snakepit"  # every job of Ray has an anonymous namespace of its own
ROUTER_PREFIX = "snakepit:router:"
WORKER_PREFIX = "snakepit:worker:"


class WorkerName(NamedTuple):
    """A worker actor's name in its parts. `router_id`: Ray's id of the router actor; `worker_id`: what users
    see, such as "default-0"."""

    router_id: str
    worker_id: str

    def __str__(self) -> str:
        return f"{WORKER_PREFIX}{self.router_id}:{self.worker_id}"

    @property
    def pool(self) -> str:
        """The pool's name."""
        return WorkerId.parse(self.worker_id).pool


def router_name(pool: str) -> str:
    """The name of a pool's router."""
    return ROUTER_PREFIX + pool


def worker_name(name: str) -> WorkerName | None:
    """The parts of a worker actor's name; None for a name that is none."""
    router_id, _, worker_id = name.removeprefix(WORKER_PREFIX).partition(":")
    try:
        WorkerId.parse(worker_id)
    except ValueError:
        return None
    return WorkerName(router_id, worker_id) if name.startswith(WORKER_PREFIX) else None
