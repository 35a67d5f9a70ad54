"""A worker's service runs a session's requests in their caller's order, in whatever order they arrive; a real
interpreter, no Ray."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from snakepit_ray.config import PoolConfig
from snakepit_ray.ledger import UNKNOWN
from snakepit_ray.supervisor import Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.worker.memory import About, Memory
from snakepit_ray.worker.requests import Requests
from tests.supervisor.harness import executed, request, run, supervisor


class Alone:
    """A pool of one worker: nothing lives elsewhere."""

    async def elsewhere(self, asked: pb.Request, state: object = None) -> None:
        """It runs here, as a router says after a while."""
        await asyncio.sleep(random.random() / 100)

    place = elsewhere


def service(worker: Supervisor, tmp_path: Path) -> Any:
    ledger: Any = SimpleNamespace(recall=lambda _: UNKNOWN, found=True)
    gate: Any = SimpleNamespace(idle=True)
    sessions = SimpleNamespace(on_slot=lambda request: None)
    pool_link: Any = SimpleNamespace(memory=SimpleNamespace(size=1), sessions=sessions)
    peers: Any = Alone()
    memory = Memory(About("w-0", "node"), ledger, 1)
    return Requests(PoolConfig(size=1), memory, worker, pool_link, peers, gate)


def numbered(turn: int, session: str) -> pb.Request:
    asked = request("run", f"{session}{turn:02}", tag=f"{session}{turn:02}")
    asked.id, asked.session, asked.options.turn = f"caller-{session}{turn}", session, turn
    return asked


def test_whatever_form_a_sessions_calls_have_they_run_in_order(tmp_path: Path) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path)
        await worker.start()
        try:
            served = service(worker, tmp_path)

            async def stream(asked: pb.Request) -> None:
                asked.command, asked.args.json = "stream", asked.args.json[:-1] + b',"count":3}'
                async for _ in served.execute_stream(asked.SerializeToString(), ()):
                    pass

            async def batch(asked: pb.Request) -> None:
                asked.args.json = b"[%b]" % asked.args.json
                asked.batch.count = 1
                await served.execute_batch([asked.SerializeToString()], ())

            async def call(asked: pb.Request) -> None:
                await served.execute(asked.SerializeToString(), ())

            calls = [
                (stream if turn % 5 == 0 else batch if turn % 7 == 0 else call)(numbered(turn, session))
                for session in ("a", "b", "c")
                for turn in range(1, 21)
            ]
            random.Random(3).shuffle(calls)
            await asyncio.gather(*calls)
        finally:
            await worker.stop()

    run(body)
    ran = executed(tmp_path)
    for session in ("a", "b", "c"):
        own = [tag for tag in ran if tag.startswith(session)]
        assert list(dict.fromkeys(tag[:3] for tag in own)) == [f"{session}{turn:02}" for turn in range(1, 21)]
