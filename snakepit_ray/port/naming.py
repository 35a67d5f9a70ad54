"""The ids of workers, and the names of a pool's actors in Ray's table of names.

Rules:
- A worker's id is its pool's name and a number: later workers have greater ones.
- A router is named after its pool, so that two pools of one name cannot run.
- A worker's name carries the id of the router actor that it belongs to. So nobody takes what is left of an
  earlier pool for a worker of this one, and a name that is left blocks no other pool.
"""

from __future__ import annotations

import re
from typing import NamedTuple

NAMESPACE = "snakepit"  # every job of Ray has an anonymous namespace of its own
ROUTER_PREFIX = "snakepit:router:"
WORKER_PREFIX = "snakepit:worker:"
_NUMBER = re.compile(r"0|[1-9][0-9]*")


class WorkerId(NamedTuple):
    """A worker's id in its parts; as a string it is what users see, such as "default-0"."""

    pool: str
    number: int

    def __str__(self) -> str:
        return f"{self.pool}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> WorkerId:
        """The id in its parts. Raises ValueError for what is none."""
        pool, _, number = text.rpartition("-")
        if not pool or not _NUMBER.fullmatch(number):
            raise ValueError(f"got {text!r}, expected the id of a worker, such as 'default-0'")
        return cls(pool, int(number))


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
        return pool_of(self.worker_id)


def router_name(pool: str) -> str:
    """The name of a pool's router."""
    return ROUTER_PREFIX + pool


def pool_of(worker_id: str) -> str:
    """The pool's name in a worker's id. Raises ValueError for what is none."""
    return WorkerId.parse(worker_id).pool


def number_of(worker_id: str) -> int:
    """The number in a worker's id. Raises ValueError for what is none."""
    return WorkerId.parse(worker_id).number


def worker_name(name: str) -> WorkerName | None:
    """The parts of a worker actor's name; None for a name that is none."""
    router_id, _, worker_id = name.removeprefix(WORKER_PREFIX).partition(":")
    try:
        WorkerId.parse(worker_id)
    except ValueError:
        return None
    return WorkerName(router_id, worker_id) if name.startswith(WORKER_PREFIX) else None
