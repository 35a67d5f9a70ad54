"""A worker's life without Ray: interpreters that are replaced on purpose, that die, hang, leak or do not
listen."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.core.worker.lifecycle import WorkerState
from snakepit_ray.core.worker.recycling import Limits, Reason
from snakepit_ray.core.worker.restarts import RestartBudget, RestartPolicy
from snakepit_ray.errors import DeadlineExceeded, QueueTimeout, WorkerCrashed, WorkerStartError
from snakepit_ray.process import usage
from snakepit_ray.supervisor import CarePolicy, PoolSide, Record, Supervisor
from snakepit_ray.testing import MISBEHAVING, MISBEHAVING_BRIDGE
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.conftest import interpreters
from tests.supervisor.harness import POLICY, executed, request, run, spec, supervisor, until, value

QUICK = CarePolicy(interval=0.05, silence=0.8)


def limited(**limits: Any) -> Any:
    return replace(POLICY, care=replace(QUICK, silence=10.0, limits=Limits(**limits)))


def with_worker(make: Callable[[], Supervisor], body: Callable[[Supervisor], Any]) -> None:
    """Runs `body` with a started worker that is stopped after it, whatever happens."""

    async def whole() -> None:
        worker = make()
        try:
            await worker.start()
            await body(worker)
        finally:
            await worker.stop()

    run(whole)


def pid_of(worker: Supervisor) -> int:
    assert worker.interpreter is not None
    return worker.interpreter.child.pid


# ---- replacing on purpose ----------------------------------------------------------------------------------


def test_after_so_many_requests_another_interpreter_serves_and_nothing_fails(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        answers: list[Any] = []
        while worker.counters.recycled < 2:
            assert len(answers) < 20_000
            answers.append(await value(worker, request("run", len(answers), tag=f"t{len(answers)}")))
        tags = [f"t{i}" for i in range(len(answers))]
        assert [answer["tag"] for answer in answers] == tags == executed(tmp_path)
        pids = list(dict.fromkeys(answer["pid"] for answer in answers))
        assert len(pids) >= 3 and worker.epoch.number >= 3
        assert worker.counters.restarts == 0 and worker.counters.errors == 0
        await until(lambda: interpreters() == {pid_of(worker)})
        assert any("recycled: recycle_requests" in line for line in worker.story.last(50))

    with_worker(lambda: supervisor(tmp_path, policy=limited(max_requests=10)), body)


def test_a_running_request_ends_on_the_old_interpreter_while_the_new_one_serves(tmp_path: Path) -> None:
    go = tmp_path / "go"

    async def body(worker: Supervisor) -> None:
        old = pid_of(worker)
        long = asyncio.ensure_future(value(worker, request("until_file", 1, tag="long", path=str(go))))
        await until(lambda: executed(tmp_path) == ["long"])
        worker.recycle()
        await until(lambda: pid_of(worker) != old)
        assert worker.state is WorkerState.READY and worker.admission.free == 1, "no slot is missing"
        other = await value(worker, request("run", 2, tag="other"))
        assert other["pid"] == pid_of(worker) and not long.done()
        assert worker.running == 1
        go.touch()
        assert (await long)["pid"] == old
        await until(lambda: worker.counters.recycled == 1)
        await until(lambda: interpreters() == {pid_of(worker)})

    with_worker(lambda: supervisor(tmp_path), body)


def test_a_session_enters_the_new_interpreter_when_it_has_left_the_old(tmp_path: Path) -> None:
    go = tmp_path / "go"

    async def body(worker: Supervisor) -> None:
        old = pid_of(worker)
        first = request("until_file", 1, tag="first", path=str(go))
        second = request("run", 2, tag="second")
        first.session = second.session = "alice"
        long = asyncio.ensure_future(value(worker, first))
        await until(lambda: executed(tmp_path) == ["first"])
        worker.recycle()
        await until(lambda: pid_of(worker) != old)
        following = asyncio.ensure_future(value(worker, second))
        await asyncio.wait([following], timeout=0.2)
        assert not following.done() and executed(tmp_path) == ["first"]
        go.touch()
        assert (await long)["pid"] == old
        assert (await following)["pid"] == pid_of(worker)

    with_worker(lambda: supervisor(tmp_path), body)


def test_old_age_is_a_reason(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        assert worker.interpreter is not None
        old, began = pid_of(worker), worker.interpreter.ready_at
        await until(lambda: pid_of(worker) != old)
        assert time.monotonic() - began > 0.36, "not before its time"
        await until(lambda: worker.counters.recycled >= 1)
        assert any("recycled: recycle_age" in line for line in worker.story.last(50))

    with_worker(lambda: supervisor(tmp_path, policy=limited(ttl=0.4, jitter=0.1)), body)


@pytest.mark.parametrize("command", ["leak", "leak_in_child"])
def test_the_memory_of_an_interpreter_and_its_children_is_a_reason(tmp_path: Path, command: str) -> None:
    async def body(worker: Supervisor) -> None:
        old = pid_of(worker)
        await value(worker, request("kept", 1))
        await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(os.getpid))], timeout=0.3)
        assert pid_of(worker) == old, "small: it stays"
        await value(worker, request(command, 2, megabytes=200))
        await until(lambda: pid_of(worker) != old)
        await until(lambda: worker.counters.recycled == 1)
        assert any("recycled: recycle_memory" in line for line in worker.story.last(50))
        await until(lambda: interpreters() == {pid_of(worker)})

    args = {"path": str(tmp_path / "log")}
    policy = limited(max_memory=150 << 20)
    with_worker(lambda: supervisor(tmp_path, adapter=MISBEHAVING, adapter_args=args, policy=policy), body)


def test_memory_that_cannot_be_read_warns_and_recycles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = []
    monkeypatch.setattr(usage, "tree_rss", lambda pid: looks.append(pid))

    async def body(worker: Supervisor) -> None:
        await until(lambda: len(looks) > 3)
        assert worker.counters.recycled == 0
        assert [record.message for record in caplog.records if "cannot be read" in record.message] == [
            f"the memory of interpreter {pid_of(worker)} cannot be read"
        ]

    with_worker(lambda: supervisor(tmp_path, policy=limited(max_memory=1)), body)


def test_without_overlap_the_old_one_stops_first_and_the_waiting_go_on(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        most = 0
        old = pid_of(worker)
        worker.recycle()
        waiting = asyncio.ensure_future(value(worker, request("run", 1, tag="a")))
        while worker.counters.recycled == 0 or pid_of(worker) == old:
            most = max(most, len(interpreters()))
            await asyncio.sleep(0.002)
        assert most == 1, "two interpreters at once"
        await waiting
        assert worker.counters.restarts == 0 and worker.epoch.number == 2

    with_worker(lambda: supervisor(tmp_path, policy=replace(POLICY, overlap=False)), body)


def test_a_replacement_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    made: list[Any] = [spec(tmp_path), spec(tmp_path, executable="/nowhere/python")]

    async def body(worker: Supervisor) -> None:
        old = pid_of(worker)
        worker.recycle()
        await until(lambda: any("start failed" in line for line in worker.story.last(50)))
        assert (await value(worker, request("run", 1, tag="a")))["pid"] == old
        assert worker.counters.recycled == 0 and worker.epoch.number == 1

    def make() -> Supervisor:
        worker = supervisor(tmp_path)
        worker.keeper._make_spec = lambda: made.pop(0) if len(made) > 1 else made[0]
        return worker

    with_worker(make, body)


def test_recycling_waits_for_its_permit_and_gives_it_back(tmp_path: Path) -> None:
    class Stingy(PoolSide):
        asked = over = 0
        allowed = False

        async def may_recycle(self) -> bool:
            self.asked += 1
            return self.allowed

        def recycling_over(self) -> None:
            self.over += 1

    around = Stingy()

    async def body(worker: Supervisor) -> None:
        old = pid_of(worker)
        worker.recycle()
        await until(lambda: around.asked >= 2)
        assert pid_of(worker) == old and around.over == 0
        around.allowed = True
        await until(lambda: worker.counters.recycled == 1)
        await until(lambda: around.over == 1)

    with_worker(lambda: supervisor(tmp_path, around=around), body)


# ---- losses ------------------------------------------------------------------------------------------------


def test_an_interpreter_that_keeps_dying_quarantines_its_worker_which_is_tried_again(tmp_path: Path) -> None:
    states: list[WorkerState] = []

    class Listening(PoolSide):
        def state_changed(self, state: WorkerState) -> None:
            states.append(state)

    async def body(worker: Supervisor) -> None:
        worker.keeper.budget = RestartBudget(RestartPolicy(first_delay=0.01, quarantine=0.3))
        await until(lambda: WorkerState.QUARANTINED in states, 20.0)
        fell = worker.epoch.number
        # Seven losses without a request served; one that died before it was ready has no number.
        assert 1 < fell <= 1 + 7
        assert worker.state is WorkerState.QUARANTINED and worker.admission.free == 0
        await until(lambda: worker.epoch.number > fell, 20.0)
        story = "\n".join(worker.story.last(50))
        assert "quarantined for" in story and "quarantined -> starting" in story
        assert states.count(WorkerState.QUARANTINED) >= 1

    args = {"how": "crash_loop", "after": 0.05}
    make = lambda: supervisor(  # noqa: E731
        tmp_path, script=MISBEHAVING_BRIDGE, adapter="showcase", adapter_args=args, around=Listening()
    )
    with_worker(make, body)


def test_an_interpreter_that_fails_its_start_is_started_again(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_bytes(b"x" * 9)  # the first start is a good one

    async def body(worker: Supervisor) -> None:
        counter.write_bytes(b"")
        os.kill(pid_of(worker), signal.SIGKILL)
        await until(lambda: worker.counters.restarts == 1, 20.0)
        assert await value(worker, request("add", a=2, b=3)) == {"result": 5}
        assert sum("start failed" in line for line in worker.story.last(50)) == 2
        assert worker.epoch.number == 2

    args = {"how": "crash_at_start_times", "times": 2, "counter": str(counter)}
    make = lambda: supervisor(  # noqa: E731
        tmp_path, script=MISBEHAVING_BRIDGE, adapter="showcase", adapter_args=args
    )
    with_worker(make, body)


def test_a_crash_tells_the_workers_last_events(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        with pytest.raises(WorkerCrashed, match="last events") as crash:
            await value(worker, request("die", 1))
        assert f"ready: pid {pid_of(worker)}, epoch 1" in str(crash.value)

    with_worker(lambda: supervisor(tmp_path), body)


def test_stopping_in_the_midst_of_a_restart_leaves_nothing(tmp_path: Path) -> None:
    async def stopped_after(pause: float) -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        os.kill(pid_of(worker), signal.SIGKILL)
        await until(lambda: worker.state is WorkerState.STARTING)
        await asyncio.sleep(pause)  # not to wait for something: to stop at another moment each time
        await worker.stop()
        assert interpreters() == set()

    async def body() -> None:
        for pause in (0.0, 0.01, 0.03, 0.06, 0.1, 0.15):
            await stopped_after(pause)

    run(body)


def test_what_had_begun_before_a_restart_runs_again_only_if_idempotent(tmp_path: Path) -> None:
    class Remembering(Record):
        def begun_before(self, request: pb.Request) -> bool:
            return True

    async def body(worker: Supervisor) -> None:
        with pytest.raises(WorkerCrashed, match="idempotent") as refused:
            await value(worker, request("run", 1, tag="once"))
        assert refused.value.may_have_started and executed(tmp_path) == []
        await value(worker, request("run", 2, tag="again", idempotent=True))
        assert executed(tmp_path) == ["again"] and worker.running == 0

    with_worker(lambda: supervisor(tmp_path, around=Remembering()), body)


def test_what_had_begun_before_is_never_said_not_to_have_run(tmp_path: Path) -> None:
    class Remembering(Record):
        def begun_before(self, request: pb.Request) -> bool:
            return request.id != "new"

    go = tmp_path / "go"

    async def body(worker: Supervisor) -> None:
        busy = request("until_file", "new", tag="busy", path=str(go))
        holder = asyncio.ensure_future(value(worker, busy))
        await until(lambda: executed(tmp_path) == ["busy"])
        patient = asyncio.ensure_future(
            value(worker, request("run", 1, queue=0.05, tag="again", idempotent=True))
        )
        with pytest.raises(DeadlineExceeded) as late:
            await value(worker, request("run", 2, queue=0.05, budget=0.2, tag="late", idempotent=True))
        assert late.value.where == "running" and "not executed" not in str(late.value)
        unbounded = request("run", 3, queue=0.05, tag="unbounded", idempotent=True)
        unbounded.budget_ms = 0
        with pytest.raises(WorkerCrashed, match="may have had its effects") as crash:
            await value(worker, unbounded)
        assert isinstance(crash.value.__cause__, QueueTimeout) and crash.value.may_have_started
        assert not patient.done(), "queue_timeout is for what has never begun"
        go.touch()
        await asyncio.gather(holder, patient)
        assert executed(tmp_path) == ["busy", "again"]

    with_worker(lambda: supervisor(tmp_path, around=Remembering()), body)


def test_what_had_begun_before_a_restart_is_not_moved_to_a_worker_that_does_not_know(tmp_path: Path) -> None:
    class Remembering(Record):
        def begun_before(self, request: pb.Request) -> bool:
            return request.id == "old"

    go = tmp_path / "go"

    async def body(worker: Supervisor) -> None:
        busy = asyncio.ensure_future(value(worker, request("until_file", 1, tag="busy", path=str(go))))
        await until(lambda: executed(tmp_path) == ["busy"])
        old, new = request("run", tag="old"), request("run", tag="new")
        old.id, new.id = "old", "new"
        waiting = [asyncio.ensure_future(worker.execute(one, may_move=True)) for one in (old, new)]
        await until(lambda: worker.waiting == 2)
        assert worker.admission.queue.movable == 1
        assert worker.admission.move(5, "another") == 1
        go.touch()
        await busy
        refused, _ = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(refused, WorkerCrashed)
        assert executed(tmp_path) == ["busy", "new"]

    with_worker(lambda: supervisor(tmp_path, around=Remembering()), body)


def test_the_requests_of_a_caller_that_is_gone_are_dropped_and_cancelled(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        asked = {name: request("until_cancelled", tag=name) for name in ("dead-1", "dead-2", "alive-1")}
        calls = {}
        for name, one in asked.items():
            one.id = name
            calls[name] = asyncio.ensure_future(value(worker, one))
        await until(lambda: executed(tmp_path) == ["dead-1"] and worker.waiting == 2)
        assert worker.drop(lambda request_id: request_id.startswith("dead-")) == 2
        for name in ("dead-1", "dead-2"):
            with pytest.raises(asyncio.CancelledError):
                await calls[name]
        await until(lambda: executed(tmp_path) == ["dead-1", "dead-1:cancelled", "alive-1"])
        calls["alive-1"].cancel()

    with_worker(lambda: supervisor(tmp_path), body)


# ---- hanging and not listening -----------------------------------------------------------------------------


def misbehaving(tmp_path: Path, **changes: Any) -> Supervisor:
    args = {"path": str(tmp_path / "log")}
    return supervisor(tmp_path, adapter=MISBEHAVING, adapter_args=args, **changes)


def test_a_stopped_interpreter_is_replaced_also_with_a_command_in_it(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        old = pid_of(worker)
        running = asyncio.ensure_future(value(worker, request("deaf", 1, seconds=30)))
        await until(lambda: worker.running == 1)
        os.kill(old, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(WorkerCrashed, match="answered no health check"):
            await running
        assert time.monotonic() - began < 20.0
        assert (await value(worker, request("kept", 2)))["pid"] == pid_of(worker) != old

    with_worker(lambda: misbehaving(tmp_path, policy=replace(POLICY, care=QUICK)), body)


def test_a_long_call_that_holds_the_gil_is_not_hung(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        old = pid_of(worker)
        held = await value(worker, request("hold_gil", 1, seconds=2.5))
        assert held["held_s"] > 1.5, "it was silent for longer than heartbeat_timeout"
        assert pid_of(worker) == old and worker.counters.restarts == 0
        assert any("health: no answer" in line for line in worker.story.last(50))

    with_worker(lambda: misbehaving(tmp_path, policy=replace(POLICY, care=QUICK)), body)


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_command_that_does_not_stop_costs_its_interpreter_its_life(tmp_path: Path, how: str) -> None:
    async def body(worker: Supervisor) -> None:
        old, began = pid_of(worker), time.monotonic()
        budget = 0.3 if how == "deadline" else 20.0
        stubborn = asyncio.ensure_future(value(worker, request("deaf", 1, seconds=30, budget=budget)))
        await until(lambda: "deaf" in executed(tmp_path))
        if how == "cancel":
            stubborn.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stubborn
        else:
            with pytest.raises(DeadlineExceeded):
                await stubborn
        assert (await value(worker, request("kept", 2)))["pid"] != old
        assert 0.3 < time.monotonic() - began < 20.0

    with_worker(lambda: misbehaving(tmp_path, policy=replace(POLICY, cancel_grace=0.3)), body)


def test_others_in_the_same_interpreter_hear_why_and_idempotent_ones_run_again(tmp_path: Path) -> None:
    policy = replace(POLICY, capacity=3, cancel_grace=0.2)

    async def body(worker: Supervisor) -> None:
        old = pid_of(worker)
        stubborn = asyncio.ensure_future(
            value(worker, request("deaf", 1, tag="deaf", seconds=30, budget=1.0))
        )
        once = asyncio.ensure_future(value(worker, request("run", 2, tag="once", seconds=30)))
        asked = request("run", 3, tag="again", seconds=4.0, idempotent=True, retries=1)
        again = asyncio.ensure_future(value(worker, asked))
        with pytest.raises(DeadlineExceeded):
            await stubborn
        with pytest.raises(WorkerCrashed, match=r"'deaf' had used up its budget.*cancel_grace=0.2 s"):
            await once
        assert (await again)["pid"] != old
        begun = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("begin")]
        assert sorted(line.split()[1] for line in begun) == ["again", "again", "deaf", "once"]

    with_worker(lambda: misbehaving(tmp_path, policy=policy, capacity=3), body)


def test_manual_is_the_reason_that_is_told(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        worker.recycle()
        await until(lambda: worker.counters.recycled == 1)
        assert any(f"recycled: {Reason.MANUAL}" in line for line in worker.story.last(50))

    with_worker(lambda: supervisor(tmp_path), body)


def test_two_starts_at_once_start_one_interpreter(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        try:
            await asyncio.gather(worker.start(), worker.start(), worker.start())
            assert interpreters() == {pid_of(worker)} and worker.epoch.number == 1
        finally:
            await worker.stop()

    run(body)


def test_a_start_that_failed_may_be_tried_again(tmp_path: Path) -> None:
    made: list[Any] = [spec(tmp_path, executable="/nowhere/python"), spec(tmp_path)]

    async def body() -> None:
        worker = supervisor(tmp_path)
        worker.keeper._make_spec = lambda: made.pop(0)
        try:
            with pytest.raises(WorkerStartError):
                await worker.start()
            await worker.start()
            assert (await value(worker, request("run", 1, tag="a")))["pid"] == pid_of(worker)
        finally:
            await worker.stop()

    run(body)
