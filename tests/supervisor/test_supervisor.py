"""One worker without Ray: a real interpreter, and its own log as the witness of what it executed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray import telemetry
from snakepit_ray.errors import (
    CommandError,
    DeadlineExceeded,
    PoolClosed,
    PoolSaturated,
    ProtocolMismatch,
    QueueTimeout,
    SnakepitError,
    WorkerCrashed,
    WorkerStartError,
)
from snakepit_ray.testing import MISBEHAVING_BRIDGE
from tests.conftest import interpreters, left_behind
from tests.supervisor.harness import POLICY, executed, request, run, supervisor, until, value


def test_requests_run_one_at_a_time_in_order_of_arrival(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        try:
            tags = [f"t{i}" for i in range(20)]
            answers = await asyncio.gather(
                *(value(worker, request("run", i, tag=t)) for i, t in enumerate(tags))
            )
            assert [a["tag"] for a in answers] == tags
            assert executed(tmp_path) == tags
            assert {a["pid"] for a in answers} == {worker.interpreter.child.pid}
            assert worker.running == worker.waiting == 0
            assert worker.counters.requests == 20
        finally:
            await worker.stop()

    run(body)


def test_a_full_queue_refuses_and_what_was_refused_never_runs(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path, policy=replace(POLICY, queue_limit=2))
        await worker.start()
        go = tmp_path / "go"
        try:
            asked = [request("until_file", i, tag=f"t{i}", path=str(go)) for i in range(6)]
            calls = [asyncio.ensure_future(value(worker, one)) for one in asked]
            await until(lambda: sum(call.done() for call in calls) == 3)
            refused = [call.exception() for call in calls if call.done()]
            assert all(isinstance(error, PoolSaturated) for error in refused)
            assert refused[0].limit == 2 and "pool.map" in str(refused[0])
            go.touch()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            ran = [answer["tag"] for answer in answers if isinstance(answer, dict)]
            assert ran == ["t0", "t1", "t2"] == executed(tmp_path)
            assert worker.counters.saturated == 3
        finally:
            await worker.stop()

    run(body)


def test_who_waits_too_long_is_told_and_never_runs(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        go = tmp_path / "go"
        try:
            holder = asyncio.ensure_future(
                value(worker, request("until_file", 1, tag="holder", path=str(go)))
            )
            await until(lambda: executed(tmp_path) == ["holder"])
            began = time.monotonic()
            with pytest.raises(QueueTimeout) as queue_timeout:
                await value(worker, request("run", 2, queue=0.2, tag="late"))
            assert time.monotonic() - began > 0.15
            assert queue_timeout.value.limit_s == pytest.approx(0.2)
            with pytest.raises(DeadlineExceeded):
                await value(worker, request("run", 3, budget=0.1, tag="later"))
            go.touch()
            await holder
            assert await value(worker, request("run", 4, tag="next"))
            assert executed(tmp_path) == ["holder", "next"]
            assert worker.counters.queue_timeouts == 1  # a deadline is no queue timeout
        finally:
            await worker.stop()

    run(body)


def test_cancelled_while_waiting_never_runs(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        go = tmp_path / "go"
        try:
            holder = asyncio.ensure_future(
                value(worker, request("until_file", 1, tag="holder", path=str(go)))
            )
            await until(lambda: executed(tmp_path) == ["holder"])
            waiting = asyncio.ensure_future(value(worker, request("run", 2, tag="cancelled")))
            await until(lambda: worker.waiting == 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert worker.waiting == 0
            go.touch()
            await holder
            await value(worker, request("run", 3, tag="next"))
            assert executed(tmp_path) == ["holder", "next"]
        finally:
            await worker.stop()

    run(body)


@pytest.mark.parametrize("command", ["until_cancelled", "until_cancelled_async"])
def test_cancelled_while_running_stops_the_command_and_frees_the_slot(tmp_path: Path, command: str) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        try:
            running = asyncio.ensure_future(value(worker, request(command, 1, tag="a")))
            await until(lambda: executed(tmp_path) == ["a"])
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await until(lambda: executed(tmp_path) == ["a", "a:cancelled"])
            await until(lambda: worker.running == 0)
            await value(worker, request("run", 2, tag="b"))
        finally:
            await worker.stop()

    run(body)


def test_a_slot_is_kept_until_the_interpreter_has_answered(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        go = tmp_path / "go"
        try:
            stubborn = asyncio.ensure_future(value(worker, request("until_file", 1, tag="a", path=str(go))))
            await until(lambda: executed(tmp_path) == ["a"])
            stubborn.cancel()
            following = asyncio.ensure_future(value(worker, request("run", 2, tag="b")))
            await until(lambda: stubborn.done() and worker.waiting == 1)
            assert worker.running == 1 and worker.waiting == 1
            go.touch()
            await following
            assert executed(tmp_path) == ["a", "b"]
        finally:
            await worker.stop()

    run(body)


def test_one_budget_for_waiting_and_running(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        try:
            began = time.monotonic()
            first = asyncio.ensure_future(value(worker, request("run", 1, tag="a", seconds=0.3)))
            await until(lambda: worker.running == 1)
            with pytest.raises(DeadlineExceeded) as deadline:
                await value(worker, request("until_cancelled", 2, budget=1.2, tag="b"))
            assert time.monotonic() - began > 1.15
            assert deadline.value.where == "running"
            await first
            await until(lambda: worker.running == 0)
            assert executed(tmp_path) == ["a", "b", "b:cancelled"]
        finally:
            await worker.stop()

    run(body)


def test_a_crash_fails_only_what_ran_and_the_waiting_run_on_the_next_interpreter(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        try:
            old_pid, old_epoch = worker.interpreter.child.pid, worker.epoch.number
            crashing = asyncio.ensure_future(value(worker, request("die", 1, tag="crash")))
            waiting = [
                asyncio.ensure_future(value(worker, request("run", 2 + i, tag=f"w{i}"))) for i in range(3)
            ]
            with pytest.raises(WorkerCrashed) as crash:
                await crashing
            assert crash.value.exit_code == 7
            assert crash.value.may_have_started
            assert "about to die" in crash.value.stderr_tail
            answers = await asyncio.gather(*waiting)
            assert [a["tag"] for a in answers] == ["w0", "w1", "w2"]
            assert old_pid not in {a["pid"] for a in answers}
            assert worker.epoch.number == old_epoch + 1
            assert executed(tmp_path) == ["crash", "w0", "w1", "w2"]
        finally:
            await worker.stop()

    run(body)


def test_an_idempotent_request_is_tried_again_after_a_crash(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        try:
            asked = request("die_once", 1, tag="again", marker=str(tmp_path / "died"), retries=2)
            done = await worker.execute(asked, may_move=False)
            assert done.attempt == 2
            assert executed(tmp_path) == ["again", "again"]
        finally:
            await worker.stop()

    run(body)


def test_events_tell_the_story_of_a_worker(tmp_path: Path) -> None:
    story: list[tuple[str, dict[str, Any]]] = []

    async def body() -> None:
        worker = supervisor(tmp_path, policy=replace(POLICY, queue_limit=1))
        await worker.start()
        go = tmp_path / "go"
        try:
            busy = asyncio.ensure_future(value(worker, request("until_file", 1, tag="a", path=str(go))))
            await until(lambda: worker.running == 1)
            waiting = asyncio.ensure_future(value(worker, request("run", 2, tag="b")))
            await until(lambda: worker.waiting == 1)
            with pytest.raises(PoolSaturated):
                await value(worker, request("run", 3, tag="c"))
            go.touch()
            await asyncio.gather(busy, waiting)
            with pytest.raises(WorkerCrashed):
                await value(worker, request("die", 4))
        finally:
            await worker.stop()

    with telemetry.attach("*", lambda event, measurements, metadata: story.append((event, metadata))):
        run(body)
    counts = Counter(event for event, _ in story)
    assert counts.pop("worker.initialized") in (1, 2)  # the replacement may have come up before the end
    assert counts == {
        "queue.enqueued": 1,
        "queue.dequeued": 1,
        "pool.capacity_reached": 2,
        "pool.saturated": 1,
        "worker.request": 2,
        "request.executed": 4,
        "worker.crashed": 1,
        "worker.terminated": 1,
    }
    outcomes = [metadata["success"] for event, metadata in story if event == "request.executed"]
    assert sorted(outcomes) == [False, False, True, True]
    (crash,) = [metadata for event, metadata in story if event == "worker.crashed"]
    assert crash["exit_code"] == 7


def test_sigkill_of_the_interpreter_is_named(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        try:
            running = asyncio.ensure_future(value(worker, request("run", 1, tag="a", seconds=20)))
            await until(lambda: executed(tmp_path) == ["a"])
            os.kill(worker.interpreter.child.pid, signal.SIGKILL)
            with pytest.raises(WorkerCrashed, match="SIGKILL") as crash:
                await running
            assert crash.value.signal == "SIGKILL"
        finally:
            await worker.stop()

    run(body)


def test_stop_refuses_what_waits_and_runs_and_is_safe_to_repeat(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        running = asyncio.ensure_future(value(worker, request("until_cancelled", 1, tag="a")))
        await until(lambda: executed(tmp_path) == ["a"])
        waiting = asyncio.ensure_future(value(worker, request("run", 2, tag="b")))
        await until(lambda: worker.waiting == 1)
        await worker.stop()
        for call in (running, waiting):
            with pytest.raises((PoolClosed, CommandError, SnakepitError)):
                await call
        await worker.stop()
        with pytest.raises(PoolClosed):
            await value(worker, request("run", 3, tag="c"))
        assert "b" not in executed(tmp_path) and "c" not in executed(tmp_path)

    run(body)


def test_a_grandchild_in_a_session_of_its_own_ends_with_the_interpreter(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        spawned = await value(worker, request("spawn"))
        assert spawned["grandchild"] in interpreters()
        await worker.stop()
        assert spawned["grandchild"] not in interpreters()
        assert spawned["pid"] not in interpreters()

    run(body)


def test_the_environment_is_an_allow_list_and_user_values_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_SECRET_THING", "no")
    monkeypatch.setenv("AWS_SECRET", "no")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")

    async def body() -> None:
        worker = supervisor(tmp_path, user_env={"MINE": "yes", "OMP_NUM_THREADS": "3"})
        await worker.start()
        try:
            seen = await value(worker, request("environment"))
        finally:
            await worker.stop()
        env = seen["env"]
        assert not {"RAY_SECRET_THING", "AWS_SECRET", "PYTHONPATH"} & set(env)
        assert env["MINE"] == "yes"
        assert env["OMP_NUM_THREADS"] == "3"
        assert env["OPENBLAS_NUM_THREADS"] == env["MKL_NUM_THREADS"] == "1"
        assert env["PATH"] == os.environ["PATH"]
        assert seen["cwd"] == str(tmp_path)
        assert not any("secret" in value.lower() for value in env.values())

    run(body)


def test_health_is_answered_while_a_command_runs(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        go = tmp_path / "go"
        try:
            running = asyncio.ensure_future(value(worker, request("until_file", 1, tag="a", path=str(go))))
            await until(lambda: executed(tmp_path) == ["a"])
            assert await worker.interpreter.client.healthy(20.0)
            assert worker.running == 1
            go.touch()
            await running
        finally:
            await worker.stop()

    run(body)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("no_ready", WorkerStartError, "startup_timeout=1"),
        ("garbage_ready", WorkerStartError, "not JSON"),
        ("wrong_version", ProtocolMismatch, "99"),
        ("exit_at_once", WorkerStartError, "exit code 7"),
    ],
)
def test_a_bridge_that_does_not_get_ready(
    tmp_path: Path, how: str, error: type[Exception], words: str
) -> None:
    async def body() -> None:
        files = left_behind()
        worker = supervisor(
            tmp_path, script=MISBEHAVING_BRIDGE, adapter_args={"how": how}, startup_timeout=1.0
        )
        began = time.monotonic()
        with pytest.raises(error, match=words):
            await worker.start()
        assert time.monotonic() - began < 20.0
        assert left_behind() == files

    run(body)


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ("raise RuntimeError('in import')", r"import.*RuntimeError: in import"),
        ("class A:\n    def __init__(self): raise KeyError('in init')", r"init.*KeyError"),
        ("class A:\n    def setup(self): raise OSError('in setup')", r"setup.*OSError: in setup"),
        ("class B: pass", r"A"),
        ("def broken(:", r"SyntaxError"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_explains_itself(tmp_path: Path, adapter: str, words: str) -> None:
    source = "from snakepit_bridge import Adapter, command\n" + adapter.replace(
        "class A:", "class A(Adapter):"
    )
    if "class A" in source:
        source += "\n    @command\n    def ping(self): return 1\n"
    (tmp_path / "bad.py").write_text(source)

    async def body() -> None:
        worker = supervisor(tmp_path, adapter=f"{tmp_path}/bad.py:A", adapter_args={})
        began = time.monotonic()
        with pytest.raises(WorkerStartError) as failed:
            await worker.start()
        import re

        assert re.search(words, str(failed.value), re.DOTALL), str(failed.value)
        assert time.monotonic() - began < 20.0

    run(body)


@pytest.mark.parametrize("executable", ["/nowhere/python", __file__, "/bin/true"])
def test_an_interpreter_that_is_none(tmp_path: Path, executable: str) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path, executable=executable)
        with pytest.raises(WorkerStartError) as failed:
            await worker.start()
        assert executable in str(failed.value)

    run(body)


def test_noise_on_stdout_breaks_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        args = {"how": "stdout_garbage"}
        worker = supervisor(tmp_path, script=MISBEHAVING_BRIDGE, adapter_args=args, adapter="showcase")
        await worker.start()
        try:
            assert await value(worker, request("add", a=2, b=3)) == {"result": 5}
            assert worker.interpreter.child.stdout.tail
        finally:
            await worker.stop()

    run(body)


def test_sigterm_ignored_ends_with_sigkill(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(
            tmp_path, script=MISBEHAVING_BRIDGE, adapter_args={"how": "ignore_sigterm"}, adapter="showcase"
        )
        await worker.start()
        pid = worker.interpreter.child.pid
        began = time.monotonic()
        await worker.stop()
        assert time.monotonic() - began < 20.0
        assert pid not in interpreters()

    run(body)
