"""A worker that is let go has drained when every call that came to it has its outcome, wherever its request
runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit_ray.port import ray_port
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.worker.actor import WorkerActor
from snakepit_ray.worker.peer_links import Peer
from tests.supervisor.harness import executed, request, run, until
from tests.supervisor.test_kept_answers import Life, actor_of


def worker_of(life: Life) -> Any:
    """What `WorkerActor.drain` looks at of its worker."""

    asked: list[None] = []

    async def hand_over() -> None:
        """Nobody has room."""
        asked.append(None)

    async def until_sent(timeout: float) -> bool:
        """There are no callers by a lane."""
        return timeout > 0

    return SimpleNamespace(
        supervisor=life.supervisor,
        requests=life.requests,
        pool_link=SimpleNamespace(hand_over=hand_over, asked=asked),
        _lane_server=SimpleNamespace(until_sent=until_sent),
    )


def placed_at(life: Life, target: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """All requests that come to `life` belong to the worker `target`."""

    async def place(asked: pb.Request) -> tuple[str, pb.Request]:
        sent = pb.Request()
        sent.CopyFrom(asked)
        sent.options.hops = 1
        sent.options.may_wait = True
        return "test-1", sent

    life.peers.known["test-1"] = Peer(actor_of(target))
    monkeypatch.setattr(life.peers, "place", place)


async def chunks_of(life: Life, asked: pb.Request) -> int:
    return len([chunk async for chunk in life.requests.execute_stream(asked.SerializeToString(), ())])


@pytest.mark.parametrize("what", ["call", "batch", "stream"])
def test_a_call_whose_request_runs_at_another_worker_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    go = tmp_path / "go"

    async def streaming(*args: Any) -> Any:
        async for chunk in target_stream(*args):
            yield asyncio.ensure_future(asyncio.sleep(0, chunk))

    async def target_stream(actor: Any, ahead: int, blob: bytes, *beside: Any) -> Any:
        await actor.execute.remote(blob)
        yield "a chunk"

    async def body() -> None:
        async with Life(tmp_path, 1) as relay, Life(tmp_path, 1, "test-1") as target:
            placed_at(relay, target, monkeypatch)
            monkeypatch.setattr(ray_port, "stream", streaming)
            asked = request("until_file", 1, tag="moved", path=str(go))
            asked.session = "at the target"
            if what == "call":
                call: asyncio.Future[Any] = asyncio.ensure_future(relay.ask(asked))
            elif what == "batch":
                asked.batch.count = 1
                asked.args.json = b"[" + asked.args.json + b"]"
                call = asyncio.ensure_future(relay.requests.execute_batch([asked.SerializeToString()], ()))
            else:
                call = asyncio.ensure_future(chunks_of(relay, asked))
            await until(lambda: executed(tmp_path) == ["moved"])
            assert relay.supervisor.running == relay.supervisor.waiting == 0
            assert not await WorkerActor.drain(worker_of(relay), 0.1)
            drained = asyncio.ensure_future(WorkerActor.drain(worker_of(relay), 20.0))
            go.touch()
            assert await drained and call.done()
            assert await WorkerActor.drain(worker_of(target), 20.0)
            await call

    run(body)


def test_it_is_woken_by_what_happens_and_sees_what_a_cancelled_call_left(tmp_path: Path) -> None:
    go = tmp_path / "go"

    async def body() -> None:
        async with Life(tmp_path, 1) as life:
            worker = worker_of(life)
            call = asyncio.ensure_future(life.ask(request("until_file", 1, tag="ran", path=str(go))))
            await until(lambda: executed(tmp_path) == ["ran"])
            assert not await WorkerActor.drain(worker, 0.3)
            assert len(worker.pool_link.asked) <= 2, "nothing waits: nobody is asked for room"
            call.cancel()
            await asyncio.wait([call])
            assert (life.requests.present, life.supervisor.running) == (0, 1)
            drained = asyncio.ensure_future(WorkerActor.drain(worker, 20.0))
            go.touch()
            assert await drained and life.supervisor.running == 0

    run(body)


def test_while_something_waits_it_asks_for_room_again(tmp_path: Path) -> None:
    go = tmp_path / "go"

    async def body() -> None:
        async with Life(tmp_path, 1) as life:
            worker = worker_of(life)
            asked = [request("until_file", number, tag=f"r{number}", path=str(go)) for number in range(3)]
            calls = [asyncio.ensure_future(life.ask(one)) for one in asked]
            await until(lambda: life.supervisor.waiting == 2)
            drained = asyncio.ensure_future(WorkerActor.drain(worker, 20.0))
            await until(lambda: len(worker.pool_link.asked) > 3)
            go.touch()
            assert await drained and all(call.done() for call in calls)

    run(body)
