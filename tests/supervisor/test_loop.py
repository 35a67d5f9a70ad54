"""A worker's event loop never stands still, whatever its interpreters are, print, start or leave behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snakepit_ray.core.worker.recycling import Limits
from snakepit_ray.errors import PayloadTooLarge, ProtocolMismatch, WorkerStartError
from snakepit_ray.process.threads import aside
from snakepit_ray.supervisor import CarePolicy, Supervisor
from snakepit_ray.supervisor.arena import Arena
from snakepit_ray.testing import MISBEHAVING_BRIDGE as MISBEHAVE
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded
from snakepit_ray.wire.host_call import HostCall
from snakepit_ray.worker.host_calls import LONGEST_CALL, worker_methods
from tests.loop_watch import LIMIT, LoopWatch, watching
from tests.supervisor.harness import POLICY, ROOT, request, run, supervisor, until, value

FAMILY = str(ROOT / "tests/adapters/family.py") + ":Family"
CARE = CarePolicy(interval=0.05, silence=20.0, limits=Limits(max_memory=1 << 50))
BALLAST = {"words": ["word"] * 100_000, "text": "x" * 2_000_000}


def watched(tmp_path: Path, body: Callable[[Supervisor], object], **changes: object) -> None:
    """Runs `body` with a worker whose whole life is watched."""

    async def whole() -> None:
        worker = supervisor(tmp_path, policy=replace(POLICY, care=CARE), **changes)
        with watching() as watch:
            await worker.start()
            try:
                await body(worker)
            finally:
                await worker.stop()
        assert watch.callbacks > 10
        assert watch.noted == []

    run(whole)


async def replaced(worker: Supervisor, pid: int) -> None:
    await until(lambda: worker.interpreter is not None and worker.interpreter.child.pid != pid)
    await until(lambda: not worker.keeper._others, 30)


# ---- a worker's life ---------------------------------------------------------------------------------------


def test_through_a_start_a_crash_a_recycle_and_an_end_with_hundreds_of_descendants(tmp_path: Path) -> None:
    async def body(worker: Supervisor) -> None:
        pid = worker.interpreter.child.pid
        assert await value(worker, request("many", 1, count=200)) == 200
        os.kill(pid, signal.SIGKILL)
        await replaced(worker, pid)
        pid = worker.interpreter.child.pid
        await value(worker, request("many", 2, count=200))
        worker.recycle()
        await replaced(worker, pid)
        await value(worker, request("many", 3, count=200))

    watched(tmp_path, body, adapter=FAMILY, adapter_args={"ballast": BALLAST})


FAILED_STARTS = [
    ("no_ready", WorkerStartError, "was not ready within startup_timeout=1 s"),
    ("exit_at_once", WorkerStartError, "exit code 7"),
    ("garbage_ready", WorkerStartError, "ready line"),
    ("wrong_version", ProtocolMismatch, "99"),
]


def test_through_starts_that_fail(tmp_path: Path) -> None:
    async def whole() -> None:
        with watching() as watch:
            for how, error, words in FAILED_STARTS:
                args = {"how": how, "ballast": BALLAST}
                seconds = 1.0 if how == "no_ready" else 30.0
                worker = supervisor(tmp_path, script=MISBEHAVE, adapter_args=args, startup_timeout=seconds)
                with pytest.raises(error, match=words):
                    await worker.start()
                await worker.stop()
        assert watch.noted == []

    run(whole)


@pytest.mark.parametrize("what", ["lines", "text"])
def test_while_it_prints_without_end(tmp_path: Path, what: str) -> None:
    async def body(worker: Supervisor) -> None:
        await value(worker, request("prints", what=what, size=4_000_000))

    watched(tmp_path, body, adapter=FAMILY, adapter_args={})


def test_while_memory_that_was_used_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GiB takes a quarter of a second: between large calls, and at the end of an interpreter."""
    size = 384 << 20

    async def body() -> None:
        with watching() as watch:
            arena = Arena(1 << 30, 10_000, "w-0")
            block = np.ones(size // 8)
            sent = pb.Request(args=pb.Payload(buffers=[pb.Buffer(beside=0)]))
            for _ in range(2):
                arena.withdraw(await arena.carry(sent, [block]))
                assert arena.resident >= size
                monkeypatch.setattr("snakepit_ray.supervisor.arena.REST_SECONDS", 0.0)
                assert await arena.rest(lambda: None)
                assert arena.resident == 0
            await arena.carry(sent, [block])
            await aside(arena.close)
        assert watch.noted == []

    run(body)


# ---- host calls --------------------------------------------------------------------------------------------


async def emitted(size: int) -> Encoded:
    args = {"event": "mine", "metadata": {"words": ["w"] * (size // 6)}}
    payload = Encoded(json.dumps(args).encode(), [], [])
    call = HostCall("telemetry.emit", payload, "w-0", "r", "", None, "", "", None)
    answer = worker_methods("w-0", "test", "node", lambda: (1, 1)).serve(call)
    assert isinstance(answer, Awaitable)
    return await answer


def test_through_the_largest_host_call(tmp_path: Path) -> None:
    async def body() -> None:
        with watching() as watch:
            assert (await emitted(LONGEST_CALL - 1000)).json == b"null"
        assert watch.noted == []

    run(body)


def test_a_host_call_that_would_hold_the_loop_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        with pytest.raises(PayloadTooLarge, match=f"at most {LONGEST_CALL}"):
            await emitted(2 * LONGEST_CALL)

    run(body)


# ---- the watch itself --------------------------------------------------------------------------------------


def burns(watch: LoopWatch) -> None:
    end = time.thread_time() + 1.5 * LIMIT
    while time.thread_time() < end:
        pass


def once_noted(watch: LoopWatch, then: Callable[[], object]) -> threading.Thread:
    """Does `then` when something was noted: the loop's thread is let go, however long a busy machine
    takes."""

    def wait() -> None:
        deadline = time.monotonic() + 10
        while not any("asleep" in line for line in watch.noted) and time.monotonic() < deadline:
            over.wait(0.01)
        then()

    over = threading.Event()
    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def fills_a_pipe(watch: LoopWatch) -> None:
    reading, writing = os.pipe()
    drain = once_noted(watch, lambda: os.read(reading, 1 << 20))
    os.write(writing, b"x" * (1 << 17))
    drain.join()
    os.close(reading)
    os.close(writing)


def waits_for_a_process(watch: LoopWatch) -> None:
    process = subprocess.Popen(["sleep", "600"])
    end = once_noted(watch, process.kill)
    os.waitpid(process.pid, 0)
    process.returncode = -signal.SIGKILL
    end.join()


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (burns, "of processor time"),
        (fills_a_pipe, "asleep for"),
        (waits_for_a_process, "asleep for"),
        (lambda watch: os.listdir("/proc"), "os.listdir"),
        (lambda watch: subprocess.run(["true"], check=True), "subprocess.Popen"),
        (lambda watch: Path("/dev/null").write_text(""), "open"),
    ],
)
def test_what_holds_a_loop_is_noted(job: Callable[[LoopWatch], object], words: str) -> None:
    async def body() -> None:
        with watching() as watch:
            await asyncio.sleep(0)
            job(watch)
            await asyncio.sleep(0)
        assert any(words in line for line in watch.noted), watch.noted

    run(body)


def test_a_busy_machine_is_not_noted() -> None:
    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            pass

    async def body() -> None:
        with watching() as watch:
            for _ in range(20):
                await asyncio.sleep(0.01)
        assert watch.noted == []

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        run(body)
    finally:
        over.set()
        for thread in threads:
            thread.join()
