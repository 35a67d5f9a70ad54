"""What tests of one worker share: a specification, requests, and the interpreter's own log as the witness of
what it executed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from snakepit_ray.core.worker.recycling import Reason
from snakepit_ray.errors import ToolNotFound
from snakepit_ray.ledger import Entry, Ledger
from snakepit_ray.supervisor import (
    Done,
    InterpreterSpec,
    OtherWorkers,
    PoolSide,
    Ports,
    Record,
    Supervisor,
    WorkerPolicy,
)
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded
from snakepit_ray.wire.host_call import HostCall, HostHandler
from snakepit_ray.wire.replies import outcome

ROOT = Path(__file__).resolve().parents[2]
LOG = str(ROOT / "tests/adapters/log.py") + ":Log"
BRIDGE = str(ROOT / "bridge/python/main.py")
# How requests travel where a test does not say so; the last one counts.
WIRE = [os.environ.get("SNAKEPIT_TEST_WIRE", "auto")]
POLICY = WorkerPolicy(queue_limit=100, retry_backoff=0.01)
FORKED = str(ROOT / "tests/adapters/forked.py") + ":Forked"
# Of a worker whose replacements may be forked, with the wire whose starts are cheapest.
FORKS: dict[str, Any] = {
    "wire": "frames",
    "adapter": FORKED,
    "adapter_args": {},
    "forks": True,
    "policy": replace(POLICY, overlap=False),
}


def spec(tmp_path: Path, **changes: Any) -> InterpreterSpec:
    config = {
        "adapter": changes.pop("adapter", LOG),
        "adapter_args": changes.pop("adapter_args", {"path": str(tmp_path / "log")}),
        "capacity": changes.pop("capacity", 1),
        "thread_profile": False,
        "unserializable": "error",
        "binary_threshold": 10_240,
        "max_message_size": 100 << 20,
        "worker_id": "w-0",
        "pool": "test",
        "cwd": str(tmp_path),
        "code_paths": [str(tmp_path)],
    }
    given: dict[str, Any] = {
        "worker_id": "w-0",
        "argv": (changes.pop("executable", sys.executable), changes.pop("script", BRIDGE)),
        "user_env": {},
        "cwd": str(tmp_path),
        "thread_limits": 1,
        "startup_timeout": 20.0,
        "shutdown_grace": 0.5,
        "config": config,
        "shared_memory": 64 << 20,
        "wire": WIRE[-1],
    }
    return InterpreterSpec(**{**given, **changes})


async def refuse_host_calls(call: HostCall) -> Encoded:
    raise ToolNotFound.named(call.method, [])


def ports(*given: Any) -> Ports:
    """These ports; the others are those of a worker on its own."""
    kinds = {"others": OtherWorkers, "pool": PoolSide, "record": Record}
    return Ports(**{name: one for name, kind in kinds.items() for one in given if isinstance(one, kind)})


def supervisor(
    tmp_path: Path,
    *,
    policy: WorkerPolicy | None = None,
    around: Any = None,
    on_host_call: HostHandler = refuse_host_calls,
    **changes: Any,
) -> Supervisor:
    made = spec(tmp_path, **changes)
    return Supervisor(
        lambda: made,
        worker_id="w-0",
        pool="test",
        policy=policy or POLICY,
        incarnation=1,
        on_host_call=on_host_call,
        forward=lambda stream, line: None,
        ports=around if callable(around) else lambda supervisor: ports(around),
    )


def request(
    command: str, number: int = 1, *, budget: float = 20.0, queue: float = 20.0, **args: Any
) -> pb.Request:
    options = {name: args.pop(name) for name in ("idempotent", "retries") if name in args}
    return pb.Request(
        id=str(number),
        command=command,
        args=pb.Payload(json=json.dumps(args).encode()),
        budget_ms=int(budget * 1000),
        options=pb.CallOptions(queue_ms=int(queue * 1000), **options),
    )


async def value(worker: Supervisor, asked: pb.Request) -> Any:
    done = await worker.execute(asked, may_move=False)
    assert isinstance(done, Done)
    return outcome(done.answer.reply, done.answer.buffers, asked, None).value()


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 60))


def executed(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    return log.read_text().split() if log.exists() else []


async def until(condition: Callable[[], bool], seconds: float = 30.0, pause: float = 0.0) -> None:
    """Waits for the thing. With a `pause` of some milliseconds between two looks what a process takes a long
    time for has the processor meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        look = (
            asyncio.to_thread(threading.Event().wait, pause) if pause else asyncio.to_thread(os.sched_yield)
        )
        await asyncio.wait([asyncio.ensure_future(look)])


# ---- interpreters that say what they have begun ------------------------------------------------------------


class Marked(Record):
    """The ledger of a worker actor, without the actor."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def begins(self, request: pb.Request, marked: bool) -> Entry | None:
        entry = self.ledger.begin(request.id, marked=marked)
        return entry if marked else None


def marked(
    tmp_path: Path,
    body: Callable[[Supervisor], Awaitable[None]],
    kind: type[Marked] = Marked,
    **changes: Any,
) -> None:
    """Runs `body` with a worker whose interpreters mark; at its end nothing runs, and its slots are free."""

    async def around() -> None:
        ledger = Ledger.open("w-0", tmp_path / "node")
        settings = {"around": kind(ledger), "marks": ledger.descriptor, **changes}
        worker = supervisor(tmp_path, **settings)
        await worker.start()
        try:
            await body(worker)
            await until(lambda: worker.running == worker.waiting == 0)
            await until(lambda: worker.admission.free == worker.policy.capacity)
        finally:
            await worker.stop()
            ledger.close()

    (tmp_path / "node").mkdir()
    run(around)


def stop(worker: Supervisor) -> int:
    """The interpreter begins nothing any more, and takes what it is sent; its pid."""
    assert worker.interpreter is not None
    pid = worker.interpreter.child.pid
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)  # when all of its threads have stopped
    return pid


# ---- interpreters that replace others ----------------------------------------------------------------------


def pid_of(worker: Supervisor) -> int:
    assert worker.interpreter is not None
    return worker.interpreter.child.pid


async def replaced(worker: Supervisor) -> int:
    """Another interpreter serves, because the one before was too old; its pid."""
    before, count = pid_of(worker), worker.counters.recycled
    worker.keeper.recycle(Reason.TTL)
    worker.keeper.recycle(Reason.TTL)  # at once
    await until(lambda: worker.counters.recycled > count and pid_of(worker) != before, 30, 0.005)
    return pid_of(worker)


async def has_forker(worker: Supervisor) -> int:
    """The pid of the forker, once there is one."""
    await until(lambda: worker.keeper.forkers.pid is not None, 30, 0.005)
    assert worker.keeper.forkers.pid is not None
    return worker.keeper.forkers.pid


async def forked(worker: Supervisor) -> int:
    """A forked interpreter serves; the pid of its forker."""
    if worker.keeper.forkers.pid is None:
        await replaced(worker)
    forker = await has_forker(worker)
    await replaced(worker)
    assert await value(worker, request("parent", "parent")) == forker
    return forker
