"""An outcome outlives the process of the worker that was to hand it on: real interpreters, without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.actors import ray_port
from snakepit_ray.actors.answers import About, Answers
from snakepit_ray.actors.neighbours import Neighbours
from snakepit_ray.actors.service import Service
from snakepit_ray.codec import encode_args
from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import SnakepitError, WorkerCrashed
from snakepit_ray.process.journal import Journal
from snakepit_ray.process.outcome_ring import LARGEST, OutcomeRing
from tests.supervisor.harness import executed, request, run, supervisor, until


class Life:
    """One life of a worker: what `WorkerActor` puts together, without the router."""

    def __init__(self, tmp_path: Path, number: int, worker_id: str = "test-0") -> None:
        self.journal = Journal.open(worker_id, tmp_path)
        self.ring = OutcomeRing.open(worker_id, tmp_path)
        answers = Answers(About(worker_id, "node"), self.ring)
        self.neighbours = Neighbours("test", self.journal, number, answers)
        self.supervisor = supervisor(tmp_path, around=self.neighbours)
        self.neighbours.supervisor = self.supervisor
        membership: Any = SimpleNamespace(
            memory=SimpleNamespace(size=1),
            delegate_arrived=lambda *args: None,
            delegate_ended=lambda more: None,
            state_changed=lambda state: None,
            recycling_over=lambda: None,
        )
        self.neighbours.membership = membership
        gate: Any = SimpleNamespace(idle=True)
        config = PoolConfig(name="test", size=1)
        self.service = Service(config, answers, self.supervisor, membership, self.neighbours, gate)

    async def __aenter__(self) -> Life:
        await self.supervisor.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Its process dies: nothing is handed over in order."""
        await self.supervisor.stop()
        self.ring.close()
        self.journal.close()

    async def ask(self, asked: pb.Request) -> Any:
        envelope = await self.service.execute(asked.SerializeToString(), ())
        return envelope.value() if hasattr(envelope, "value") else envelope

    async def recall(self, blob: bytes) -> Any:
        known = await self.service.recall(pb.Request.FromString(blob))
        return known if known is not None else self.journal.started_before(pb.Request.FromString(blob).id)


async def told(answer: Awaitable[Any]) -> Any:
    """The value, or the error."""
    try:
        return await answer
    except SnakepitError as error:
        return error


@pytest.mark.parametrize("idempotent", [False, True])
def test_what_had_ended_is_answered_and_never_runs_again(tmp_path: Path, idempotent: bool) -> None:
    async def body() -> None:
        asked = request("run", 1, tag="once", idempotent=idempotent)
        wants_info = request("run", 2, tag="info", idempotent=idempotent)
        wants_info.options.info = True
        async with Life(tmp_path, 1) as life:
            first, info = await life.ask(asked), await life.ask(wants_info)
        async with Life(tmp_path, 2) as life:
            assert await life.ask(asked) == first
            again = await life.ask(wants_info)
            assert again == info, "who answered, and what it took"
            assert life.supervisor.counters.requests == 2
        async with Life(tmp_path, 3) as life:
            assert await life.ask(asked) == first, "as often as it is asked for"
        assert executed(tmp_path) == ["once", "info"]

    run(body)


def test_a_failure_is_an_outcome_too(tmp_path: Path) -> None:
    async def body() -> None:
        asked = request("raises", 1, name="ValueError")
        async with Life(tmp_path, 1) as life:
            first = await told(life.ask(asked))
        async with Life(tmp_path, 2) as life:
            second = await told(life.ask(asked))
            assert life.supervisor.counters.errors == 1
        assert isinstance(second, ValueError)
        assert (type(second), str(second)) == (type(first), str(first))

    run(body)


def test_a_batch_that_one_interpreter_ran_and_small_buffers_are_kept(tmp_path: Path) -> None:
    async def body() -> None:
        batch = request("run", 1)
        batch.args.json = json.dumps([{"tag": f"item{i}"} for i in range(3)]).encode()
        batch.batch.count = 3
        bytes_too = request("identity", 2)
        encoded = encode_args({"x": b"\0\1 bytes"}, None)
        bytes_too.args.json = encoded.json
        bytes_too.args.buffers.add().inline = bytes(encoded.buffers[0])
        async with Life(tmp_path, 1) as life:
            first = await life.ask(batch), await life.ask(bytes_too)
        async with Life(tmp_path, 2) as life:
            assert (await life.ask(batch), await life.ask(bytes_too)) == first
            assert first[1] == {"x": b"\0\1 bytes"}
        assert executed(tmp_path) == ["item0", "item1", "item2"]

    run(body)


def test_what_was_running_or_is_too_large_may_have_run(tmp_path: Path) -> None:
    async def body() -> None:
        never = str(tmp_path / "never")
        running, large = request("until_file", 1, tag="running", path=never), request("identity", 2)
        large.args.json = json.dumps({"x": "x" * (LARGEST + 1)}).encode()
        async with Life(tmp_path, 1) as life:
            await life.ask(large)
            call = life.ask(running)
            task = asyncio.ensure_future(told(call))
            await until(lambda: executed(tmp_path) == ["running"])
            task.cancel()
        async with Life(tmp_path, 2) as life:
            for asked in (running, large):
                crash = await told(life.ask(asked))
                assert isinstance(crash, WorkerCrashed) and crash.may_have_started
        assert executed(tmp_path) == ["running"]

    run(body)


# ---- moved to another worker ----------------------------------------------------------------------------


class Remote:
    """An actor's method as the worker that delegates calls it."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def options(self, **_: Any) -> Remote:
        return self

    def remote(self, *args: Any) -> Any:
        return asyncio.ensure_future(self._method(*args))


def actor_of(target: Life) -> Any:
    """That worker as another one sees it."""

    async def execute(blob: bytes, *beside: Any) -> Any:
        return await target.service.execute(blob, ())

    return SimpleNamespace(execute=Remote(execute), recall=Remote(target.recall))


def actor_that_dies(tmp_path: Path, target: Life, *, runs: bool = True) -> Any:
    """It is gone before its answer is, and comes back in its next life."""

    async def execute(blob: bytes, *beside: Any) -> Any:
        if runs:
            await target.service.execute(blob, ())
        raise ray_port.ActorUnavailable("gone", None)

    async def recall(blob: bytes) -> Any:
        return await Life(tmp_path, 2, "test-1").recall(blob)

    return SimpleNamespace(execute=Remote(execute), recall=Remote(recall))


@pytest.mark.parametrize("dies", ["target", "relay", "both"])
def test_an_outcome_that_is_known_at_another_worker_is_asked_for_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    async def body() -> None:
        asked = request("run", 1, tag="moved")
        sent = pb.Request()
        sent.CopyFrom(asked)
        sent.options.hops = 1
        async with Life(tmp_path, 1) as relay, Life(tmp_path, 1, "test-1") as target:
            dying = dies == "target"
            actor = actor_that_dies(tmp_path, target) if dying else actor_of(target)
            relay.neighbours.peers["test-1"] = actor
            relayed = await relay.neighbours.delegate("test-1", sent, chained=False)
            assert relayed is not None
            envelope: Any = relayed.unwrap()
            assert envelope.value()["tag"] == "moved"
            if dies == "relay":
                await again(asked, target)
        if dies == "both":
            async with Life(tmp_path, 2, "test-1") as target:
                await again(asked, target)
        assert executed(tmp_path) == ["moved"]

    async def again(asked: pb.Request, target: Life) -> None:
        actor = actor_of(target)
        monkeypatch.setattr(ray_port, "find_worker", lambda name: {"test-1": actor}[name])
        async with Life(tmp_path, 2) as relay:
            assert (await relay.ask(asked))["tag"] == "moved"

    run(body)


def test_a_worker_that_died_with_a_request_that_it_had_not_ended_says_so(tmp_path: Path) -> None:
    async def body() -> None:
        async with Life(tmp_path, 1) as relay, Life(tmp_path, 1, "test-1") as target:
            for number, begun in ((1, True), (2, False)):
                sent = request("run", number, tag="lost")
                sent.options.hops = 1
                if begun:
                    target.journal.record(sent.id)
                relay.neighbours.peers["test-1"] = actor_that_dies(tmp_path, target, runs=False)
                answer = await told(relay.neighbours.delegate("test-1", sent, chained=False))
                assert isinstance(answer, WorkerCrashed) if begun else answer is None
                assert relay.neighbours.begun_before(sent) is begun

    run(body)
