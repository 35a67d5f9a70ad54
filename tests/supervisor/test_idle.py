"""What a worker and its interpreter have that wakes them up while nobody asks for anything."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from snakepit_ray.supervisor import Supervisor
from tests.supervisor.harness import request, run, supervisor, until, value

# Its user's code, stdin, signals, the order to end, deadlines, both sockets, and a connection's two ways.
THREADS = 10


def timers() -> list[asyncio.TimerHandle]:
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]


def test_nothing_but_the_next_look_at_the_interpreter(tmp_path: Path) -> None:
    """Without gRPC, whose threads wake up by themselves."""

    async def body() -> None:
        worker: Supervisor = supervisor(tmp_path, wire="frames")
        await worker.start()
        try:
            assert (await value(worker, request("run", 1, tag="x")))["tag"] == "x"
            await until(lambda: len(timers()) <= 2)  # the look, and the bound of this test
            assert worker.interpreter is not None
            assert len(os.listdir(f"/proc/{worker.interpreter.child.pid}/task")) <= THREADS
        finally:
            await worker.stop()

    run(body)
