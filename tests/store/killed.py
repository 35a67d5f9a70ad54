"""A store in a process that kills itself with SIGKILL: run by test_disk.py."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from snakepit_ray.core.state.asked import Put
from snakepit_ray.store.disk import Disk
from snakepit_ray.store.store import Store
from tests.store.harness import POOL, Copies, ask, assign, has_lease, register, until


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def say(word: Any) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def increments(path: Path, done: int, target: int) -> None:
    """One writer adds one at a time. The store is killed after the commit of the next one but one, so that
    this one is never answered; ops are named by what they do, as those of a request that is sent again."""
    say(done)
    commits = 0

    def committed(count: int) -> None:
        nonlocal commits
        commits += count
        if commits > 2:
            die()

    store = Store(Disk.open(path, True, committed=committed if done else lambda count: None))
    if not done:
        await ask(store, Put("s", "begin", (register("n", "integer", 0),), creation=POOL))
    for number in range(done, target):
        wrote = await ask(store, Put("s", f"add-{number}", (assign("n", number + 1, number + 1),)))
        assert wrote.outcome[0].error is None, wrote
        say(number + 1)
        if not done:
            break
    die()


async def writes(path: Path, count: int) -> None:
    """Says what was acknowledged."""
    store = Store(Disk.open(path, True))

    async def write(number: int) -> str:
        name = f"x{number}"
        await ask(store, Put("s", name, (register(name, "integer", number),), creation=POOL))
        return name

    for begin in range(0, count, 100):
        for name in await asyncio.gather(*map(write, range(begin, begin + 100))):
            say(name)
    die()


async def leases(path: Path) -> None:
    """Grants one."""
    store = Store(Disk.open(path, True))
    Copies(store, "w")
    await ask(store, Put("s", "x", (register("x", "float", 1),), creation=POOL))
    await until(lambda: has_lease(store, "s", "w"))
    die()


if __name__ == "__main__":
    mode, path, *numbers = sys.argv[1:]
    asyncio.run(
        {"increments": increments, "writes": writes, "leases": leases}[mode](Path(path), *map(int, numbers))
    )
