"""Starts in surroundings that are not the usual ones, and starts that must fail with the right word."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import ConfigError, InvalidArguments, WorkerStartError
from snakepit_ray.process import node, registry, sockets, threads, tree
from snakepit_ray.supervisor import Interpreter, interpreter
from snakepit_ray.testing import MISBEHAVING_BRIDGE as MISBEHAVE
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.worker.specs import interpreter_spec
from tests.conftest import interpreters
from tests.supervisor.harness import (
    LOG,
    ROOT,
    refuse_host_calls,
    request,
    run,
    spec,
    supervisor,
    until,
    value,
)

BEHIND = """
import json, os, sys, time
ready = int(sys.argv[sys.argv.index("--ready-fd") + 1])
sys.stdin.readline()
line = {"snakepit": 2, "address": "unix:/nowhere/s", "pid": os.getpid(), "language": "x", "version": "1",
        "bridge": "1", "capacity": 1, "adapter": "x", "commands": {}, "features": ["frames"]}
os.write(ready, json.dumps(line).encode() + b"\\n")
time.sleep(600)
"""


LACKING = """
import sys
sys.path.insert(0, {bridge!r})
from snakepit_bridge.main import config
config.FEATURES = ()
from snakepit_bridge.main.bridge import main
main()
"""


def starting(
    tmp_path: Path, *, clock: Callable[[], float] = time.monotonic, **changes: Any
) -> asyncio.Task[Interpreter]:
    epoch = pb.Epoch(incarnation=1, number=1)
    begun = Interpreter.start(spec(tmp_path, **changes), epoch, refuse_host_calls, lambda *_: None, clock)
    return asyncio.ensure_future(begun)


def descriptors() -> set[str]:
    """What this process has open, by name, but for what looks."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue
    return found


def opened() -> int | None:
    """A descriptor, if there is one left."""
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """This process can open `free` more. The limit is of their numbers, and what other tests left open has
    any number: so all below a limit are taken, and a few given back."""
    gc.collect()  # what earlier tests left to the collector would become free meanwhile
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    highest = max(int(name.split()[0]) for name in descriptors())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + free, limits[1]))
    try:
        while (descriptor := opened()) is not None:
            taken.append(descriptor)
        for _ in range(free):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def remains(directory: Path) -> list[object]:
    """The directory, where it is there still, and what the registry has of it."""
    entries = [entry for entry in registry.entries() if entry.record.directory == str(directory)]
    return [*([directory] if directory.exists() else []), *entries]


# ---- surroundings ------------------------------------------------------------------------------------------


@pytest.fixture
def venv(tmp_path: Path) -> str:
    """The Python of another virtual environment, with this one's packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    packages = next((tmp_path / "env/lib").glob("python*/site-packages"))
    (packages / "ours.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    return str(tmp_path / "env/bin/python")


def test_programs_that_commands_start_are_in_the_interpreters_environment(tmp_path: Path, venv: str) -> None:
    which = "import sys; print(sys.prefix)"

    async def body() -> None:
        config = PoolConfig(name="test", interpreter=venv, adapter=LOG, cwd=str(tmp_path))
        worker = supervisor(tmp_path, executable=venv, user_env=interpreter_spec(config, "w-0").user_env)
        await worker.start()
        try:
            asked = request("output_of", argv=["python", "-c", which])
            assert await value(worker, asked) == f"{tmp_path}/env\n"
            environ = (await value(worker, request("environment", 2)))["env"]
            assert environ["VIRTUAL_ENV"] == f"{tmp_path}/env" and "PYTHONHOME" not in environ
        finally:
            await worker.stop()

    run(body)


@pytest.mark.parametrize("how", ["-I", "PYTHONSAFEPATH"])
def test_an_isolated_python_finds_its_bridge(tmp_path: Path, how: str) -> None:
    executable, env = sys.executable, {}
    if how == "-I":
        wrapper = tmp_path / "isolated"
        wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -I "$@"\n')
        wrapper.chmod(0o755)
        executable = str(wrapper)
    else:
        env = {"PYTHONSAFEPATH": "1"}

    async def body() -> None:
        worker = supervisor(tmp_path, executable=executable, user_env=env)
        await worker.start()
        try:
            assert (await value(worker, request("run", tag="a")))["tag"] == "a"
        finally:
            await worker.stop()

    run(body)


@pytest.fixture
def long_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A TMPDIR of 112 characters, as a batch system gives it."""
    path = os.path.join(tempfile.mkdtemp(prefix="sp-", dir="/tmp"), "")
    top, path = path, path.ljust(112, "x")
    os.mkdir(path)
    monkeypatch.setattr("tempfile.tempdir", path)
    yield path
    shutil.rmtree(top)


def test_a_long_tmpdir_is_no_obstacle(tmp_path: Path, long_tmpdir: str) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path, user_env={"TMPDIR": long_tmpdir})
        await worker.start()
        directory = Path(worker.interpreter.place.directory)
        try:
            assert (await value(worker, request("run", tag="a")))["tag"] == "a"
            facts = os.lstat(directory)
            assert (facts.st_mode & 0o777, facts.st_uid) == (0o700, os.geteuid())
            assert str(directory.parent) in sockets.SHORT
            assert [entry.record.directory for entry in registry.entries()] == [str(directory)]
        finally:
            await worker.stop()
        assert remains(directory) == []

    run(body)


def test_a_sweep_removes_the_directory_that_a_long_tmpdir_led_to(tmp_path: Path, long_tmpdir: str) -> None:
    directory = sockets.new_path()
    os.mkdir(directory)
    innocent = tempfile.mkdtemp(prefix="other-", dir=os.path.dirname(directory))
    try:
        assert sockets.remove([directory, innocent, "/tmp", "/"]) == [Path(directory)]
        assert not os.path.exists(directory) and os.path.exists(innocent)
    finally:
        os.rmdir(innocent)


def test_a_place_where_others_could_move_it_is_not_taken(
    tmp_path: Path, long_tmpdir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsafe = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))
    unsafe.chmod(0o777)
    monkeypatch.setattr(sockets, "SHORT", (str(unsafe), "/nowhere"))
    try:
        with pytest.raises(OSError, match="has 112 bytes, and a socket's name at most 107"):
            sockets.new_path()
        unsafe.chmod(0o1777)
        assert Path(sockets.new_path()).parent == unsafe
    finally:
        shutil.rmtree(unsafe)


@pytest.fixture
def no_interrupts() -> Iterator[None]:
    """As in a Ray worker that was started by a shell in the background: SIGINT is ignored, and blocked."""
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threads._threads.cache_clear()  # those that start processes have the mask of who made them
    yield
    threads._threads.cache_clear()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGINT, ignored)


def test_programs_that_commands_start_can_be_interrupted(tmp_path: Path, no_interrupts: None) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        try:
            said = await value(worker, request("output_of", argv=["grep", "^Sig[BI]", "/proc/self/status"]))
            sets = {line.split()[0]: int(line.split()[1], 16) for line in said.splitlines()}
            interrupt = 1 << (signal.SIGINT - 1)
            assert not (sets["SigBlk:"] | sets["SigIgn:"]) & interrupt
        finally:
            await worker.stop()

    run(body)


# ---- the start line ----------------------------------------------------------------------------------------


def test_large_arguments_of_an_adapter_arrive(tmp_path: Path) -> None:
    path = str(tmp_path / "log") + "/." * 1_000_000

    async def body() -> None:
        worker = supervisor(tmp_path, adapter_args={"path": str(tmp_path / "log"), "ballast": path})
        await worker.start()
        try:
            assert await value(worker, request("ballast")) == len(path)
        finally:
            await worker.stop()

    run(body)


def test_startup_timeout_counts_for_a_child_that_does_not_read_its_line(tmp_path: Path) -> None:
    script = tmp_path / "deaf.py"
    script.write_text("import time; time.sleep(600)")

    async def body() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        counting = asyncio.ensure_future(count())
        args = {"path": None, "ballast": "x" * 1_000_000}
        with pytest.raises(WorkerStartError, match=r"startup_timeout=1 s"):
            await starting(tmp_path, script=str(script), adapter_args=args, startup_timeout=1.0)
        counting.cancel()
        assert turns > 10, "the event loop stood still while the line was written"
        assert not interpreters()

    run(body)


# ---- the right word ----------------------------------------------------------------------------------------


def test_a_tmpdir_in_which_nothing_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/self")  # nobody can write there, whoever he is

    async def body() -> None:
        with pytest.raises(ConfigError, match=r"'/proc/self/.*; set TMPDIR, where Ray is started"):
            await starting(tmp_path)

    run(body)


def test_a_registry_that_cannot_be_made() -> None:
    with pytest.raises(
        ConfigError, match=r"cannot be made: .*'/proc/self/snakepit-.*; set TMPDIR, where Ray"
    ):
        node.make("processes", "/proc/self")


def test_a_working_directory_that_is_not_there(tmp_path: Path) -> None:
    async def body() -> None:
        with pytest.raises(
            WorkerStartError, match=r"working directory '/nowhere/at/all' is not there.*set cwd="
        ):
            await starting(tmp_path, cwd="/nowhere/at/all")

    run(body)


def test_arguments_of_an_adapter_that_are_no_json(tmp_path: Path) -> None:
    async def body() -> None:
        with pytest.raises(WorkerStartError, match=r"adapter_args cannot be written as JSON: .*set"):
            await starting(tmp_path, adapter_args={"path": {1, 2}})
        assert not interpreters()

    run(body)


def test_a_machine_without_descriptors(tmp_path: Path) -> None:
    async def body() -> None:
        await asyncio.to_thread(tree.find, "")  # the threads of a start are there
        words = r"(no process can be started|cannot be made).*Too many open"
        with few_descriptors(3), pytest.raises(WorkerStartError, match=words):
            await starting(tmp_path, shared_memory=0)
        assert not interpreters()

    run(body)


# ---- nothing is left ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["grpc", "auto", "frames"])
def test_a_start_that_fails_after_its_ready_line_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: str
) -> None:
    script = tmp_path / "behind.py"
    script.write_text(BEHIND)
    monkeypatch.setattr(interpreter, "LAST_WORDS_SECONDS", 0.01)

    async def body() -> None:
        async def fail() -> None:
            # It begins, has its process, and awaits the line: then startup_timeout is over.
            passed = iter([0.0] * 3)
            clock = lambda: next(passed, 60.0)  # noqa: E731
            with pytest.raises(WorkerStartError, match="said it was ready but does not answer"):
                await starting(tmp_path, clock=clock, script=str(script), startup_timeout=60.0, wire=wire)

        tasks = asyncio.all_tasks()
        await fail()
        await until(lambda: asyncio.all_tasks() <= tasks)
        open_before = len(descriptors())
        for _ in range(3):
            await fail()
        await until(lambda: asyncio.all_tasks() <= tasks)
        assert len(descriptors()) <= open_before

    run(body)


def test_a_stop_can_be_cancelled_and_repeated(tmp_path: Path) -> None:
    async def body() -> None:
        one = await starting(tmp_path, script=MISBEHAVE, adapter_args={"how": "ignore_sigterm", "path": None})
        for delay in (0, 0.01, 0.2):
            stopping = asyncio.ensure_future(one.stop())
            await asyncio.wait([stopping], timeout=delay)
            stopping.cancel()
            await asyncio.wait([stopping])
        first, second = await asyncio.gather(one.stop(), one.kill())
        assert first == second == await one.stop()
        assert not interpreters() and remains(Path(one.place.directory)) == []

    run(body)


def test_a_stop_ends_the_process_also_when_its_client_fails(tmp_path: Path) -> None:
    async def body() -> None:
        one = await starting(tmp_path)
        await one.client.close()  # as after a stop that was cut

        async def broken(*_: object) -> bool:
            raise RuntimeError("an exception of another family")

        one.client.shutdown = broken  # type: ignore[method-assign]
        with pytest.raises(RuntimeError):
            await one.stop()
        assert not interpreters()
        await one.stop()

    run(body)


def test_requests_that_a_bridge_does_not_know_are_refused_and_others_run(tmp_path: Path) -> None:
    script = tmp_path / "lacking.py"
    script.write_text(LACKING.format(bridge=str(ROOT / "bridge/python")))
    batch, stream, refs = request("run", 1, tag="a"), request("run", 2, tag="b"), request("run", 3, tag="c")
    batch.batch.count = 1
    stream.stream = True
    refs.refs.add(name="x")

    async def body() -> None:
        worker = supervisor(tmp_path, script=str(script))
        await worker.start()
        try:
            for number, (asked, name) in enumerate([(batch, "batches"), (stream, "streams"), (refs, "refs")]):
                with pytest.raises(InvalidArguments, match=f"does not know {name}.*arena"):
                    await worker.execute(asked, may_move=False)
                assert await value(worker, request("run", 10 + number, tag="d"))
        finally:
            await worker.stop()

    run(body)
