"""A worker's name says whose it is; a beginning that nobody asks for is left behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.pool.worker_ids import WorkerId
from snakepit_ray.port.naming import WorkerName, router_name, worker_name
from snakepit_ray.router.beginning import UNASKED_SECONDS, Beginning


@pytest.mark.parametrize("worker_id", ["default-0", "a-b-12", "x.y_z-3"])
def test_a_workers_name_carries_its_router(worker_id: str) -> None:
    name = WorkerName("a1b2", worker_id)
    assert worker_name(str(name)) == name
    assert str(WorkerId(name.pool, WorkerId.parse(worker_id).number)) == worker_id


@given(st.text("abz019-._", min_size=1), st.integers(0, 10**6))
def test_a_workers_id_is_read_as_it_was_written(pool: str, number: int) -> None:
    assert WorkerId.parse(str(WorkerId(pool, number))) == WorkerId(pool, number)


@pytest.mark.parametrize("text", ["", "default", "default-", "-1", "default-x", "default-01", "default-1\n"])
def test_what_is_no_workers_id_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected the id of a worker"):
        WorkerId.parse(text)


@pytest.mark.parametrize("name", [router_name("default"), "default-0", "somebody", "snakepit:worker:broken"])
def test_other_names_are_no_workers(name: str) -> None:
    assert worker_name(name) is None


def test_a_beginning_is_left_when_nobody_asks_any_more() -> None:
    beginning = Beginning(100.0)
    assert beginning.left(100.0) == UNASKED_SECONDS
    beginning.asked(130.0)
    assert beginning.left(130.0 + UNASKED_SECONDS - 1) == 1.0
    assert beginning.left(1000.0) == 0.0
