"""How interpreters end while something else happens: the end is noticed at once, costs only what ran, and is
brought to its end even where a step of it fails for a while."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.core.worker.lifecycle import WorkerState
from snakepit_ray.errors import PoolClosed, RequestCancelled, WorkerCrashed
from snakepit_ray.process import tree, usage
from snakepit_ray.rpc import InterpreterClient
from snakepit_ray.supervisor import CarePolicy, Supervisor
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.conftest import interpreters
from tests.supervisor.harness import POLICY, executed, run, until
from tests.supervisor.test_one_outcome import ask, idle, working


def serving(worker: Supervisor) -> Interpreter:
    assert worker.interpreter is not None
    return worker.interpreter


class Gate:
    """No interpreter starts until it is opened."""

    def __init__(self, worker: Supervisor) -> None:
        self.reached, self._open = asyncio.Event(), asyncio.Event()
        self._launch = worker.keeper._launch
        worker.keeper._launch = self._held_up  # type: ignore[method-assign]

    async def _held_up(self, epoch: pb.Epoch) -> Interpreter:
        self.reached.set()
        await self._open.wait()
        return await self._launch(epoch)

    def open(self) -> None:
        self._open.set()


def test_a_loss_while_a_replacement_starts_is_told_at_once(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            old, epoch = serving(worker), worker.epoch.number
            running = ask(worker, "until_file", 1, budget=0, tag="ran", path=str(tmp_path / "never"))
            await until(lambda: executed(tmp_path) == ["ran"])
            gate = Gate(worker)
            worker.recycle()
            await gate.reached.wait()
            os.kill(old.child.pid, signal.SIGKILL)
            with pytest.raises(WorkerCrashed):  # not when the replacement is there, or its start has failed
                await asyncio.wait_for(running, 20)
            assert worker.state is WorkerState.STARTING and worker.epoch.number == epoch + 1
            assert worker.admission.free == 0
            waiting = ask(worker, "run", 2, tag="next")
            gate.open()
            assert (await waiting)["pid"] == serving(worker).child.pid
            assert worker.epoch.number == epoch + 1
            await idle(worker)
            await until(lambda: interpreters() == {serving(worker).child.pid})

    run(body)


@pytest.mark.parametrize("says_so", [True, False])
def test_an_interpreter_that_leaves_hands_its_queue_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says_so: bool
) -> None:
    """SIGTERM from an operator or an out-of-memory daemon: what waits goes to the next one, while the old one
    may take its time, and only the command that had begun may have had effects."""
    receive = InterpreterClient._receive

    def without_a_word(client: InterpreterClient, frame: pb.FromInterpreter) -> None:
        frame.leaving = False
        receive(client, frame)

    if not says_so:
        monkeypatch.setattr(InterpreterClient, "_receive", without_a_word)
    args = {"path": str(tmp_path / "log"), "linger": str(tmp_path / "enough")}

    async def body() -> None:
        async with working(tmp_path, adapter_args=args, shutdown_grace=10.0) as worker:
            old = serving(worker)
            running = ask(worker, "until_cancelled", 1, tag="ran")
            await until(lambda: executed(tmp_path) == ["ran"])
            waiting = [ask(worker, "run", f"w{n}", tag=f"w{n}") for n in range(50)]
            await until(lambda: worker.waiting == 50)
            os.kill(old.child.pid, signal.SIGTERM)
            with pytest.raises(RequestCancelled, match="may have had effects"):
                await running
            answers = await asyncio.gather(*waiting)
            assert {answer["pid"] for answer in answers} == {serving(worker).child.pid}
            assert old.child.alive, "nobody waited for its end"
            assert executed(tmp_path) == ["ran", "ran:cancelled", *(f"w{n}" for n in range(50))]
            assert worker.life.why_ended(1) == "recycled"
            (tmp_path / "enough").touch()
            await until(lambda: worker.counters.recycled == 1, 20)
            assert any("recycled: recycle_terminated" in line for line in worker.story.last(50))
            assert worker.counters.restarts == 0
            await idle(worker)
            await until(lambda: interpreters() == {serving(worker).child.pid})

    run(body)


def test_an_idle_interpreter_that_leaves_is_replaced_and_is_no_crash(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            old = serving(worker)
            os.kill(old.child.pid, signal.SIGTERM)
            await until(lambda: serving(worker) is not old and worker.state is WorkerState.READY, 20)
            await until(lambda: worker.counters.recycled == 1, 20)
            assert not any("crashed" in line for line in worker.story.last(50))
            await ask(worker, "run", 1, tag="next")
            await idle(worker)

    run(body)


def no_descriptors(*args: Any, **more: Any) -> Any:
    raise OSError(24, "Too many open files")


def test_who_looks_after_an_interpreter_survives_a_moment_without_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = replace(POLICY, care=CarePolicy(interval=0.05, silence=0.5))
    looks: list[int] = []

    def failing(pid: int) -> Any:
        looks.append(pid)
        return no_descriptors()

    async def body() -> None:
        async with working(tmp_path, policy=policy) as worker:
            with monkeypatch.context() as patch:
                patch.setattr(usage, "cpu_seconds", failing)
                await until(lambda: len(looks) >= 2, 20)
            old = serving(worker)
            os.kill(old.child.pid, signal.SIGSTOP)  # hung: somebody must notice
            await until(lambda: serving(worker) is not old, 30)
            await ask(worker, "run", 1, tag="next")
            await idle(worker)

    run(body)


@pytest.mark.parametrize("stopping", [False, True])
def test_a_burial_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopping: bool
) -> None:
    """The stream is lost while the process lives, and the process cannot be killed for lack of
    descriptors."""
    failures: list[int] = []

    def failing(*args: Any, **more: Any) -> Any:
        failures.append(1)
        return no_descriptors()

    async def body() -> None:
        async with working(tmp_path) as worker:
            old = serving(worker)
            running = ask(worker, "until_file", 1, budget=0, tag="ran", path=str(tmp_path / "never"))
            await until(lambda: executed(tmp_path) == ["ran"])
            with monkeypatch.context() as patch:
                patch.setattr(tree, "send", failing)
                patch.setattr(tree, "end", failing)
                os.kill(old.child.pid, signal.SIGSTOP)
                await old.client.close()
                await until(lambda: len(failures) >= 3, 20)
                end = asyncio.ensure_future(worker.stop()) if stopping else None
            with pytest.raises(PoolClosed if stopping else WorkerCrashed):
                await asyncio.wait_for(running, 20)
            if end is not None:
                await end
                assert interpreters() == set()
                return
            await ask(worker, "run", 2, tag="next")
            await idle(worker)
            await until(lambda: interpreters() == {serving(worker).child.pid}, 20)

    run(body)


def test_a_hook_that_raises_keeps_no_interpreter_from_its_end_or_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise ValueError("a listener's fault")

    async def body() -> None:
        async with working(tmp_path) as worker:
            monkeypatch.setattr(worker.ports.pool, "state_changed", broken)
            monkeypatch.setattr(worker.life, "restarted", broken)
            old = serving(worker)
            os.kill(old.child.pid, signal.SIGKILL)
            await until(lambda: serving(worker) is not old, 20)
            second = serving(worker)
            await ask(worker, "run", 1, tag="first")
            await asyncio.sleep(0)
            os.kill(serving(worker).child.pid, signal.SIGKILL)
            await until(lambda: serving(worker) is not second, 20)
            await ask(worker, "run", 2, tag="second")
            assert executed(tmp_path) == ["first", "second"]
            await until(lambda: interpreters() == {serving(worker).child.pid}, 20)

    run(body)
