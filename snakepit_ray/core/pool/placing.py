"""Whether a cluster has room for a pool's workers: what one worker asks for against what each node has.

Rules:
- Only totals are compared. What other work occupies at the moment becomes free again.
- A label condition that is not understood counts as fulfilled: a pool is refused for what is known alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

GPU = "GPU"
OWN = ("memory", "object_store_memory", "node:")  # what Ray itself lists: nobody asked for it by name


@dataclass(frozen=True)
class Node:
    """A node's total resources by Ray's names, and its labels."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Demand:
    """What one worker asks for: `resources` by Ray's names, `labels` as Ray's label selector."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        asked = [f"{name} {amount:g}" for name, amount in self.resources.items()]
        asked += [f"label {name}={value}" for name, value in self.labels.items()]
        return ", ".join(asked) or "nothing"


def places(demand: Demand, nodes: Sequence[Node]) -> float:
    """How many such workers the nodes can hold; inf where one that fits needs no share of anything."""
    return sum(_on(demand, node) for node in nodes)


def _on(demand: Demand, node: Node) -> float:
    if not all(labelled(node.labels.get(name), wanted) for name, wanted in demand.labels.items()):
        return 0
    counts = [_count(amount, node.resources.get(name, 0.0)) for name, amount in demand.resources.items()]
    if 0 < demand.resources.get(GPU, 0.0) < 1:  # a share of a GPU does not span two of them
        whole = math.floor(node.resources.get(GPU, 0.0))
        counts.append(whole * _count(demand.resources[GPU], 1.0))
    return min(counts, default=math.inf)


def _count(amount: float, total: float) -> float:
    return math.floor(total / amount + 1e-9) if amount > 0 else math.inf


def labelled(value: str | None, wanted: str) -> bool:
    """Whether a node's label fulfils a condition: `a`, `!a`, `in(a,b)`, `!in(a,b)`."""
    plain = wanted.removeprefix("!")
    if plain.startswith("in(") and plain.endswith(")"):
        choices = [choice.strip() for choice in plain[3:-1].split(",")]
    elif "(" in plain:
        return True
    else:
        choices = [plain]
    return (value in choices) != (plain != wanted)


def described(nodes: Sequence[Node], demand: Demand) -> str:
    """What the cluster has of what was asked for, the most of one node first."""
    if not nodes:
        return "it has no node"
    most = [_most(nodes, name) for name in demand.resources]
    labels = {
        f"{name}={node.labels[name]}" for node in nodes for name in demand.labels if name in node.labels
    }
    most += [f"labels {', '.join(sorted(labels))}" if labels else "no such label"] if demand.labels else []
    other = sorted({name for node in nodes for name in node.resources if _is_users(name, demand)})
    more = f"; other resources: {', '.join(other)}" if other else ""
    many = f"{len(nodes)} nodes" if len(nodes) > 1 else "1 node"
    return f"it has {many} with at most {', '.join(most)} on one{more}"


def _most(nodes: Sequence[Node], name: str) -> str:
    return f"{name} {max(node.resources.get(name, 0.0) for node in nodes):g}"


def _is_users(name: str, demand: Demand) -> bool:
    return name not in demand.resources and not name.startswith(OWN)
