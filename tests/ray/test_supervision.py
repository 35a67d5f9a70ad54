"""What only Ray can show of supervision: killed worker actors, quarantine, recycling, the circuit."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.testing import MISBEHAVING
from tests.conftest import interpreters, wait_until
from tests.ray.conftest import adapter
from tests.ray.harness import (
    alive,
    executed,
    kill_actor_of,
    kill_router_of,
    occupy,
    start_log,
    stats_or_none,
)

pytestmark = pytest.mark.ray


# ---- worker actors ----------------------------------------------------------------------------------------


def test_a_killed_worker_actor_loses_only_what_ran_and_only_where_it_does_harm(
    start: Any, tmp_path: Path
) -> None:
    pool, log = start_log(start, tmp_path, size=1, queue_timeout=60.0)
    go = tmp_path / "go"
    (once,) = occupy(pool, log, go, 1)
    waiting = [pool.execute.remote("run", {"tag": f"w{i}"}) for i in range(5)]
    wait_until(lambda: pool.stats().waiting == 5, what="five wait")
    spawned = interpreters()
    kill_actor_of(pool)
    killed = time.monotonic()
    wait_until(lambda: not interpreters() & spawned, 30, "its interpreter is gone")
    with pytest.raises(snakepit.WorkerCrashed, match="idempotent") as crash:
        ray.get(once, timeout=30)
    assert crash.value.may_have_started
    assert [answer["tag"] for answer in ray.get(waiting, timeout=30)] == [f"w{i}" for i in range(5)]
    assert time.monotonic() - killed < 20
    assert Counter(executed(log)) == Counter(["busy0", *(f"w{i}" for i in range(5))]), "nothing ran twice"


def test_a_moved_request_outlives_the_worker_that_moved_it(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=2, queue_timeout=30.0)
    session, first, second = pool.session("s"), tmp_path / "first", tmp_path / "second"
    home = session.execute("run", {"tag": "home"})["pid"]
    busy = session.execute.remote("until_file", {"tag": "busy", "path": str(first)})
    wait_until(lambda: "busy" in executed(log), what="its worker is busy")
    moved = session.execute.remote("until_file", {"tag": "moved", "path": str(second)})
    wait_until(lambda: "moved" in executed(log), what="the second one was moved")
    (relay,) = [worker for worker in pool.workers() if worker.pid == home]
    os.kill(relay.actor_pid, signal.SIGKILL)
    with pytest.raises(snakepit.WorkerCrashed):
        ray.get(busy, timeout=30)
    second.touch()
    assert ray.get(moved, timeout=30)["pid"] != home
    assert executed(log) == ["home", "busy", "moved"], "it ran once, and its outcome arrived"


def test_an_idempotent_request_runs_again_after_its_actor_was_killed(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=1)
    go = tmp_path / "go"
    asked = {"tag": "again", "path": str(go)}
    ref = pool.execute.remote("until_file", asked, idempotent=True)
    wait_until(lambda: executed(log) == ["again"], what="it runs")
    kill_actor_of(pool)
    wait_until(lambda: executed(log) == ["again", "again"], 30, "it runs again")
    go.touch()
    assert ray.get(ref, timeout=30)["tag"] == "again"


def test_a_killed_actor_takes_grandchildren_along_and_the_pool_serves_on(start: Any) -> None:
    pool = start(size=2, adapter=adapter("log.py:Log"))
    spawned = pool.execute("spawn")
    gone = (spawned["pid"], spawned["grandchild"])
    each = [psutil.Process(pid).memory_info().rss for pid in gone]
    (victim,) = [worker for worker in pool.workers() if worker.pid == spawned["pid"]]
    assert victim.rss_bytes > 0.9 * sum(each), "it is what worker_max_memory counts"
    os.kill(victim.actor_pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in gone), 30, "interpreter and grandchild gone")
    ready = lambda: {w.actor_pid for w in pool.workers() if w.state == "ready"}  # noqa: E731
    wait_until(lambda: len(ready() - {victim.actor_pid}) == 2, 30, "both serve again")
    (back,) = [worker for worker in pool.workers() if worker.worker_id == victim.worker_id]
    assert tuple(back.epoch) > tuple(victim.epoch)
    assert pool.stats().restarts >= 1


def test_a_strict_session_is_told_that_its_actor_was_lost(start: Any, tmp_path: Path) -> None:
    pool, _ = start_log(start, tmp_path, size=1, affinity="strict_queue")
    session = pool.session("user")
    assert session.execute("remember", {"value": 1})["values"] == [1]
    before = kill_actor_of(pool)
    with pytest.raises(snakepit.SessionWorkerLost) as lost:
        session.execute("remember", {"value": 2}, timeout=30.0)
    assert lost.value.old_epoch[0] == before.epoch[0] < lost.value.new_epoch[0]
    with pytest.raises(snakepit.SessionWorkerLost):
        session.execute("remember", {"value": 2}, timeout=30.0)
    assert session.execute("remember", {"value": 3}, rebind=True)["values"] == [3]
    kill_router_of(pool)
    wait_until(lambda: stats_or_none(pool) is not None, 30, "the router is back")
    assert session.execute("remember", {"value": 4})["values"] == [3, 4], "the new home is remembered"


def test_a_recycled_strict_session_is_told_so_and_a_hint_moves_on(start: Any, tmp_path: Path) -> None:
    pool, _ = start_log(start, tmp_path, size=1)
    strict = {"affinity": "strict_queue"}
    pool.execute_in_session("s", "remember", {"value": 1}, **strict)
    pool.execute_in_session("h", "remember", {"value": 1})
    pool.recycle()
    wait_until(lambda: pool.stats().recycled == 1, 20, "recycled")
    with pytest.raises(snakepit.SessionWorkerLost) as lost:
        pool.execute_in_session("s", "remember", {"value": 2}, **strict)
    assert lost.value.reason == "recycled"
    assert lost.value.new_epoch[1] == lost.value.old_epoch[1] + 1
    assert pool.execute_in_session("h", "remember", {"value": 2})["values"] == [2]


# ---- quarantine, recycling, the circuit -------------------------------------------------------------------


def test_a_pool_goes_on_without_a_worker_that_keeps_dying(start: Any, tmp_path: Path) -> None:
    pool, _ = start_log(start, tmp_path, size=2, queue_timeout=10.0)
    victim = pool.workers()[0]
    stop = threading.Event()
    early = [
        pool.execute.remote("run", {"tag": f"early{i}", "seconds": 0.1}, idempotent=True, retries=20)
        for i in range(30)
    ]

    def murder() -> None:
        """Kills the victim's interpreters before they have served anything."""
        while not stop.is_set():
            for worker in pool.workers():
                if worker.worker_id == victim.worker_id and worker.pid:
                    try:
                        os.kill(worker.pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue

    killer = threading.Thread(target=murder)
    killer.start()
    try:
        quarantined = lambda: any(w.state == "quarantined" for w in pool.workers())  # noqa: E731
        wait_until(quarantined, 30, "the victim is quarantined")
        wait_until(lambda: "1 of 2 workers ready, 1 quarantined" in repr(pool), 30, "the handle was told")
    finally:
        stop.set()
        killer.join()
    # 3 s of work; those that wait at the victim would wait for 30 s there.
    assert {answer["tag"] for answer in ray.get(early, timeout=30)} == {f"early{i}" for i in range(30)}
    answers = [pool.execute("run", {"tag": f"t{i}"}, timeout=10.0) for i in range(20)]
    assert {answer["pid"] for answer in answers} == {w.pid for w in pool.workers() if w.state == "ready"}
    assert len([w for w in pool.workers() if w.state == "ready"]) == 1
    assert any("quarantined for" in line for line in pool.stories()[victim.worker_id])


def test_recycling_a_pool_never_takes_more_than_a_quarter_and_fails_nothing(start: Any) -> None:
    pool = start(size=4)
    before = {w.worker_id: w.pid for w in pool.workers()}
    stop, sent, errors = threading.Event(), Counter(), []

    def call() -> None:
        while not stop.is_set():
            sent["all"] += 1
            try:
                pool.execute("sleep_task", {"duration_ms": 5, "task_number": 1})
            except Exception as error:
                errors.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    most = least = 4
    try:
        assert pool.recycle() == 4
        while pool.stats().recycled < 4:
            most = max(most, len(interpreters()))
            least = min(least, len([w for w in pool.workers() if w.state == "ready"]))
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    after = {w.worker_id: w for w in pool.workers()}
    assert errors == [] and sent["all"] > 20
    assert least == 4, "capacity fell below the pool's size"
    assert most <= 6, "one starts while another retires: never two recycle at once"
    assert not {w.pid for w in after.values()} & set(before.values())
    assert all(w.epoch[1] == 2 for w in after.values())


def test_the_circuit_opens_tries_one_and_closes(start: Any, tmp_path: Path) -> None:
    breaker = {"failures": 3, "window": 30.0, "reset": 5.0}
    pool, log = start_log(start, tmp_path, size=2, circuit_breaker=breaker)
    crashes = [
        lambda: pool.execute("die"),
        lambda: pool.execute_batch("die", [{}]),
        lambda: list(pool.map("die", [{}])),
    ]
    for crash in crashes:
        with pytest.raises(snakepit.WorkerCrashed):
            crash()

    def refused() -> bool:
        try:
            pool.execute("run", {"tag": "x"})
        except snakepit.CircuitOpen as error:
            waits.append(error.retry_after_s)
            return True
        return False

    waits: list[float] = []
    wait_until(refused, 30, "the circuit is open")
    assert all(0 < wait <= 5.0 for wait in waits)
    ran, before = len(executed(log)), pool.stats()
    tags = [{"tag": "refused"}] * 5
    for form, counts in (
        (lambda: pool.execute("run", tags[0]), 1),
        (lambda: pool.execute_batch("run", tags), 5),
        (lambda: list(pool.stream("stream", {"tag": "refused", "count": 1})), 1),
    ):
        with pytest.raises(snakepit.CircuitOpen, match="3 failed within 30 s"):
            form()
        after = pool.stats()
        assert (after.requests - before.requests, after.errors - before.errors) == (counts, counts)
        before = after
    assert len(executed(log)) == ran, "what is refused does not run"
    wait_until(lambda: not refused(), 30, "one was let through and went well")
    # The other worker hears of it a moment later.
    wait_until(lambda: not any(refused() for _ in range(10)), 30, "the circuit is closed for all")


def test_what_an_interpreter_had_not_begun_runs_after_its_actors_death(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=1)
    (before,) = pool.workers()
    os.kill(before.pid, signal.SIGSTOP)
    sent = pool.execute.remote("run", {"tag": "once"})
    wait_until(lambda: pool.stats().busy == 1, what="it was sent")
    os.kill(before.actor_pid, signal.SIGKILL)
    assert ray.get(sent, timeout=30)["pid"] != before.pid
    assert executed(log) == ["once"]


def test_commands_that_raise_do_not_open_the_circuit(start: Any, tmp_path: Path) -> None:
    pool, _ = start_log(start, tmp_path, size=1, circuit_breaker={"failures": 2, "window": 30, "reset": 30})
    for _ in range(5):
        with pytest.raises(ValueError, match="as asked"):
            pool.execute("raises", {"name": "ValueError"})
    assert pool.execute("run", {"tag": "x"})["tag"] == "x"


def test_a_command_that_does_not_stop_is_ended_and_the_pool_goes_on(start: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pool = start(size=1, adapter=MISBEHAVING, adapter_args={"path": str(log)}, cancel_grace=0.3)
    (before,) = pool.workers()
    ref = pool.execute.remote("deaf", {"seconds": 60})
    wait_until(lambda: "deaf" in executed(log), what="it runs")
    ray.cancel(ref)
    assert pool.execute("kept", timeout=20.0)["pid"] != before.pid
    assert pool.stats().restarts == 1
