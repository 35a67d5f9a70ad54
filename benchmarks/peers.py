"""The peers that pools are measured against: actor classes importable by name, so that Ray does not pickle
them by value."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

CHILD = """
import sys, json
for line in sys.stdin:
    a = json.loads(line)
    print(json.dumps({"result": a["a"] + a["b"]}), flush=True)
"""


class Bare:
    """An async actor that does the work itself: the limit of what Ray allows."""

    async def add(self, a: float, b: float) -> dict[str, float]:
        return {"result": a + b}

    async def pid(self) -> int:
        return os.getpid()


class Chunks:
    """An async actor that yields what the showcase's `stream_data` yields."""

    async def stream_data(self, count: int) -> AsyncIterator[dict[str, object]]:
        for i in range(count):
            yield {"index": i, "total": count, "timestamp": time.time(), "is_final": i == count - 1}


class PipeOwner:
    """What people write by hand: an actor that owns a child over a pipe, one JSON line each way."""

    def __init__(self) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def add(self, a: float, b: float) -> dict[str, float]:
        self.child.stdin.write(json.dumps({"a": a, "b": b}) + "\n")
        self.child.stdin.flush()
        result: dict[str, float] = json.loads(self.child.stdout.readline())
        return result


def no_op_of_serve() -> Any:
    """Ray Serve's handle to one replica that does nothing."""
    from ray import serve

    @serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
    class NoOp:
        async def __call__(self) -> None:
            return None

    return serve.run(NoOp.bind(), name="noop", route_prefix=None)


def add_pair(a: int) -> dict[str, int]:
    """The work of one request, for an executor of this machine's processes."""
    return {"result": a + 1}


class BareArrays:
    """An async actor that adds one to an array itself."""

    async def plus_one(self, x: Any) -> Any:
        return x + 1
