"""What a process knows of a pool's workers, without Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from snakepit_ray.client.directory import Directory
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.routing.view import SNAPSHOT_SIZE
from snakepit_ray.port.messages import Entry, Snapshot, WorkerCounts

VERSION = 1_700_000_000_000


def entries(count: int) -> list[Entry]:
    return [Entry(f"w-{i}", SimpleNamespace(execute=None), 1, 0, 1) for i in range(count)]


@pytest.mark.parametrize("size", [2, SNAPSHOT_SIZE, SNAPSHOT_SIZE + 1, 64])
def test_a_handle_that_travels_learns_of_all_workers_of_a_large_pool(size: int) -> None:
    """It carries a sample of them. The router sends the table to whoever names another version than its own,
    and a handle takes what is newer than what it has."""
    config = PoolConfig.build(name="w", size=size)
    here = Directory(config, None, Snapshot(VERSION, entries(size), WorkerCounts(size)))
    assert here.workers == size
    travelled = here.snapshot()
    assert len(travelled.entries) == min(size, SNAPSHOT_SIZE)
    there = Directory(config, None, travelled, is_old=True)
    assert (there._view.version == VERSION) == (size <= SNAPSHOT_SIZE), "else nobody would send the rest"
    there._learn(VERSION, entries(size))
    assert there.workers == size
