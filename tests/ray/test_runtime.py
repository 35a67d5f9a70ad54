"""A user's Runtime: its hooks run at the caller and where the result is read, also in another process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.config import DEFAULT_OPTIONS
from tests.ray.conftest import adapter

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def pool(cluster: None) -> Iterator[snakepit.Pool]:
    settings = {"runtime": "tests.adapters.ruby_like:RubyLike", "adapter": adapter("reports.py:Reports")}
    with snakepit.start(name="hooked", size=1, interpreter=sys.executable, **settings) as pool:
        yield pool


@ray.remote(num_cpus=0)
def read_in_task(value: Any) -> Any:
    return value


def test_hooks_on_the_way_in_and_out(pool: Any) -> None:
    assert pool.execute("process_data", {"data": "  x "}) == {"got": "x"}
    ref = pool.execute.remote("generate_report", {"title": "t"})
    assert ray.get(ref) == {"title": "t", "processed_at": "now"}
    assert ray.get(read_in_task.remote(ref)) == {"title": "t", "processed_at": "now"}


def test_its_timeout_is_the_calls_budget(pool: Any) -> None:
    budgets = {
        command: pool._sender._builder.build(command, args, DEFAULT_OPTIONS)[0].budget_ms
        for command, args in (("generate_report", {"title": "t"}), ("process_data", {"data": "x"}))
    }
    assert budgets == {"generate_report": 120_000, "process_data": 60_000}


def test_an_unknown_command_is_refused_before_anything_is_sent(pool: Any) -> None:
    before = pool.stats().requests
    with pytest.raises(snakepit.UnknownCommand, match="process_data"):
        pool.execute("proces_data", {"data": "x"})
    assert pool.stats().requests == before
