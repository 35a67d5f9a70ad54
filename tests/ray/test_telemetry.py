"""A handler in a driver hears what happens in the pool, with numbers that add up."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray import telemetry
from tests.conftest import wait_until

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def pool(cluster: None) -> Iterator[snakepit.Pool]:
    with snakepit.start(name="heard", size=2, interpreter=sys.executable, max_queue_size=40) as one:
        yield one


class Heard:
    """What a handler was told."""

    def __init__(self, pattern: str) -> None:
        self.events: list[tuple[str, Any, Any]] = []
        self.handle = telemetry.attach(pattern, lambda *event: self.events.append(event))
        assert self.handle.connected(30)

    def sum(self, event: str, number: str) -> float:
        return sum(measured[number] for name, measured, _ in list(self.events) if name == event)

    @property
    def counts(self) -> Counter[str]:
        return Counter(name for name, *_ in list(self.events))


def settled(pool: snakepit.Pool) -> Any:
    wait_until(lambda: (stats := pool.stats()).busy == stats.waiting == 0, 30, "a pool at rest")
    return pool.stats()


def test_the_sums_of_the_events_are_the_pools_numbers(pool: snakepit.Pool) -> None:
    before = settled(pool)
    heard = Heard("request.*")
    pool.execute("add", {"a": 1, "b": 2})
    list(pool.map("add", [{"a": i, "b": 1} for i in range(1_000)]))
    items = [{"a": i, "b": 1 if i % 10 else "x"} for i in range(100)]
    pool.execute_batch("add", items, return_exceptions=True)
    with pytest.raises(snakepit.CommandError):
        pool.execute("error_demo", {"error_type": "value"})
    list(pool.stream("stream_data", {"count": 3}))
    stream = pool.stream("infinite_stream", {"delay_ms": 1})
    next(stream)
    stream.close()
    future = pool.submit("sleep_task", {"duration_ms": 60_000, "task_number": 1})
    wait_until(lambda: pool.stats().busy == 1, 30, "it runs")
    future.cancel()

    async def calls() -> None:
        await asyncio.gather(*(pool.call("add", {"a": i, "b": 1}) for i in range(50)))

    asyncio.run(calls())
    after = settled(pool)
    asked = 1 + 1_000 + 100 + 1 + 1 + 1 + 1 + 50
    assert after.requests - before.requests == asked
    assert after.errors - before.errors == 10 + 1
    assert after.cancelled - before.cancelled == 2

    def sums() -> tuple[float, float, float]:
        items = heard.sum("request.executed", "items") + heard.sum("request.cancelled", "items")
        return items, heard.sum("request.executed", "failed"), heard.sum("request.cancelled", "items")

    wait_until(lambda: sums() == (asked, 11, 2), 20, f"the sums {sums()}")
    heard.handle.detach()


def test_what_happens_to_workers_and_to_the_pool_is_heard(start: Callable[..., snakepit.Pool]) -> None:
    pool = start(size=2)
    heard = Heard("*")
    pool.session("alice").execute("ping", affinity="strict_queue")
    pid = pool.execute("get_worker_info")["worker_pid"]
    ray.get(_kill.remote(pid))
    wait_until(lambda: heard.counts["worker.restarted"], 30, "a restart")
    pool.recycle()
    wait_until(lambda: heard.counts["worker.recycled"] == 2, 60, "two recycled")
    (crash,) = [about for name, _, about in heard.events if name == "worker.crashed"]
    assert (crash["reason"], crash["signal"], crash["pool"]) == ("crash_signal", "SIGKILL", pool.name)
    reasons = {about["reason"] for name, _, about in heard.events if name == "worker.recycled"}
    assert reasons == {"recycle_manual"}
    assert heard.counts["affinity.assigned"] == 1
    heard.handle.detach()


def test_nobody_gathers_events_that_nobody_hears(pool: snakepit.Pool) -> None:
    heard = Heard("request.executed")
    heard.handle.detach()
    heard.handle.flush(10)
    pool.execute("ping")
    settled(pool)
    assert heard.events == []


@ray.remote(num_cpus=0)
def _kill(pid: int) -> None:
    import os
    import signal

    os.kill(pid, signal.SIGKILL)
