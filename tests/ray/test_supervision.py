"""What only Ray can show of supervision: actors, routers, drivers and raylets that are killed under load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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
from tests.ray.conftest import adapter, router_pid
from tests.ray.test_lifetimes import alive, driver
from tests.ray.test_load import executed, occupy, start_log

pytestmark = pytest.mark.ray


def kill_actor_of(pool: Any, number: int = 0) -> Any:
    worker = pool.workers()[number]
    os.kill(worker.actor_pid, signal.SIGKILL)
    return worker


def kill_router_of(pool: Any) -> None:
    os.kill(router_pid(pool), signal.SIGKILL)


def stats_or_none(pool: Any) -> Any:
    try:
        return pool.stats()
    except (snakepit.SnakepitError, ray.exceptions.RayError):
        return None


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
    wait_until(lambda: not interpreters() & spawned, 2.0, "its interpreter is gone")
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
    wait_until(lambda: not any(alive(pid) for pid in gone), 10.0, "interpreter and grandchild gone")
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
    wait_until(lambda: stats_or_none(pool) is not None, 10, "the router is back")
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


# ---- the router -------------------------------------------------------------------------------------------


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
    wait_until(lambda: stats_or_none(pool) is not None, 10, "the router answers")
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


# ---- callers that are gone --------------------------------------------------------------------------------


CALLER = """
pool = snakepit.connect({name!r})
refs = [pool.execute.remote("until_cancelled", {{"tag": f"dead{{i}}"}}) for i in range(4)]
print("sent", flush=True)
time.sleep(600)
"""


def test_what_a_dead_driver_asked_for_is_dropped_and_cancelled(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=1, queue_timeout=60.0)
    process = driver(CALLER.format(name=pool.name))
    try:
        assert process.stdout.readline() == "sent\n"
        wait_until(lambda: pool.stats().waiting == 3, 20, "one runs, three wait")
    finally:
        process.kill()
        process.wait()
    killed = time.monotonic()
    wait_until(lambda: "dead0:cancelled" in executed(log) or len(executed(log)) == 2, 5, "the running one")
    wait_until(lambda: (pool.stats().waiting, pool.stats().busy) == (0, 0), 5, "nothing of it is left")
    assert time.monotonic() - killed < 5.0
    ran = executed(log)
    assert len(ran) == 2 and ran[1] == f"{ran[0]}:cancelled", "what waited never ran"
    assert pool.execute("run", {"tag": "next"})["tag"] == "next"


@ray.remote(num_cpus=0, max_retries=0)
def ask_and_wait(pool: Any, path: str) -> None:
    refs = [pool.execute.remote("until_cancelled", {"tag": "task"})]
    Path(path).write_text(str(os.getpid()))
    ray.get(refs)


def test_what_a_dead_task_asked_for_is_cancelled(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=1)
    pid = tmp_path / "pid"
    task = ask_and_wait.remote(pool, str(pid))
    wait_until(lambda: executed(log) == ["task"], 20, "it runs")
    os.kill(int(pid.read_text()), signal.SIGKILL)
    wait_until(lambda: executed(log) == ["task", "task:cancelled"], 5, "it was told to stop")
    with pytest.raises(ray.exceptions.RayError):
        ray.get(task)


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
    wait_until(refused, 5, "the circuit is open")
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
    assert [pool.execute("run", {"tag": "y"})["tag"] for _ in range(10)] == ["y"] * 10


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


# ---- the end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "closed stdout", "drain"])
def test_a_driver_that_ends_takes_its_pool_along(cluster: None, how: str) -> None:
    before = interpreters()
    endings = {
        "closed stdout": "os.close(1)\nprint('into the void')",
        "drain": "ref = pool.execute.remote('sleep_task', {'duration_ms': 400, 'task_number': 7})\n"
        "pool.shutdown(drain=20)\n"
        "sys.exit(0 if ray.get(ref)['task_number'] == 7 else 9)",
    }
    process = driver(
        f"pool = snakepit.start(name='ending-{how.split()[0]}', size=2, interpreter=sys.executable)\n"
        "pool.execute('ping')\n"
        "print(json.dumps([w.pid for w in pool.workers()]), flush=True)\n"
        # In short sleeps: one that begins just after its signal came would be slept to its end.
        + endings.get(how, "while True: time.sleep(0.05)"),
        stderr=subprocess.DEVNULL,
    )
    pids = json.loads(process.stdout.readline())
    if how.startswith("SIG"):
        process.send_signal(getattr(signal, how))
    status = process.wait(30)
    wait_until(lambda: not any(alive(pid) for pid in pids), 10, "its interpreters gone")
    assert interpreters() - before == set()
    if how == "drain":
        assert status == 0


RAYLET = """
import json, os, sys, time
import ray, snakepit_ray as snakepit
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
pool = snakepit.start(name="r", size=2, interpreter=sys.executable, adapter=sys.argv[1])
pids = [w.pid for w in pool.workers()] + [pool.execute("spawn")["grandchild"]]
print(json.dumps(pids), flush=True)
time.sleep(600)
"""


def test_a_killed_raylet_takes_its_interpreters_along() -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", RAYLET, adapter("log.py:Log")],
        env={**env, "RAY_TMPDIR": f"/tmp/sp{os.getpid()}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        pids = json.loads(process.stdout.readline())
        assert len(pids) == 3 and all(alive(pid) for pid in pids)
        (raylet,) = _raylets_of(process.pid)
        os.kill(raylet, signal.SIGKILL)
        wait_until(lambda: not any(alive(pid) for pid in pids), 10, "interpreters and grandchild gone")
    finally:
        process.kill()
        process.wait()
        _end_session(f"/tmp/sp{os.getpid()}")


def _raylets_of(pid: int) -> list[int]:
    import psutil

    children = psutil.Process(pid).children(recursive=True)
    return [child.pid for child in children if child.name() == "raylet"]


def _end_session(folder: str) -> None:
    """Ends what a driver's own cluster left, which lost its head."""
    import shutil

    import psutil

    left = [p for p in psutil.process_iter(["cmdline"]) if folder in " ".join(p.info["cmdline"] or [])]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)
    shutil.rmtree(folder, ignore_errors=True)
