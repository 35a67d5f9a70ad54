"""What an interpreter had begun when it died: only that fails, whatever else was in it runs in the next."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.core.worker.restarts import RestartBudget, RestartPolicy
from snakepit_ray.errors import DeadlineExceeded, WorkerCrashed
from snakepit_ray.ledger import Entry
from snakepit_ray.supervisor import Stream, Supervisor
from snakepit_ray.supervisor.dispatch import MOST_LOSSES
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Part
from snakepit_ray.wire.replies import crashed
from tests.supervisor.harness import POLICY, Marked, executed, marked, request, stop, until, value


async def in_it(worker: Supervisor, *requests: pb.Request) -> list[asyncio.Future[Any]]:
    """Requests that were sent to the interpreter."""
    calls = [asyncio.ensure_future(value(worker, one)) for one in requests]
    await until(lambda: worker.running == len(requests))
    return calls


def test_what_was_sent_and_had_not_begun_runs_in_the_next_interpreter(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        pid = stop(worker)
        (call,) = await in_it(worker, request("run", 1, tag="once"))
        os.kill(pid, signal.SIGKILL)
        answer = await call
        assert answer["tag"] == "once" and answer["pid"] != pid
        assert executed(tmp_path) == ["once"]
        assert worker.counters.errors == 0 and worker.counters.requests == 1

    marked(tmp_path, body)


def test_of_many_only_those_that_had_begun_fail(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        running = await in_it(worker, *(request("run", n, tag=f"runs-{n}", seconds=30) for n in range(2)))
        await until(lambda: len(executed(tmp_path)) == 2)
        pid = stop(worker)
        waiting = [asyncio.ensure_future(value(worker, request("run", n, tag=f"waits-{n}"))) for n in (2, 3)]
        await until(lambda: worker.running == 4)
        os.kill(pid, signal.SIGKILL)
        for call in running:
            with pytest.raises(WorkerCrashed, match="may have started") as crash:
                await call
            assert (crash.value.may_have_started, crash.value.begun) == (True, 1)
        assert [answer["tag"] for answer in await asyncio.gather(*waiting)] == ["waits-2", "waits-3"]
        assert sorted(executed(tmp_path)) == ["runs-0", "runs-1", "waits-2", "waits-3"]

    marked(tmp_path, body, policy=replace(POLICY, capacity=4), capacity=4)


def test_of_a_batch_the_items_that_had_begun_fail_and_the_others_are_given_back(tmp_path: Path) -> None:
    items = ", ".join(f'{{"tag": "b{number}", "seconds": 0.1}}' for number in range(20))

    async def body(worker: Supervisor) -> None:
        asked = request("run", 1)
        asked.args.json = f"[{items}]".encode()
        asked.batch.count = 20
        call = asyncio.ensure_future(worker.execute(asked, may_move=False))
        await until(lambda: len(executed(tmp_path)) >= 3)
        assert worker.interpreter is not None
        os.kill(worker.interpreter.child.pid, signal.SIGKILL)
        with pytest.raises(WorkerCrashed) as crash:
            await call
        ran = executed(tmp_path)
        assert crash.value.begun == len(ran) < 20
        (part,) = crashed(asked, crash.value).parts
        assert (part.size, [index for index, _ in part.failures]) == (len(ran), list(range(len(ran))))
        assert worker.counters.errors == len(ran)

    marked(tmp_path, body)


def test_a_stream_that_had_not_begun_comes_whole_from_the_next_interpreter(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        pid = stop(worker)
        asked = request("stream", 1, tag="once", count=5)
        asked.pack = True
        stream = Stream(worker, asked)
        await until(lambda: worker.running == 1)
        os.kill(pid, signal.SIGKILL)
        values: list[Any] = []
        while pieces := await stream.part():
            values.extend(Part(pieces).values())
        assert len(values) == 5
        assert executed(tmp_path).count("once") == 1

    marked(tmp_path, body)


def test_what_no_interpreter_lives_to_begin_is_given_up(tmp_path: Path) -> None:
    class Unbegun(Entry):
        begun = 0  # as if it died of the request before it began it

    class Unmarked(Marked):
        def begins(self, request: pb.Request, marked: bool) -> Entry | None:
            entry = super().begins(request, marked)
            return None if entry is None else Unbegun(self.ledger, entry.name, entry.word)

    async def body(worker: Supervisor) -> None:
        worker.keeper.budget = RestartBudget(RestartPolicy(first_delay=0.01))
        with pytest.raises(WorkerCrashed, match="safe to send it again") as crash:
            await value(worker, request("die", 1, tag="poison"))
        assert (crash.value.may_have_started, crash.value.begun) == (False, 0)
        assert executed(tmp_path) == ["poison"] * (MOST_LOSSES + 1)

    marked(tmp_path, body, kind=Unmarked)


def test_its_budget_goes_on_meanwhile(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        pid = stop(worker)
        (call,) = await in_it(worker, request("run", 1, tag="late", budget=0.5))
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DeadlineExceeded):
            await call
        os.kill(pid, signal.SIGKILL)
        await until(lambda: worker.running == 0)
        assert (await value(worker, request("run", 2, tag="next")))["pid"] != pid
        assert executed(tmp_path) == ["next"]

    marked(tmp_path, body)


@pytest.mark.parametrize("without", ["a file", "a bridge that marks"])
def test_without_marks_whatever_was_sent_counts_as_begun(tmp_path: Path, without: str) -> None:
    async def body(worker: Supervisor) -> None:
        if without == "a bridge that marks":
            assert worker.interpreter is not None
            worker.interpreter.has_marks = False
        pid = stop(worker)
        (call,) = await in_it(worker, request("run", 1, tag="once"))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerCrashed) as crash:
            await call
        assert (crash.value.may_have_started, crash.value.begun) == (True, None)
        assert executed(tmp_path) == []

    changes: Sequence[str] = ("around", "marks") if without == "a file" else ()
    marked(tmp_path, body, **dict.fromkeys(changes))
