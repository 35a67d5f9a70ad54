"""A router that is killed comes back with what it knew; what its workers serve goes on meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import snakepit_ray as snakepit
from tests.conftest import wait_until
from tests.ray.conftest import adapter, router_pid
from tests.ray.harness import (
    driver,
    kill_router_of,
    start_log,
    stats_or_none,
)

pytestmark = pytest.mark.ray


def test_a_killed_router_comes_back_with_what_it_knew(start: Any, tmp_path: Path) -> None:
    pool, _ = start_log(start, tmp_path, size=3, affinity="strict_queue")
    homes = {f"s{i}": pool.session(f"s{i}").execute("remember", {"value": 1})["pid"] for i in range(12)}
    pool.scale(2)
    kept = {name: home for name, home in homes.items() if home in {w.pid for w in pool.workers()}}
    before, workers = pool.stats(), {w.worker_id: w.pid for w in pool.workers()}
    assert before.workers == 2 and kept

    kill_router_of(pool)
    killed = time.monotonic()
    answers = [pool.execute("run", {"tag": "x"})["tag"] for _ in range(20)]
    flowing = time.monotonic() - killed
    wait_until(lambda: stats_or_none(pool) is not None, 30, "the router answers")
    back = time.monotonic() - killed

    after = pool.stats()
    assert answers == ["x"] * 20 and flowing < 2.0, "requests flowed without it"
    assert back < 5.0
    assert {w.worker_id: w.pid for w in pool.workers()} == workers, "no interpreter was replaced for it"
    assert after.workers == 2, "the size that it was scaled to"
    assert after.requests == before.requests + 20, "what leavers had counted is not forgotten"
    assert after.sessions == len(kept)
    for name, home in kept.items():
        assert pool.session(name).execute("remember", {"value": 2})["pid"] == home
    fresh = start(size=1, name="another", adapter=adapter("log.py:Log"))  # the cluster is well
    assert fresh.execute("run", {"tag": "y"})["tag"] == "y"
    pool.scale(3)
    names = {w.worker_id for w in pool.workers()}
    assert len(names) == 3 and f"{pool.name}-3" in names, "a name is never given twice"


def test_nothing_that_counts_is_forgotten_when_router_and_workers_die_together(start: Any) -> None:
    """Counters began anew, and a pool that had been scaled had the size that it was started with."""
    pool = start(size=1)
    pool.scale(2)
    wait_until(lambda: pool.stats().available == 2, 30, "two serve")
    before = {worker.worker_id: worker for worker in pool.workers()}
    for number in range(20):
        pool.execute("add", {"a": number, "b": 1})
    with pytest.raises(snakepit.UnknownCommand):
        pool.execute("nothing")
    counted = pool.stats()
    assert (counted.requests, counted.errors, counted.restarts) == (21, 1, 0)
    for pid in (router_pid(pool), *(worker.actor_pid for worker in before.values())):
        os.kill(pid, signal.SIGKILL)

    def back() -> Any:
        stats = stats_or_none(pool)
        return stats is not None and stats.available == 2

    wait_until(back, 30, "all are back")
    after = {worker.worker_id: worker for worker in pool.workers()}
    assert set(after) == set(before)
    assert all(tuple(after[name].epoch) > tuple(before[name].epoch) for name in before)
    stats = pool.stats()
    assert (stats.requests, stats.errors, stats.restarts) == (21, 1, 2)
    assert pool.execute("add", {"a": 1, "b": 1}) == {"result": 2}


def test_strict_sessions_are_told_when_router_and_worker_die_together(start: Any, tmp_path: Path) -> None:
    """Also those whose call comes to a worker that is not theirs, from a handle that does not know it."""
    pool, _ = start_log(start, tmp_path, size=2, affinity="strict_queue")
    names = [f"s{i}" for i in range(8)]
    homes = {name: pool.session(name).execute("remember", {"value": 1})["pid"] for name in names}
    victim = pool.workers()[0]
    lost = [name for name in names if homes[name] == victim.pid]
    assert 0 < len(lost) < len(names)
    router = router_pid(pool)
    os.kill(victim.actor_pid, signal.SIGKILL)
    os.kill(router, signal.SIGKILL)
    stranger = driver(STRANGER.format(name=pool.name, names=names))
    told = {name: _told(pool, name) for name in names}
    elsewhere = json.loads(stranger.stdout.readline())
    assert stranger.wait(30) == 0
    expected = {name: "SessionWorkerLost" if name in lost else [1, 2] for name in names}
    assert {name: answer if name in lost else answer[:2] for name, answer in told.items()} == expected
    assert {name: answer for name, answer in elsewhere.items() if name in lost} == dict.fromkeys(
        lost, "SessionWorkerLost"
    )
    back = {name: pool.session(name).execute("remember", {"value": 3}, rebind=True) for name in lost}
    assert {name: answer["values"] for name, answer in back.items()} == {name: [3] for name in lost}
    assert _told(pool, lost[0]) == [3, 2], "the new home is remembered"


STRANGER = """
pool, told = snakepit.connect({name!r}), {{}}
for name in {names!r}:
    try:
        told[name] = pool.session(name).execute("remember", {{"value": 2}}, timeout=30.0)["values"]
    except snakepit.SnakepitError as error:
        told[name] = type(error).__name__
print(json.dumps(told), flush=True)
"""


def _told(pool: Any, name: str) -> Any:
    """The values that the session has, or the name of the error that it gets."""
    try:
        return pool.session(name).execute("remember", {"value": 2}, timeout=30.0)["values"]
    except snakepit.SnakepitError as error:
        return type(error).__name__
