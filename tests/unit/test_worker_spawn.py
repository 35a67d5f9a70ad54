"""How worker actors are created, with a Ray that only counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from snakepit_ray.config import PoolConfig
from snakepit_ray.worker import spawn


class CountingRay:
    """Stands for `ray`, for the class that it makes of an actor's, and for a creation."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def remote(self, *args: Any) -> CountingRay:
        self.count["class" if len(args) == 1 else "actor"] += 1
        return self

    def options(self, **_: Any) -> CountingRay:
        return self


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    ray = CountingRay()
    monkeypatch.setattr(spawn, "ray", ray)
    monkeypatch.setattr(spawn, "actor_id", lambda: "r1")
    monkeypatch.setattr(spawn, "find_worker", lambda worker_id, router_id: (worker_id, router_id))
    spawn._make_class.cache_clear()
    yield ray.count
    spawn._make_class.cache_clear()


def test_the_workers_of_a_pool_are_one_class_that_is_exported_once(counting: Counter[str]) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(
            threads.map(lambda i: spawn.spawn_worker(PoolConfig(name="p", size=64), f"p-{i}"), range(64))
        )
    assert made == [(f"p-{i}", "r1") for i in range(64)]
    assert counting == {"class": 1, "actor": 64}
