"""However often interpreters start and end, and however they do, nothing of them stays in the worker."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.errors import SnakepitError
from snakepit_ray.process import node, tree
from snakepit_ray.supervisor import Interpreter
from snakepit_ray.testing import MISBEHAVING_BRIDGE as MISBEHAVE
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.conftest import interpreters
from tests.supervisor.harness import refuse_host_calls, run, spec, until


def starting(tmp_path: Path, **changes: object) -> asyncio.Task[Interpreter]:
    made = spec(tmp_path, **{"shutdown_grace": 0.3, **changes})
    epoch = pb.Epoch(incarnation=1, number=1)
    return asyncio.ensure_future(Interpreter.start(made, epoch, refuse_host_calls, lambda *_: None))


async def stopped(tmp_path: Path, chance: random.Random) -> None:
    one = await starting(tmp_path)
    await one.stop()


async def killed(tmp_path: Path, chance: random.Random) -> None:
    one = await starting(tmp_path)
    os.kill(one.child.pid, chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM]))
    if chance.random() < 0.5:
        await one.last_words()
    await one.kill()


async def cut(tmp_path: Path, chance: random.Random) -> None:
    begun = starting(tmp_path)
    await asyncio.wait([begun], timeout=chance.random() * 0.3)
    begun.cancel()
    await asyncio.wait([begun])
    if not begun.cancelled():
        await begun.result().stop()


async def failed(tmp_path: Path, chance: random.Random) -> None:
    how = chance.choice(["exit_at_once", "garbage_ready", "wrong_version"])
    with pytest.raises(SnakepitError):
        await starting(tmp_path, script=MISBEHAVE, adapter_args={"how": how})


async def never_executed(tmp_path: Path, chance: random.Random) -> None:
    with pytest.raises(SnakepitError):
        await starting(tmp_path, executable="/nowhere/python")


def zombies() -> set[int]:
    """Children of this process that have ended and that nobody has reaped."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == os.getpid():
            found.add(int(name))
    return found


def kept() -> dict[str, Any]:
    """What this process has open, and what lies in the temporary directory."""
    gc.collect()
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
        except OSError:  # what has just listed them
            continue
    top = node.node_directory()
    files = [*Path(tempfile.gettempdir()).glob("snakepit-*"), *top.glob("*/*")]
    return {
        "descriptors": Counter(links),
        "files": sorted(str(path) for path in files if path != top),
        "zombies": zombies(),
        "interpreters": interpreters(),
    }


@pytest.mark.parametrize("cycles", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cycles: int) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")

    async def body() -> None:
        chance, ways = random.Random(seed), [stopped, killed, cut, failed, never_executed]
        tasks = asyncio.all_tasks()
        for way in (stopped, failed):  # what is made once: threads, gRPC's own descriptors
            await way(tmp_path, chance)
        await until(lambda: asyncio.all_tasks() <= tasks)
        before, threads = kept(), threading.active_count()
        for number in range(cycles):
            await ways[number % len(ways)](tmp_path, chance)
        await until(lambda: asyncio.all_tasks() <= tasks)
        after = kept()
        more = after.pop("descriptors") - before.pop("descriptors")
        assert more.pop("anon_inode", 0) < 8, "gRPC's pollers come and go: less than one a cycle"
        assert (after, more) == (before, Counter())
        assert threading.active_count() <= threads + 8, "one thread a cycle would be more"
        assert tree.find("") == []

    asyncio.run(asyncio.wait_for(body(), 600)) if cycles > 100 else run(body)
