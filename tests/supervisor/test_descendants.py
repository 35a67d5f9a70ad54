"""Whatever a command has started ends with its interpreter, however it hides, and nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from snakepit_ray.errors import DeadlineExceeded, WorkerCrashed
from snakepit_ray.process import registry, tree
from snakepit_ray.supervisor import Supervisor
from tests.conftest import wait_until
from tests.supervisor.harness import POLICY, ROOT, request, run, supervisor, until, value

FAMILY = str(ROOT / "tests/adapters/family.py") + ":Family"
HIDDEN = ("cleaned", "own_session", "retitled", "daemon")

# A worker without Ray that is killed: it says the pids of its interpreter and of what commands have started.
HOST = """
import asyncio, sys
from pathlib import Path
from tests.supervisor.harness import request, supervisor, value

async def main():
    worker = supervisor(Path(sys.argv[1]), adapter=sys.argv[2], adapter_args={})
    await worker.start()
    pids = [await value(worker, request(kind, kind)) for kind in sys.argv[3:]]
    print(worker.interpreter.child.pid, *pids, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    return tree.identity(pid) is not None


@pytest.fixture
def innocents() -> Iterator[list[int]]:
    """Processes of the worker's own process: children of whoever runs the interpreters, as the helpers of a
    library are."""
    started = [
        subprocess.Popen(["sleep", "600"], env={}),
        subprocess.Popen(["sleep", "600"], start_new_session=True),
    ]
    yield [process.pid for process in started]
    assert all(process.poll() is None for process in started), "somebody else's process was ended"
    for process in started:
        process.kill()
        process.wait()


async def stopped(worker: Supervisor) -> None:
    await worker.stop()


async def recycled(worker: Supervisor) -> None:
    worker.recycle()
    await until(lambda: worker.counters.recycled == 1)


async def crashed(worker: Supervisor) -> None:
    os.kill(worker.interpreter.child.pid, signal.SIGKILL)
    await until(lambda: worker.counters.restarts == 1 and not worker.keeper._others)


async def crashed_by_a_command(worker: Supervisor) -> None:
    with pytest.raises(WorkerCrashed):
        await value(worker, request("die", "die"))
    await until(lambda: worker.counters.restarts == 1 and not worker.keeper._others)


async def stuck(worker: Supervisor) -> None:
    with pytest.raises((DeadlineExceeded, WorkerCrashed)):
        await value(worker, request("stuck", "stuck", budget=0.5))
    await until(lambda: worker.counters.restarts == 1 and not worker.keeper._others, 20)


@pytest.mark.parametrize("end", [stopped, recycled, crashed, crashed_by_a_command, stuck])
def test_nothing_of_it_outlives_an_interpreter(
    tmp_path: Path, innocents: list[int], end: Callable[[Supervisor], Awaitable[None]]
) -> None:
    async def body() -> None:
        policy = replace(POLICY, cancel_grace=0.1)
        worker = supervisor(tmp_path, policy=policy, adapter=FAMILY, adapter_args={})
        await worker.start()
        try:
            family = {kind: await value(worker, request(kind, kind)) for kind in HIDDEN}
            found = tree.find(worker.interpreter.child.launch.env["SNAKEPIT_TOKEN"])
            assert {process.pid for process in found} == {worker.interpreter.child.pid, *family.values()}
            await end(worker)
            assert {kind: pid for kind, pid in family.items() if alive(pid)} == {}
        finally:
            await worker.stop()

    run(body)


@pytest.mark.parametrize("end", [stopped, recycled])
def test_a_child_that_only_its_parent_shows_ends_too(
    tmp_path: Path, innocents: list[int], end: Callable[[Supervisor], Awaitable[None]]
) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path, adapter=FAMILY, adapter_args={})
        await worker.start()
        try:
            child = await value(worker, request("unmarked"))
            assert alive(child)
            await end(worker)
            assert not alive(child)
        finally:
            await worker.stop()

    run(body)


@pytest.mark.parametrize("end", [stopped, recycled, crashed, crashed_by_a_command, stuck])
def test_memory_with_a_name_goes_with_its_interpreter(
    tmp_path: Path, end: Callable[[Supervisor], Awaitable[None]]
) -> None:
    """A process that Python starts for it removes it, when the interpreter is gone: that needs a moment."""

    async def body() -> None:
        worker = supervisor(
            tmp_path, policy=replace(POLICY, cancel_grace=0.1), adapter=FAMILY, adapter_args={}
        )
        await worker.start()
        try:
            name, tracker = await value(worker, request("shared_memory"))
            memory = f"/dev/shm/{name}"
            assert alive(tracker) and os.access(memory, os.F_OK)
            await end(worker)
            assert not alive(tracker) and not os.access(memory, os.F_OK)
        finally:
            await worker.stop()

    run(body)


def test_a_family_that_grows_while_it_is_ended_is_ended(tmp_path: Path, innocents: list[int]) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path, adapter=FAMILY, adapter_args={})
        await worker.start()
        try:
            token = worker.interpreter.child.launch.env["SNAKEPIT_TOKEN"]
            await value(worker, request("forker"))
            await until(lambda: len(tree.find(token)) > 5)
            await crashed(worker)
            assert tree.find(token) == []
        finally:
            await worker.stop()

    run(body)


def test_nothing_of_it_outlives_a_worker_that_is_killed(tmp_path: Path, innocents: list[int]) -> None:
    """The interpreter sees the end of its lifeline and takes along what its commands have started."""
    words = [sys.executable, "-c", HOST, str(tmp_path), FAMILY, *HIDDEN]
    host = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT)
    assert host.stdout is not None
    pids = [int(word) for word in host.stdout.readline().split()]
    host.kill()
    host.communicate()
    assert len(pids) == 1 + len(HIDDEN)
    wait_until(lambda: not any(map(alive, pids)))
    registry.sweep()


def test_a_sweep_finds_what_a_killed_worker_and_its_killed_interpreter_left(
    tmp_path: Path, innocents: list[int]
) -> None:
    words = [sys.executable, "-c", HOST, str(tmp_path), FAMILY, *HIDDEN]
    host = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT)
    assert host.stdout is not None
    interpreter, *family = [int(word) for word in host.stdout.readline().split()]
    os.kill(host.pid, signal.SIGSTOP)  # it buries nobody any more
    os.kill(interpreter, signal.SIGKILL)
    host.kill()
    host.communicate()
    assert all(map(alive, family))
    assert set(registry.sweep().killed) == set(family)
    assert not any(map(alive, family))
