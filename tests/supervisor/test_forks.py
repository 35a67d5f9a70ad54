"""A forked interpreter differs in nothing from an executed one, but in how long its start takes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.errors import WorkerCrashed
from snakepit_ray.process import forker as forkers_of_the_system
from snakepit_ray.process import registry, tree
from snakepit_ray.supervisor import Supervisor
from snakepit_ray.supervisor import forkers as forking
from tests.conftest import interpreters, wait_until
from tests.supervisor.harness import (
    FORKS,
    ROOT,
    forked,
    has_forker,
    pid_of,
    replaced,
    request,
    run,
    supervisor,
    until,
    value,
)


def alive(pid: int) -> bool:
    return tree.identity(pid) is not None


def working(
    tmp_path: Path, body: Callable[[Supervisor], Awaitable[None]], *, started: bool = True, **changes: Any
) -> None:
    """Runs `body` with a worker whose interpreters may be forked; nothing is left at its end."""

    async def whole() -> None:
        worker = supervisor(tmp_path, **{**FORKS, **changes})
        if started:
            await worker.start()
        try:
            await body(worker)
        finally:
            await worker.stop()
            assert not interpreters()
            assert registry.entries() == []

    run(whole)


# ---- the same as an executed one ---------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["auto", "grpc", "frames"])
def test_a_forked_interpreter_has_what_an_executed_one_has(tmp_path: Path, wire: str) -> None:
    async def body(worker: Supervisor) -> None:
        executed = [await value(worker, request(name)) for name in ("about", "count_up")]
        assert executed[0]["ballast"] == 1_000_000
        assert await value(worker, request("parent")) == os.getpid()
        said = replace(worker.interpreter.ready, pid=0, address="")
        await forked(worker)
        assert [await value(worker, request(name)) for name in ("about", "count_up")] == executed
        assert replace(worker.interpreter.ready, pid=0, address="") == said
        assert {"arena", "forks"} <= said.features and said.commands["end"].params
        # What it imports at its start it would import each time: the forker is to do that once.
        assert await value(worker, request("imported_since")) == []

    working(tmp_path, body, adapter_args={"ballast": "x" * 1_000_000}, wire=wire)


def test_what_is_one_interpreters_own_is_no_others(tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []

    async def body(worker: Supervisor) -> None:
        worker.keeper._forward = lambda stream, line: lines.append((stream, line))
        await forked(worker)
        ours = []
        for _ in range(2):
            said = await value(worker, request("own"))
            assert said["token"] == [worker.interpreter.child.launch.env["SNAKEPIT_TOKEN"]] * 2
            assert said["mark"] == tree.mark_of(said["token"][0])
            ours.append(said)
            await replaced(worker)
        for key in ("pid", "mark", "token", "ids", "random"):
            assert ours[0][key] != ours[1][key], key
        lines.clear()
        await value(worker, request("says"))
        await until(lambda: len(lines) == 2)
        assert sorted(lines) == [("stderr", "to stderr"), ("stdout", "to stdout")]

    working(tmp_path, body)


def test_off_means_no_forker(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        for _ in range(2):
            await replaced(worker)
            assert await value(worker, request("parent")) == os.getpid()
            assert worker.keeper.forkers.pid is None and worker.keeper.forkers._beginning is None

    working(tmp_path, body, forks=False)


# ---- its end -----------------------------------------------------------------------------------------------


async def stopped(worker: Supervisor) -> None:
    await worker.stop()


async def crashed(worker: Supervisor) -> None:
    os.kill(pid_of(worker), signal.SIGKILL)
    await until(lambda: worker.counters.restarts == 1 and not worker.keeper._others, 30, 0.005)


async def forker_crashed(worker: Supervisor) -> None:
    """Nobody else would hear how the interpreter ends: that is lost, too."""
    ours = pid_of(worker)
    os.kill(worker.keeper.forkers.pid, signal.SIGKILL)
    await until(lambda: worker.counters.restarts == 1 and not worker.keeper._others, 30, 0.005)
    assert not alive(ours)
    assert await value(worker, request("parent")) == os.getpid()


@pytest.mark.parametrize("end", [stopped, replaced, crashed, forker_crashed])
def test_what_it_has_started_ends_with_it(
    tmp_path: Path, end: Callable[[Supervisor], Awaitable[object]]
) -> None:
    async def body(worker: Supervisor) -> None:
        forker = await forked(worker)
        token = worker.interpreter.child.launch.env["SNAKEPIT_TOKEN"]
        family = await value(worker, request("descendants"))
        found = {process.pid for process in tree.find(token)}
        assert found == {pid_of(worker), *family}, "and not the forker"
        await end(worker)
        assert not [pid for pid in family if alive(pid)]
        assert alive(forker) == (end in (replaced, crashed))

    working(tmp_path, body)


@pytest.mark.parametrize(("how", "name"), [({"code": 7}, None), ({"by": int(signal.SIGSEGV)}, "SIGSEGV")])
def test_how_it_ended_is_told(tmp_path: Path, how: dict[str, int], name: str | None) -> None:
    async def body(worker: Supervisor) -> None:
        forker = await forked(worker)
        with pytest.raises(WorkerCrashed) as caught:
            await value(worker, request("end", **how))
        assert [caught.value.exit_code, caught.value.signal] == [how.get("code"), name]
        assert "last words" in str(caught.value)
        await until(lambda: worker.counters.restarts == 1, 30, 0.005)
        assert await value(worker, request("parent")) == forker, "the restart was forked"

    working(tmp_path, body)


# ---- the end of the forker ---------------------------------------------------------------------------------


def test_without_its_forker_a_worker_executes_the_next_and_has_another_forker(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        await replaced(worker)
        forker = await has_forker(worker)
        os.kill(forker, signal.SIGKILL)
        await until(lambda: worker.keeper.forkers.pid is None)
        await replaced(worker)
        assert await value(worker, request("parent")) == os.getpid()
        assert await has_forker(worker) != forker
        assert worker.counters.restarts == 0

    working(tmp_path, body)


@pytest.mark.parametrize("dies", [True, False])
def test_an_order_that_is_not_answered_is_executed(
    tmp_path: Path, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forkers_of_the_system, "ANSWER_SECONDS", 10.0 if dies else 0.1)

    async def body(worker: Supervisor) -> None:
        await replaced(worker)
        forker = await has_forker(worker)
        os.kill(forker, signal.SIGSTOP)
        replacing = asyncio.ensure_future(replaced(worker))
        if dies:
            await until(lambda: worker.keeper._launched_at > worker.interpreter.ready_at)
            os.kill(forker, signal.SIGKILL)
        await replacing
        assert await value(worker, request("parent")) == os.getpid()
        await until(lambda: not alive(forker))
        assert worker.counters.restarts == 0

    working(tmp_path, body)


HOST = """
import asyncio, sys
from pathlib import Path
from tests.supervisor.harness import FORKS, forked, request, supervisor, value

async def main():
    worker = supervisor(Path(sys.argv[1]), **FORKS)
    await worker.start()
    forker = await forked(worker)
    print(worker.interpreter.child.pid, forker, *await value(worker, request("descendants")), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("stopped", ["nobody", "forker", "interpreter"])
def test_nothing_outlives_a_worker_that_is_killed(tmp_path: Path, stopped: str) -> None:
    """One of them may be stopped: a sweep ends that."""
    words = [sys.executable, "-c", HOST, str(tmp_path)]
    host = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT)
    assert host.stdout is not None
    pids = [int(word) for word in host.stdout.readline().split()]
    assert len(pids) == 5
    interpreter, forker, *_ = pids
    left = {"nobody": set(), "forker": {forker}, "interpreter": {interpreter}}[stopped]
    for pid in left:
        os.kill(pid, signal.SIGSTOP)
    host.kill()
    host.communicate()
    if stopped != "interpreter":
        wait_until(lambda: {pid for pid in pids if alive(pid)} == left)
    registry.sweep()
    assert not [pid for pid in pids if alive(pid)]
    assert registry.entries() == []


# ---- when there is a forker, and which one -----------------------------------------------------------------

MODULE = """
from snakepit_bridge import Adapter, command
import os
{more}

class Mine(Adapter):
    @command
    def text(self):
        return "{text}"

    @command
    def parent(self):
        return os.getppid()
"""


def write(tmp_path: Path, text: str = "old", more: str = "") -> str:
    (tmp_path / "mine.py").write_text(MODULE.format(text=text, more=more))
    return str(tmp_path / "mine.py") + ":Mine"


def test_a_replacement_has_the_code_that_is_on_the_disk(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        old = await forked(worker)
        write(tmp_path, "newer")  # Python's own cache goes by the size, and the second
        await replaced(worker)
        assert await value(worker, request("text")) == "newer"
        assert await value(worker, request("parent")) == os.getpid()
        assert await forked(worker) != old
        assert await value(worker, request("text")) == "newer"

    working(tmp_path, body, adapter=write(tmp_path))


def test_another_environment_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(worker: Supervisor) -> None:
        old = await forked(worker)
        monkeypatch.setenv("LC_TIME", "C.UTF-8")
        await replaced(worker)
        assert await value(worker, request("parent")) == os.getpid()
        assert "LC_TIME" in (await value(worker, request("about")))["variables"]
        assert await has_forker(worker) != old

    working(tmp_path, body)


def test_a_replacement_by_hand_is_executed(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        old = await forked(worker)
        count = worker.counters.recycled
        worker.recycle()
        await until(lambda: worker.counters.recycled > count and worker.life.state == "ready", 30, 0.005)
        assert await value(worker, request("parent")) == os.getpid()
        assert worker.keeper.forkers._beginning is None, "it says nothing of what comes next"
        assert await forked(worker) != old

    working(tmp_path, body)


def test_generators_of_numpy_do_not_draw_the_same(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        await forked(worker)
        drawn = [await value(worker, request("text"))]
        await replaced(worker)
        assert await value(worker, request("parent")) == worker.keeper.forkers.pid
        assert await value(worker, request("text")) not in drawn

    more = "import numpy\nclass Drawn:\n    def __str__(self): return str(numpy.random.random())"
    working(tmp_path, body, adapter=write(tmp_path, '" + str(Drawn()) + "', more))


def test_an_adapter_that_cannot_be_forked_is_executed_until_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(worker: Supervisor) -> None:
        for _ in range(3):
            await replaced(worker)
            await until(lambda: worker.keeper.forkers._beginning is None, 30, 0.005)
            assert await value(worker, request("parent")) == os.getpid()
        said = [record.getMessage() for record in caplog.records if "not forked" in record.getMessage()]
        assert len(said) == 1 and "threads" in said[0]
        write(tmp_path)
        count = worker.counters.recycled
        worker.recycle()
        await until(lambda: worker.counters.recycled > count and worker.life.state == "ready", 30, 0.005)
        await forked(worker)

    more = "import _thread, time\n_thread.start_new_thread(time.sleep, (600,))"
    with caplog.at_level(logging.INFO, "snakepit_ray.worker"):
        working(tmp_path, body, adapter=write(tmp_path, more=more))


def test_an_adapter_may_say_no(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        await replaced(worker)
        assert worker.keeper.forkers._beginning is None
        assert "forks" not in worker.interpreter.ready.features

    more = "Adapter.__forkable__ = False"
    working(tmp_path, body, adapter=write(tmp_path, more=more))


def test_where_a_forked_interpreter_does_not_start_it_is_executed_from_then_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(worker: Supervisor) -> None:
        await replaced(worker)
        forker = await has_forker(worker)
        for _ in range(2):
            await replaced(worker)
            assert await value(worker, request("parent")) == os.getpid()
        await until(lambda: not alive(forker))
        assert worker.keeper.forkers._beginning is None
        assert not any("start failed" in event for event in worker.last_events(20))

    with caplog.at_level(logging.INFO, "snakepit_ray.worker"):
        working(tmp_path, body, adapter_args={"refuses": True})
    said = [record.getMessage() for record in caplog.records if "not forked" in record.getMessage()]
    assert len(said) == 2 and "made by a fork" in said[0]


def test_a_forker_ends_when_it_is_not_used_and_not_before_what_it_has_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(worker: Supervisor) -> None:
        forker = await forked(worker)
        monkeypatch.setattr(forking, "IDLE", 0.0)
        worker.keeper.forkers._look_idle()
        assert worker.keeper.forkers.pid is None
        assert await value(worker, request("parent")) == forker
        await replaced(worker)
        await until(lambda: not alive(forker))

    working(tmp_path, body)


def test_no_forker_comes_of_a_long_life(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        worker.interpreter.ready_at -= 3600
        await replaced(worker)
        assert worker.keeper.forkers._beginning is None
        await replaced(worker)
        assert worker.keeper.forkers._beginning is not None, "this one lived for a moment"

    working(tmp_path, body)


def test_the_registry_has_the_forker_and_counts_nobody_twice(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        forker = await forked(worker)
        entries = {entry.record.pid: entry for entry in registry.entries()}
        assert {pid: [one.pid for one in entry.processes] for pid, entry in entries.items()} == {
            forker: [forker],
            pid_of(worker): [pid_of(worker)],
        }
        assert {entry.state for entry in entries.values()} == {registry.State.ALIVE}

    working(tmp_path, body)
