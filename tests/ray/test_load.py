"""A pool under load: waiting, refusing, cancelling, spreading, growing and shrinking. The children's own logs
say what ran."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.port import ray_port
from tests.conftest import wait_until
from tests.ray.conftest import LANE, Logged, adapter
from tests.ray.harness import LOG, executed, occupy, start_log

pytestmark = pytest.mark.ray


def test_saturation_queue_timeout_and_deadline_never_execute(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=1, max_queue_size=2, queue_timeout=0.5)
    go = tmp_path / "go"
    busy = occupy(pool, log, go, 1)
    late = [pool.execute.remote("run", {"tag": f"late{i}"}) for i in range(2)]
    wait_until(lambda: pool.stats().waiting == 2, what="two wait")
    with pytest.raises(snakepit.PoolSaturated, match=r"pool\.map"):
        ray.get(pool.execute.remote("run", {"tag": "refused"}))
    for ref in late:
        with pytest.raises(snakepit.QueueTimeout):
            ray.get(ref)
    with pytest.raises(snakepit.DeadlineExceeded):
        pool.execute("run", {"tag": "overdue"}, timeout=0.2)
    go.touch()
    ray.get(busy)
    assert pool.execute("run", {"tag": "after"})["tag"] == "after"
    assert executed(log) == ["busy0", "after"]
    stats = pool.stats()
    assert (stats.saturated, stats.queue_timeouts, stats.waiting, stats.busy) == (1, 2, 0, 0)


def test_a_handle_says_what_runs_and_waits_without_asking(logged_2: Logged, tmp_path: Path) -> None:
    pool, go = logged_2.pool, tmp_path / "go"
    refs = [pool.execute.remote("until_file", {"tag": f"t{i}", "path": str(go)}) for i in range(6)]
    full = f"<Pool {pool.name!r} 2 of 2 workers ready, 2 running, 4 waiting>"
    wait_until(lambda: repr(pool) == full, 20, "the workers' reports have come to the handle")
    go.touch()
    ray.get(refs)
    idle = f"<Pool {pool.name!r} 2 of 2 workers ready>"
    wait_until(lambda: repr(pool) == idle, 20, "and that nothing waits any more")


def test_a_full_worker_hands_over_to_one_with_room(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=2, max_queue_size=20)
    go = tmp_path / "go"
    refs = [pool.execute.remote("until_file", {"tag": f"t{i}", "path": str(go)}) for i in range(22)]
    full = [(1, 10)] * 2
    shares = lambda: [(worker.running, worker.waiting) for worker in pool.workers()]  # noqa: E731
    # Twenty looks in a row: one that is on its way to the other worker leaves its place for a moment.
    settled = lambda: all(shares() == full for _ in range(20))  # noqa: E731
    wait_until(settled, what="both shares full, wherever the callers sent them")
    with pytest.raises(snakepit.PoolSaturated):
        pool.execute("run", {"tag": "refused"})
    go.touch()
    assert {answer["tag"] for answer in ray.get(refs)} == {f"t{i}" for i in range(22)}
    assert Counter(executed(log)) == Counter(f"t{i}" for i in range(22)), "each exactly once"


def test_cancel_while_waiting_and_while_running(logged_1: Logged) -> None:
    pool, log = logged_1
    running = pool.execute.remote("until_cancelled", {"tag": "running"})
    wait_until(lambda: executed(log) == ["running"], what="it runs")
    waiting = pool.execute.remote("run", {"tag": "waiting"})
    wait_until(lambda: pool.stats().waiting == 1, what="one waits")
    ray.cancel(waiting)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(waiting)
    ray.cancel(running)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(running)
    wait_until(lambda: executed(log) == ["running", "running:cancelled"], what="the command was told")
    pool.execute("run", {"tag": "next"})
    assert executed(log) == ["running", "running:cancelled", "next"]


def test_a_deadline_stops_the_running_command(logged_1: Logged) -> None:
    pool, log = logged_1
    began = time.monotonic()
    with pytest.raises(snakepit.DeadlineExceeded) as overdue:
        pool.execute("until_cancelled", {"tag": "a"}, timeout=0.5)
    assert time.monotonic() - began > 0.4
    assert overdue.value.where == "running"
    wait_until(lambda: executed(log) == ["a", "a:cancelled"], what="the command was told")


def test_one_long_request_does_not_slow_the_others(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=3)
    go = tmp_path / "go"
    (long,) = occupy(pool, log, go, 1)
    waits = [pool.execute("run", {"tag": "x"}, info=True).waited_s for _ in range(60)]
    refs = [pool.execute.remote("run", {"tag": "y"}, info=True) for _ in range(60)]
    pids = Counter(reply.pid for reply in ray.get(refs))
    go.touch()
    blocked = ray.get(long)["pid"]
    assert blocked not in pids and len(pids) == 2, "they ran beside the long one"
    # Those that were sent to the busy worker waited for the match, not for the long request.
    assert sorted(waits)[len(waits) // 2] < 0.5


def test_waiters_move_to_free_workers_and_run_once(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=4)
    tags = [f"t{i}" for i in range(80)]
    answers = ray.get([pool.execute.remote("run", {"tag": tag, "seconds": 0.05}) for tag in tags])
    assert [answer["tag"] for answer in answers] == tags
    assert Counter(executed(log)) == Counter(tags)
    spread = Counter(answer["pid"] for answer in answers)
    assert len(spread) == 4 and min(spread.values()) >= 10


def test_the_error_of_a_moved_request_comes_as_its_own_type(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=2)
    go = tmp_path / "go"
    (busy,) = occupy(pool, log, go, 1)
    for ref in [pool.execute.remote("raises", {"name": "ZeroDivisionError"}) for _ in range(20)]:
        with pytest.raises(ZeroDivisionError) as raised:
            ray.get(ref)
        error = getattr(raised.value, "cause", raised.value)
        assert isinstance(error, snakepit.CommandError)
        assert (error.remote_type, error.language) == ("ZeroDivisionError", "python")
    go.touch()
    ray.get(busy)
    stats = pool.stats()
    assert stats.delegated > 0, "some of them moved"
    assert (stats.requests, stats.errors) == (21, 20)
    workers = [ray_port.find_worker(worker.worker_id) for worker in pool.workers()]
    by_lane = sum(
        probed["moved_by_lane"] for probed in ray.get([worker.probe.remote() for worker in workers])
    )
    assert by_lane >= stats.delegated if LANE == "auto" else by_lane == 0, "they are on one node"


def test_hint_prefers_the_sessions_worker_and_runs_elsewhere_when_it_is_busy(
    start: Any, tmp_path: Path
) -> None:
    pool, log = start_log(start, tmp_path, size=2)
    go = tmp_path / "go"
    session = pool.session("user")
    home = session.execute("run", {"tag": "first"})["pid"]
    assert {session.execute("run", {"tag": "again"})["pid"] for _ in range(10)} == {home}
    busy = session.execute.remote("until_file", {"tag": "busy", "path": str(go)})
    wait_until(lambda: "busy" in executed(log), what="its worker is busy")
    assert session.execute("run", {"tag": "elsewhere"})["pid"] != home
    assert not ray.wait([busy], timeout=0)[0], "its worker was busy all the time"
    go.touch()
    assert ray.get(busy)["pid"] == home


def test_strict_queue_waits_for_the_sessions_worker(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=2, affinity="strict_queue")
    go = tmp_path / "go"
    session = pool.session("user")
    busy = session.execute.remote("until_file", {"tag": "busy", "path": str(go)})
    wait_until(lambda: "busy" in executed(log), what="its worker is busy")
    waiting = session.execute.remote("run", {"tag": "waits"})
    done, _ = ray.wait([waiting], timeout=0.5)
    assert not done and "waits" not in executed(log)
    go.touch()
    assert ray.get(waiting)["pid"] == ray.get(busy)["pid"]


def test_a_session_that_fails_fast_waits_for_nothing_in_any_form(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=2, affinity="strict_fail_fast")
    go = tmp_path / "go"
    session = pool.session("user")
    firsts = [session.execute.remote("until_file", {"tag": f"{n}", "path": str(go)}) for n in range(20)]
    ended, running = ray.wait(firsts, num_returns=19)
    assert len(running) == 1 and len(executed(log)) == 1
    for ref in ended:
        with pytest.raises(snakepit.WorkerBusy, match="1 of 1 slots taken"):
            ray.get(ref)
    waits = pool.session("user", affinity="strict_queue")
    with pytest.raises(snakepit.WorkerBusy):
        waits.execute("run", {"tag": "busy"}, affinity="strict_fail_fast")
    late = pickle.loads(pickle.dumps(waits)).execute.remote("run", {"tag": "late"})
    for form in (session.execute, partial(asked_in_a_loop, session), partial(streamed, session)):
        with pytest.raises(snakepit.WorkerBusy):
            form("run", {"tag": "busy"})
    elsewhere = pool.execute("run", {"tag": "other"})["pid"]
    go.touch()
    assert ray.get(running[0])["pid"] != elsewhere
    assert ray.get(late)["pid"] == ray.get(running[0])["pid"]
    assert executed(log)[1:] == ["other", "late"]


def asked_in_a_loop(session: Any, command: str, args: dict[str, Any]) -> Any:
    async def both() -> Any:
        return await asyncio.gather(session.call(command, args), session.call(command, args))

    return asyncio.run(both())


def streamed(session: Any, command: str, args: dict[str, Any]) -> Any:
    return list(session.stream(command, args))


def test_a_strict_session_is_told_that_its_interpreter_was_lost(start: Any, tmp_path: Path) -> None:
    pool, _ = start_log(start, tmp_path, size=1, affinity="strict_queue")
    session = pool.session("user")
    session.execute("remember", {"value": 1})
    with pytest.raises(snakepit.WorkerCrashed) as crash:
        pool.execute("die")
    assert crash.value.exit_code == 7 and "about to die" in crash.value.stderr_tail
    with pytest.raises(snakepit.SessionWorkerLost) as lost:
        session.execute("remember", {"value": 2})
    assert lost.value.new_epoch[1] == lost.value.old_epoch[1] + 1
    assert session.execute("remember", {"value": 3}, rebind=True)["values"] == [3]
    assert session.execute("remember", {"value": 4})["values"] == [3, 4]


def test_a_strict_session_of_a_worker_that_left_is_told_and_a_hint_moves_on(
    start: Any, tmp_path: Path
) -> None:
    pool, _ = start_log(start, tmp_path, size=2)
    homes = {f"s{i}": pool.session(f"s{i}").execute("remember", {"value": 1})["pid"] for i in range(8)}
    strict = {
        f"t{i}": pool.execute_in_session(f"t{i}", "remember", {"value": 1}, affinity="strict_queue")
        for i in range(8)
    }
    pool.scale(1)
    (stays,) = {worker.pid for worker in pool.workers()}
    assert len(set(homes.values())) == 2, "the sessions were on both workers"
    for name, home in homes.items():
        answer = pool.session(name).execute("remember", {"value": 2})
        assert answer["pid"] == stays
        assert answer["values"] == ([1, 2] if home == stays else [2])
    left = [name for name, answer in strict.items() if answer["pid"] != stays]
    assert left, "some strict session was on the leaver"
    for name in left:
        with pytest.raises(snakepit.SessionWorkerLost, match="rebind"):
            pool.execute_in_session(name, "remember", {"value": 2}, affinity="strict_queue")
        again = {"affinity": "strict_queue", "rebind": True}
        assert pool.execute_in_session(name, "remember", {"value": 3}, **again)["values"] == [3]


def test_scaling_both_ways_under_load_fails_nothing(start: Any, tmp_path: Path) -> None:
    pool, log = start_log(start, tmp_path, size=2, max_queue_size=5000, queue_timeout=60.0)
    sent: list[str] = []
    answered: list[str] = []
    errors: list[Exception] = []
    stop = threading.Event()

    def call(name: str) -> None:
        number = 0
        while not stop.is_set():
            tag = f"{name}-{number}"
            number += 1
            sent.append(tag)
            try:
                answered.append(pool.execute("run", {"tag": tag, "seconds": 0.01})["tag"])
            except Exception as error:
                errors.append(error)

    callers = [threading.Thread(target=call, args=(f"c{i}",)) for i in range(6)]
    for caller in callers:
        caller.start()
    try:
        pool.scale(4)
        assert pool.stats().workers == 4 and len(pool.workers()) == 4
        before = len(answered)
        wait_until(lambda: len(answered) > before + 40, 20, "it serves with four")
        pool.scale(1)
        assert pool.stats().workers == 1 and len(pool.workers()) == 1
        before = len(answered)
        wait_until(lambda: len(answered) > before + 20, 20, "it serves with one")
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert errors == []
    assert Counter(answered) == Counter(sent) == Counter(executed(log)), (
        "each sent one ran once and was answered"
    )


def test_thread_profile_runs_as_many_as_it_has_threads(start: Any, tmp_path: Path) -> None:
    source = (
        (Path(adapter("log.py")))
        .read_text()
        .replace("class Log(Adapter):", "class Log(Adapter):\n    __thread_safe__ = True\n")
    )
    (tmp_path / "threaded.py").write_text(source)
    log, go = tmp_path / "log", tmp_path / "go"
    pool = start(
        size=1,
        profile="thread",
        threads_per_worker=4,
        adapter=f"{tmp_path}/threaded.py:Log",
        adapter_args={"path": str(log)},
    )
    busy = occupy(pool, log, go, 4)
    waiting = pool.execute.remote("run", {"tag": "fifth"})
    wait_until(lambda: pool.stats().waiting == 1, what="the fifth waits")
    assert "fifth" not in executed(log)
    go.touch()
    assert len({answer["pid"] for answer in ray.get([*busy, waiting])}) == 1
    with pytest.raises(snakepit.WorkerStartError, match="thread"):
        start(size=1, profile="thread", adapter=LOG)
