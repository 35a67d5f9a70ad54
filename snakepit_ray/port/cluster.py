"""What the cluster is made of: its CPUs, its nodes, and whether it has room for a pool's workers."""

from __future__ import annotations

import math

import ray

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.placing import Demand, Node, described, places
from snakepit_ray.errors import WorkerStartError

# On the nodes that KubeRay and `ray up` start: where there are such, an autoscaler may bring more of them.
NODE_GROUP = "ray.io/node-group"


def cluster_cpus() -> int:
    """CPUs of the whole cluster, at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def nodes() -> list[Node]:
    """The nodes that are alive."""
    return [Node(node["Resources"], node["Labels"] or {}) for node in ray.nodes() if node["Alive"]]


def node_names() -> dict[str, str]:
    """Ray's name of each node that is alive, by its id."""
    return {node["NodeID"]: node["NodeName"] for node in ray.nodes() if node["Alive"]}


def demand(config: PoolConfig) -> Demand:
    """What one worker of the pool asks Ray for."""
    asked = {"CPU": config.num_cpus, "GPU": config.num_gpus, **config.resources}
    return Demand({name: amount for name, amount in asked.items() if amount}, dict(config.labels))


def room(config: PoolConfig, there: list[Node]) -> float:
    """How many workers of the pool the nodes can hold, by their totals; inf where nothing bounds it, also
    where nodes may be added."""
    return math.inf if _may_grow(there) else places(demand(config), there)


def check_room(config: PoolConfig) -> None:
    """Raises WorkerStartError where no node of the cluster can ever hold a worker of the pool. Where nodes
    may be added that is not known: the start then waits for one within its usual limits."""
    there = nodes()
    if room(config, there) < 1:
        raise no_room(config, there)


def no_room(config: PoolConfig, there: list[Node]) -> WorkerStartError:
    """Says what a worker asks for and what the cluster has."""
    asked = demand(config)
    return WorkerStartError(
        f"the cluster has no room for a worker of pool {config.name!r}, which asks for {asked}: "
        f"{described(there, asked)}; ask for less (num_cpus, num_gpus, resources, labels), or add a node"
    )


def _may_grow(there: list[Node]) -> bool:
    return any(node.labels.get(NODE_GROUP) for node in there)
