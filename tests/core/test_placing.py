"""Whether a worker has room in a cluster, what was asked for and what there is."""

from __future__ import annotations

import math

import pytest

from snakepit_ray.core.pool.placing import Demand, Node, described, labelled, places

SMALL = Node({"CPU": 2.0, "memory": 1e9, "node:10.0.0.1": 1.0}, {"zone": "a"})
LARGE = Node({"CPU": 8.0, "GPU": 2.0, "slot": 1.0}, {"zone": "b"})


@pytest.mark.parametrize(
    ("resources", "labels", "nodes", "expected"),
    [
        ({}, {}, [SMALL], math.inf),
        ({"CPU": 0.0}, {}, [SMALL], math.inf),
        ({}, {}, [], 0),
        ({"CPU": 1.0}, {}, [SMALL, LARGE], 10),
        ({"CPU": 3.0}, {}, [SMALL, LARGE], 2),  # not from two nodes together
        ({"CPU": 100.0}, {}, [SMALL, LARGE], 0),
        ({"GPU": 1.0}, {}, [SMALL], 0),
        ({"GPU": 0.4}, {}, [LARGE], 4),  # two on each GPU
        ({"CPU": 0.1}, {}, [Node({"CPU": 0.3})], 3),  # as floats have it, 0.3 / 0.1 is less than 3
        ({"CPU": 1.0, "slot": 1.0}, {}, [SMALL, LARGE], 1),
        ({"CPU": 1.0}, {"zone": "a"}, [SMALL, LARGE], 2),
        ({"CPU": 1.0}, {"zone": "c"}, [SMALL, LARGE], 0),
        ({}, {"zone": "!a"}, [SMALL], 0),
    ],
)
def test_places(resources: dict, labels: dict, nodes: list, expected: float) -> None:
    assert places(Demand(resources, labels), nodes) == expected


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        ("a", "a", True),
        (None, "a", False),
        ("a", "!a", False),
        (None, "!a", True),
        ("b", "in(a, b)", True),
        ("c", "in(a,b)", False),
        ("c", "!in(a,b)", True),
        ("a", "!in(a,b)", False),
        ("a", "like(x)", True),  # not understood: nobody is refused for it
    ],
)
def test_label_conditions_are_rays(value: str | None, wanted: str, expected: bool) -> None:
    assert labelled(value, wanted) is expected


def test_what_was_asked_for_and_what_there_is() -> None:
    demand = Demand({"CPU": 100.0, "GPU": 1.0}, {"zone": "c"})
    assert str(demand) == "CPU 100, GPU 1, label zone=c"
    assert described([SMALL, LARGE], demand) == (
        "it has 2 nodes with at most CPU 8, GPU 2, labels zone=a, zone=b on one; other resources: slot"
    )
    assert described([SMALL], Demand({"GPU": 1.0})) == (
        "it has 1 node with at most GPU 0 on one; other resources: CPU"
    )
    assert described([], demand) == "it has no node"
