"""A real interpreter is written down while it lives, and not a moment longer, however its start ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snakepit_ray.errors import ConfigError, ProtocolMismatch, WorkerStartError
from snakepit_ray.process import child, registry
from snakepit_ray.process.node import node_directory
from snakepit_ray.process.registry import Entry, State
from snakepit_ray.supervisor import Interpreter
from snakepit_ray.testing import MISBEHAVING_BRIDGE as MISBEHAVE
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.conftest import interpreters, left_behind
from tests.supervisor.harness import refuse_host_calls, run, spec, supervisor, until


@pytest.fixture(autouse=True)
def _own_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary directory for each test: its registry has its own entries only."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def remains(tmp_path: Path) -> set[Path]:
    """Entries and socket directories."""
    node = node_directory(tmp_path)
    return {*node.glob("*/*"), *tmp_path.glob("snakepit-*")} - {node}


def starting(tmp_path: Path, **changes: object) -> asyncio.Task[Interpreter]:
    begun = Interpreter.start(
        spec(tmp_path, **changes), pb.Epoch(incarnation=1, number=1), refuse_host_calls, lambda *_: None
    )
    return asyncio.ensure_future(begun)


def test_an_interpreter_is_written_down_while_it_lives(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        try:
            (entry,) = registry.entries()
            record, state, processes = entry
            pid = worker.interpreter.child.pid
            assert (record.worker_id, record.pool, record.owner_pid) == ("w-0", "test", os.getpid())
            assert state is State.ALIVE
            assert [process.pid for process in processes] == [pid] == [record.pid]
            assert Path(record.directory) in remains(tmp_path)
            assert registry.sweep() == registry.Swept([], 0, [])
            os.kill(pid, 9)

            def replaced() -> bool:
                found: list[Entry] = registry.entries()
                return [entry.state for entry in found] == [State.ALIVE] and found[0].record.pid != pid

            await until(replaced)
        finally:
            await worker.stop()
        assert remains(tmp_path) == set()

    run(body)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"executable": "/nowhere/python"}, WorkerStartError),
        (
            {"script": MISBEHAVE, "adapter_args": {"how": "no_ready"}, "startup_timeout": 1.0},
            WorkerStartError,
        ),
        ({"script": MISBEHAVE, "adapter_args": {"how": "exit_at_once"}}, WorkerStartError),
        ({"script": MISBEHAVE, "adapter_args": {"how": "wrong_version"}}, ProtocolMismatch),
    ],
)
def test_a_failed_start_leaves_no_entry(
    tmp_path: Path, changes: dict[str, object], error: type[Exception]
) -> None:
    async def body() -> None:
        with pytest.raises(error):
            await starting(tmp_path, **changes)
        assert remains(tmp_path) == set() and left_behind() == set()

    run(body)


@pytest.mark.parametrize("when", ["once", "written", "executed", "said"])
def test_a_cancelled_start_leaves_nothing(tmp_path: Path, when: str) -> None:
    def pids() -> list[int]:
        return [entry.record.pid for entry in registry.entries()]

    moments: dict[str, Callable[[], bool]] = {
        "once": lambda: True,
        "written": lambda: len(pids()) == 1,
        "executed": lambda: bool(interpreters()),
        "said": lambda: any(pids()),
    }

    async def body() -> None:
        start = starting(tmp_path)
        await until(moments[when])
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        await until(lambda: not interpreters())
        assert remains(tmp_path) == set()

    run(body)


def test_a_start_that_dies_between_exec_and_its_pipes_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []

    async def connect(self: child.Child, line: bytes) -> None:
        seen.append(interpreters())
        raise asyncio.CancelledError

    monkeypatch.setattr(child.Child, "connect", connect)

    async def body() -> None:
        start = starting(tmp_path)
        with pytest.raises(asyncio.CancelledError):
            await start
        assert len(seen[0]) == 1
        await until(lambda: not interpreters())
        assert remains(tmp_path) == set()

    run(body)


def test_a_registry_that_cannot_be_trusted_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / f"snakepit-{os.geteuid()}").symlink_to("/nowhere")

    async def body() -> None:
        with pytest.raises(ConfigError, match="symbolic link"):
            await starting(tmp_path)
        assert remains(tmp_path) == set()

    run(body)
