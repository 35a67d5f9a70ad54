"""Requests that are sent to an interpreter before it has a slot for them: they wait there as they would
here."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.core.worker.recycling import Reason
from snakepit_ray.core.worker.slots import MOST_AHEAD
from snakepit_ray.errors import DeadlineExceeded, PoolSaturated, QueueTimeout, WorkerBusy, WorkerCrashed
from snakepit_ray.supervisor import Supervisor
from snakepit_ray.supervisor.running import Running
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.supervisor.harness import POLICY, executed, marked, request, stop, until, value

SHORT = 5  # commands after which others go ahead


async def warmed(worker: Supervisor) -> None:
    """Its commands are known to be short."""
    for number in range(200):
        await value(worker, request("run", f"warm-{number}", tag="warm"))
        if number >= SHORT and worker.admission.prefetch.ahead:
            return
    raise AssertionError("no command took less than SHORT_SECONDS")


def ran(tmp_path: Path) -> list[str]:
    return [tag for tag in executed(tmp_path) if tag != "warm"]


def sent(worker: Supervisor) -> int:
    """Requests that are in an interpreter."""
    return len(worker._runs)


def ask(worker: Supervisor, tag: str, **more: Any) -> asyncio.Future[Any]:
    return asyncio.ensure_future(value(worker, request("run", tag, tag=tag, **more)))


def test_a_request_that_fails_fast_is_not_sent_ahead_and_does_not_wait(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        pid = stop(worker)
        running = ask(worker, "running")
        await until(lambda: sent(worker) == 1)
        asked = request("run", "fast", tag="fast")
        asked.session, asked.options.affinity = "s", pb.AFFINITY_STRICT_FAIL_FAST
        with pytest.raises(WorkerBusy, match=r"session 's' is busy \(1 of 1 slots taken\)") as busy:
            await value(worker, asked)
        assert (busy.value.running, busy.value.session, worker.waiting) == (1, "s", 0)
        os.kill(pid, signal.SIGCONT)
        await running
        asked.id = "again"
        await value(worker, asked)
        assert ran(tmp_path) == ["running", "fast"]

    marked(tmp_path, body)


class Long:
    """A command that takes until `free`."""

    def __init__(self, worker: Supervisor, tmp_path: Path) -> None:
        self._go = tmp_path / f"go-{id(self)}"
        self.call = asyncio.ensure_future(
            value(worker, request("until_file", "long", tag="long", path=str(self._go)))
        )

    async def free(self) -> Any:
        self._go.touch()
        return await self.call


def test_short_commands_are_sent_ahead_run_in_order_and_are_counted_as_waiting(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        pid = stop(worker)
        calls = [ask(worker, f"r{number}") for number in range(6)]
        await until(lambda: sent(worker) == 1 + MOST_AHEAD)
        assert (worker.running, worker.waiting, worker.admission.free) == (1, 5, 0)
        os.kill(pid, signal.SIGCONT)
        await asyncio.gather(*calls)
        assert ran(tmp_path) == [f"r{number}" for number in range(6)]

    marked(tmp_path, body)


def test_behind_a_long_command_they_come_back_to_their_places(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        long = Long(worker, tmp_path)
        calls = [ask(worker, f"r{number}") for number in range(5)]
        late = ask(worker, "late", queue=0.2)
        await until(lambda: sent(worker) == 1 and len(worker.admission.queue) == 6)
        assert (worker.running, worker.waiting) == (1, 6)
        with pytest.raises(QueueTimeout):
            await late
        await asyncio.gather(long.free(), *calls)
        assert ran(tmp_path) == ["long", *(f"r{number}" for number in range(5))]

    marked(tmp_path, body)


def test_what_came_back_may_move(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        long = Long(worker, tmp_path)
        moving = request("run", "moves", tag="moves")
        call = asyncio.ensure_future(worker.execute(moving, may_move=True))
        await until(lambda: worker.admission.queue.movable == 1)
        await long.free()
        await call
        assert ran(tmp_path) == ["long", "moves"]

    marked(tmp_path, body)


def test_a_crash_takes_only_what_had_begun(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        calls = [ask(worker, "runs", seconds=30), ask(worker, "a"), ask(worker, "b"), ask(worker, "c")]
        await until(lambda: ran(tmp_path) == ["runs"])
        assert worker.interpreter is not None
        os.kill(worker.interpreter.child.pid, signal.SIGKILL)
        with pytest.raises(WorkerCrashed):
            await calls[0]
        assert [answer["tag"] for answer in await asyncio.gather(*calls[1:])] == ["a", "b", "c"]
        assert sorted(ran(tmp_path)) == ["a", "b", "c", "runs"]

    marked(tmp_path, body)


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_who_is_ahead_counts_for_the_queues_limit(tmp_path: Path, limit: int) -> None:
    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        pid = stop(worker)
        calls = [ask(worker, f"r{number}") for number in range(1 + limit)]
        await until(lambda: worker.running + worker.waiting == 1 + limit)
        with pytest.raises(PoolSaturated):
            await ask(worker, "refused")
        os.kill(pid, signal.SIGCONT)
        await asyncio.gather(*calls)
        assert "refused" not in ran(tmp_path)

    marked(tmp_path, body, policy=replace(POLICY, queue_limit=limit))


def test_what_is_cancelled_while_it_is_ahead_never_runs(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        long, second, third = Long(worker, tmp_path), ask(worker, "second"), ask(worker, "third")
        await until(lambda: ran(tmp_path) == ["long"])
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.gather(long.free(), third)
        assert ran(tmp_path) == ["long", "third"]

    marked(tmp_path, body)


def test_what_is_too_late_while_it_is_ahead_is_told_what_the_interpreter_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        monkeypatch.setattr("snakepit_ray.supervisor.running.WORD_SECONDS", 20.0)
        long, late = Long(worker, tmp_path), ask(worker, "late", budget=0.01)
        with pytest.raises(DeadlineExceeded) as waited:
            await late
        assert waited.value.where == "waiting"
        await long.free()
        assert ran(tmp_path) == ["long"]
        await warmed(worker)
        monkeypatch.setattr("snakepit_ray.supervisor.running.WORD_SECONDS", 0.1)
        pid = stop(worker)  # it cannot say, and may begin it when it goes on
        first, late = ask(worker, "first"), ask(worker, "unknown", budget=0.1)
        await until(lambda: sent(worker) == 2)
        with pytest.raises(DeadlineExceeded) as unknown:
            await late
        assert unknown.value.where == "running"
        os.kill(pid, signal.SIGCONT)
        await first
        await until(lambda: sent(worker) == 0)
        assert worker.interpreter is not None and worker.interpreter.child.pid == pid

    marked(tmp_path, body)


def test_nobody_is_condemned_for_what_has_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled ahead, and the interpreter cannot say so for longer than cancel_grace."""
    stuck: list[str] = []

    def told(running: Running, run: Any, why: str) -> None:
        stuck.append(run.request.id)
        really(running, run, why)

    really = Running._stuck
    monkeypatch.setattr(Running, "_stuck", told)

    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        pid = stop(worker)
        first, second = ask(worker, "first"), ask(worker, "second")
        await until(lambda: sent(worker) == 2)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await until(lambda: bool(stuck))
        os.kill(pid, signal.SIGCONT)
        assert (await first)["pid"] == pid
        assert set(stuck) == {"second"}  # as often as it took

    marked(tmp_path, body, policy=replace(POLICY, cancel_grace=0.05))


def test_an_interpreter_that_is_replaced_gives_back_what_it_had_not_begun(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        assert worker.interpreter is not None
        old = worker.interpreter.child.pid
        long, *others = Long(worker, tmp_path), ask(worker, "a"), ask(worker, "b")
        worker.keeper.recycle(Reason.MANUAL)
        fresh = [answer["pid"] for answer in await asyncio.gather(*others)]
        assert old not in fresh and (await long.free())["pid"] == old
        assert sorted(ran(tmp_path)) == ["a", "b", "long"]

    marked(tmp_path, body)


def test_nothing_goes_ahead_where_the_interpreter_does_not_mark(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        for number in range(20):
            await value(worker, request("run", f"warm-{number}", tag="warm"))
        pid = stop(worker)
        calls = [ask(worker, f"r{number}") for number in range(3)]
        await until(lambda: len(worker.admission.queue) == 2)
        assert sent(worker) == 1
        os.kill(pid, signal.SIGCONT)
        await asyncio.gather(*calls)

    marked(tmp_path, body, marks=None, around=None)


def test_recalled_is_no_run(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        assert worker.interpreter is not None
        served = worker.interpreter.served
        long, other = Long(worker, tmp_path), ask(worker, "a")
        await until(lambda: len(worker.admission.queue) == 1)
        await asyncio.gather(long.free(), other)
        assert worker.interpreter.served == served + 2
        assert worker.counters.errors == 0

    marked(tmp_path, body)


def test_cancel_reasons_of_the_wire() -> None:
    assert pb.Cancel.Reason.RECALL == 3


def test_what_a_session_sends_after_a_large_argument_waits_for_it(tmp_path: Path) -> None:
    """Its buffers are copied in a thread meanwhile, and what could go ahead must not."""

    async def body(worker: Supervisor) -> None:
        await warmed(worker)
        interpreter = worker.interpreter
        assert interpreter is not None
        copied = asyncio.Event()

        async def carry(carried: pb.Request, beside: Any) -> pb.Request:
            await copied.wait()
            return carried

        interpreter.arena.carry = carry  # type: ignore[method-assign]

        def of_session(tag: str, session: str = "s") -> asyncio.Future[Any]:
            asked = request("run", tag, tag=tag)
            asked.session = session
            return asyncio.ensure_future(value(worker, asked))

        with worker.cargo.of("large", [b"x"]):
            large = of_session("large")
            await until(lambda: "large" in worker._runs)
            gone, small = of_session("gone"), of_session("small")
            await until(lambda: "small" in worker._runs)
            gone.cancel()
            await asyncio.wait([gone])
            late = of_session("late")
            await until(lambda: worker.waiting == 2)
            copied.set()
            await asyncio.gather(large, small, late)
        assert ran(tmp_path) == ["large", "small", "late"]
        assert not worker._runs._unsent

    marked(tmp_path, body)
