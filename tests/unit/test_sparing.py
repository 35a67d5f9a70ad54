"""Which processes do without the libraries that Ray loads to serialize, and what loads them after all."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import ray
from ray.util import serialization_addons as addons

from snakepit_ray.port import sparing

OURS = "snakepit_ray.worker.actor.WorkerActor"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The contexts for which Ray has registered what it always does; none of the libraries is loaded."""
    contexts: list[Any] = []
    monkeypatch.setattr(addons, "apply", contexts.append)
    for name in sparing.LIBRARIES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return contexts


def process(monkeypatch: pytest.MonkeyPatch, mode: int | None, function: str) -> None:
    monkeypatch.setattr(ray._private.worker.global_worker, "mode", mode)
    context = SimpleNamespace(get_task_function_name=lambda: function)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)


@pytest.mark.parametrize(
    ("mode", "function", "spares"),
    [
        (ray.WORKER_MODE, f"{OURS}.__init__", True),
        (ray.WORKER_MODE, "snakepit_ray.router.actor.RouterActor.__init__", False),
        (ray.WORKER_MODE, "users.own.Actor.__init__", False),
        (ray.WORKER_MODE, "users.task", False),
        (ray.WORKER_MODE, f"{OURS}.execute", False),
        (ray.SCRIPT_MODE, f"{OURS}.__init__", False),
        (None, "", False),
    ],
)
def test_only_the_process_of_a_workers_actor_does_without(
    monkeypatch: pytest.MonkeyPatch, registered: list[Any], mode: int | None, function: str, spares: bool
) -> None:
    process(monkeypatch, mode, function)
    assert sparing.spare_libraries(OURS) is spares
    addons.apply("a context")
    assert registered == ([] if spares else ["a context"])


@pytest.mark.parametrize("name", sparing.LIBRARIES)
def test_where_one_is_loaded_ray_does_what_it_always_does(
    monkeypatch: pytest.MonkeyPatch, registered: list[Any], name: str
) -> None:
    process(monkeypatch, ray.WORKER_MODE, f"{OURS}.__init__")
    assert sparing.spare_libraries(OURS)
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    addons.apply("a context")
    assert registered == ["a context"]


def test_a_ray_without_that_place_loads_what_it_wants_to(
    monkeypatch: pytest.MonkeyPatch, registered: list[Any]
) -> None:
    process(monkeypatch, ray.WORKER_MODE, f"{OURS}.__init__")
    monkeypatch.delattr(addons, "apply")
    assert not sparing.spare_libraries(OURS)


def test_nor_does_one_that_does_not_say_what_it_runs(
    monkeypatch: pytest.MonkeyPatch, registered: list[Any]
) -> None:
    process(monkeypatch, ray.WORKER_MODE, f"{OURS}.__init__")
    monkeypatch.setattr(ray, "get_runtime_context", SimpleNamespace)
    assert not sparing.spare_libraries(OURS)
    addons.apply("a context")
    assert registered == ["a context"]
