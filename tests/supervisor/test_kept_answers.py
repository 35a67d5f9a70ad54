"""An outcome outlives the process of the worker that was to hand it on: real interpreters, without Ray."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from snakepit_ray import ledger as ledger_room
from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import SnakepitError, WorkerCrashed, WorkerFault
from snakepit_ray.ledger import ALL, LARGEST, NOT_BEGUN, Begun, Ledger
from snakepit_ray.port import ray_port
from snakepit_ray.port.messages import Refused
from snakepit_ray.supervisor import Ports, Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import encode_args
from snakepit_ray.worker import memory
from snakepit_ray.worker.memory import About, Memory
from snakepit_ray.worker.peer_links import Peer, PeerLinks
from snakepit_ray.worker.peers import Peers
from snakepit_ray.worker.requests import Requests
from tests.supervisor.harness import POLICY, executed, request, run, supervisor, until


class Life:
    """One life of a worker: what `WorkerActor` puts together, without the router."""

    def __init__(self, tmp_path: Path, number: int, worker_id: str = "test-0", **changes: Any) -> None:
        self.ledger = Ledger.open(worker_id, tmp_path)
        self.memory = Memory(About(worker_id, "node"), self.ledger, number)
        pool_link: Any = SimpleNamespace(
            memory=SimpleNamespace(size=1),
            sessions=SimpleNamespace(on_slot=lambda request: None),
            delegate_arrived=lambda *args: None,
            delegate_ended=lambda more: None,
            state_changed=lambda state: None,
            recycling_over=lambda: None,
        )

        def around(supervisor: Supervisor) -> Ports:
            self.peers = Peers("test", self.memory, supervisor, pool_link, {}, PeerLinks("node"))
            return Ports(others=self.peers, record=self.memory)

        self.supervisor = supervisor(tmp_path, around=around, marks=self.ledger.descriptor, **changes)
        gate: Any = SimpleNamespace(idle=True)
        config = PoolConfig(name="test", size=1)
        self.requests = Requests(config, self.memory, self.supervisor, pool_link, self.peers, gate)

    async def __aenter__(self) -> Life:
        await self.supervisor.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Its process dies: nothing is handed over in order."""
        await self.supervisor.stop()
        self.ledger.close()

    async def ask(self, asked: pb.Request) -> Any:
        envelope = await self.requests.execute(asked.SerializeToString(), ())
        return envelope.value() if hasattr(envelope, "value") else envelope

    async def recall(self, blob: bytes) -> Any:
        return await self.requests.recall(pb.Request.FromString(blob))


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
        return await target.requests.execute(blob, ())

    return SimpleNamespace(execute=Remote(execute), recall=Remote(target.recall))


def actor_that_dies(tmp_path: Path, target: Life, *, runs: bool = True) -> Any:
    """It is gone before its answer is, and comes back in its next life."""

    async def execute(blob: bytes, *beside: Any) -> Any:
        if runs:
            await target.requests.execute(blob, ())
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
            relay.peers.known["test-1"] = Peer(actor)
            relayed = await relay.peers.delegate("test-1", sent, chained=False)
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


def test_a_worker_that_died_with_a_request_that_it_had_not_ended_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SETTLE_SECONDS", 0.1)  # its interpreter is alive: that is not awaited

    async def body() -> None:
        async with Life(tmp_path, 1) as relay, Life(tmp_path, 1, "test-1") as target:
            for number, begun in ((1, True), (2, False)):
                sent = request("run", number, tag="lost")
                sent.options.hops = 1
                if begun:
                    target.ledger.begin(sent.id)
                relay.peers.known["test-1"] = Peer(actor_that_dies(tmp_path, target, runs=False))
                answer = await told(relay.peers.delegate("test-1", sent, chained=False))
                assert isinstance(answer, WorkerCrashed) if begun else answer is None
                known = relay.ledger.recall(sent.id)
                assert known == (Begun(ALL, 2) if begun else NOT_BEGUN)

    run(body)


# ---- however many come after it ------------------------------------------------------------------------


def test_what_runs_is_not_run_again_however_many_came_after_it(tmp_path: Path) -> None:
    """A long command on a worker of several slots, thousands of short ones, and its actor is killed."""

    async def body() -> None:
        go = tmp_path / "go"
        long = request("until_file", 1, tag="long", path=str(go))
        async with Life(tmp_path, 1, capacity=2, policy=replace(POLICY, capacity=2)) as life:
            first = asyncio.ensure_future(told(life.ask(long)))
            await until(lambda: executed(tmp_path) == ["long"])
            await life.ask(request("run", 2, tag="short"))
            for number in range(5000):
                life.ledger.begin(f"other-{number}", marked=True).end(None)
        assert isinstance(await first, SnakepitError)
        async with Life(tmp_path, 2) as life:
            crash = await told(life.ask(long))
            assert isinstance(crash, WorkerCrashed) and crash.may_have_started
        assert executed(tmp_path) == ["long", "short"]

    run(body)


def test_a_refused_delegation_leaves_no_trace_whatever_came_in_between(tmp_path: Path) -> None:
    """Bursts: while the other worker says no, this one notes hundreds. Then the request runs here, once."""

    async def body() -> None:
        asked = request("run", 1, tag="stays")
        async with Life(tmp_path, 1) as life:

            async def refuse(blob: bytes, *beside: Any) -> Refused:
                for number in range(5000):
                    life.ledger.begin(f"other-{number}")
                return Refused("test-1")

            life.peers.known["test-1"] = Peer(SimpleNamespace(execute=Remote(refuse)))
            life.peers.place = partial(place_at, "test-1")  # type: ignore[method-assign]
            value = await life.ask(asked)
            assert executed(tmp_path) == ["stays"]
        async with Life(tmp_path, 2) as life:
            assert await life.ask(asked) == value, "and its outcome is known"
        assert executed(tmp_path) == ["stays"]

    run(body)


async def place_at(target: str, asked: pb.Request) -> tuple[str, pb.Request]:
    sent = pb.Request()
    sent.CopyFrom(asked)
    sent.options.hops = 1
    return target, sent


def test_a_delegation_that_was_refused_before_the_actor_died_runs_in_the_next_life(tmp_path: Path) -> None:
    async def body() -> None:
        asked = request("run", 1, tag="once")
        async with Life(tmp_path, 1) as life:

            async def refuse(blob: bytes, *beside: Any) -> Refused:
                return Refused("test-1")

            life.peers.known["test-1"] = Peer(SimpleNamespace(execute=Remote(refuse)))
            _, sent = await place_at("test-1", asked)
            assert await life.peers.delegate("test-1", sent, chained=True) is None
        async with Life(tmp_path, 2) as life:
            assert (await life.ask(asked))["tag"] == "once"

    run(body)


def test_the_verdict_waits_for_the_end_of_the_earlier_interpreter(tmp_path: Path) -> None:
    """The actor is back before the interpreter of its earlier life is gone: what that had not begun runs."""

    async def body() -> None:
        asked, ran, moved = (request("run", n, tag=tag) for n, tag in ((1, "once"), (2, "ran"), (3, "moved")))
        moved.options.hops = 1
        go = tmp_path / "go"
        first = Ledger.open("test-0", tmp_path)
        for one in (asked, moved):
            first.begin(one.id, marked=True)
        first.words[first.begin(ran.id, marked=True).word] = 1
        outlives = os.dup(first.descriptor)
        first.close()
        async with Life(tmp_path, 2) as life:
            busy = asyncio.ensure_future(life.ask(request("until_file", 4, tag="busy", path=str(go))))
            await until(lambda: executed(tmp_path) == ["busy"])
            calls = [asyncio.ensure_future(told(life.ask(one))) for one in (asked, ran)]
            recall = asyncio.ensure_future(life.recall(moved.SerializeToString()))
            await until(lambda: bool(life.memory._unsettled))
            assert life.memory.begun_before(asked) > 0
            os.close(outlives)
            assert life.memory.begun_before(asked) == 0
            go.touch()
            await busy
            once, crash = await asyncio.gather(*calls)
            assert not await recall, "it never will"
            assert once["tag"] == "once" and isinstance(crash, WorkerCrashed)
        assert executed(tmp_path) == ["busy", "once"]

    run(body)


# ---- sent again to the same process --------------------------------------------------------------------


def test_what_arrives_again_gets_the_answer_of_the_first(tmp_path: Path) -> None:
    """The connection broke, the worker did not: Ray sends the request again, while it runs or later."""

    async def body() -> None:
        go = tmp_path / "go"
        asked = request("until_file", 1, tag="once", path=str(go))
        fails = request("raises", 2, name="ValueError")
        async with Life(tmp_path, 1) as life:
            first = asyncio.ensure_future(life.ask(asked))
            await until(lambda: executed(tmp_path) == ["once"])
            second = asyncio.ensure_future(life.ask(asked))
            await asyncio.sleep(0)
            assert life.supervisor.running == 1
            go.touch()
            answers = [await first, await second, await life.ask(asked)]
            assert answers[0] == answers[1] == answers[2]
            errors = [await told(life.ask(fails)) for _ in range(2)]
            assert str(errors[0]) == str(errors[1]) and isinstance(errors[1], ValueError)
        assert executed(tmp_path) == ["once"]

    run(body)


def test_what_was_cancelled_is_no_answer_for_the_one_that_came_again(tmp_path: Path) -> None:
    async def body() -> None:
        asked = request("until_cancelled", 1, tag="once")
        async with Life(tmp_path, 1) as life:
            first = asyncio.ensure_future(life.ask(asked))
            await until(lambda: executed(tmp_path) == ["once"])
            second = asyncio.ensure_future(told(life.ask(asked)))
            await asyncio.sleep(0)
            first.cancel()
            assert isinstance(await second, WorkerFault), "it is still in its interpreter"
        assert executed(tmp_path)[0] == "once" and executed(tmp_path).count("once") == 1

    run(body)


# ---- batches -------------------------------------------------------------------------------------------


def batch(number: int, tags: list[str], **more: Any) -> pb.Request:
    asked = request("run", number, **more)
    asked.args.json = json.dumps([{"tag": tag} for tag in tags]).encode()
    asked.batch.count = len(tags)
    return asked


def test_of_a_batch_whose_actor_died_only_what_had_begun_fails(tmp_path: Path) -> None:
    """Its interpreter has said how many of its calls had begun."""

    async def body() -> None:
        asked = batch(1, ["a", "b", "c", "d"])
        async with Life(tmp_path, 1) as life:
            life.ledger.words[life.ledger.begin(asked.id, marked=True).word] = 3
        async with Life(tmp_path, 2) as life:
            envelope = await life.requests.execute(asked.SerializeToString(), ())
            (part,) = envelope.parts
            assert (part.size, [index for index, _ in part.failures]) == (3, [0, 1, 2])
            assert all(error.may_have_started for _, error in part.failures)
            counters = life.supervisor.counters
            assert (counters.requests, counters.errors) == (3, 3)
        assert executed(tmp_path) == []

    run(body)


@pytest.mark.parametrize("what", ["begun", "moved", "refused"])
def test_a_divided_batch_comes_again_as_a_whole(tmp_path: Path, what: str) -> None:
    """It runs again only if none of its parts had begun, or was moved to somebody who may have begun it."""

    async def body() -> None:
        asked = batch(1, ["a", "b"])
        part = pb.Request(id=f"{asked.id}/0.0+1")
        async with Life(tmp_path, 1) as life:
            if what == "begun":
                life.memory.begins(part, True)
            else:
                life.memory.moves(part.id, 2)
            if what == "refused":
                life.memory.refused(part.id)
        async with Life(tmp_path, 2) as life:
            envelope = await life.requests.execute_batch([asked.SerializeToString()], ())
            errors = [error for part in envelope.parts for _, error in part.failures]
        if what == "refused":
            assert (errors, executed(tmp_path)) == ([], ["a", "b"])
        else:
            assert len(errors) == 2 and all(isinstance(error, WorkerCrashed) for error in errors)
            assert executed(tmp_path) == []

    run(body)


# ---- what it costs -------------------------------------------------------------------------------------


def test_a_request_costs_eight_calls_into_the_ledger_and_no_digest(tmp_path: Path) -> None:
    async def body() -> None:
        room = str(Path(ledger_room.__file__).parent)
        calls: list[str] = []
        digests: list[object] = []

        def profile(frame: FrameType, event: str, what: object) -> None:
            if event == "call" and frame.f_code.co_filename.startswith(room):
                calls.append(frame.f_code.co_qualname)
            if event == "c_call" and "blake2" in repr(what):
                digests.append(what)

        async with Life(tmp_path, 1) as life:
            asked = request("identity", 1, x=1)
            asked.id = "0123456789abcdef-1234567"
            sys.setprofile(profile)
            try:
                await life.ask(asked)
            finally:
                sys.setprofile(None)
        assert len(digests) == 0
        assert 4 <= len(calls) <= 8, calls

    run(body)


@pytest.mark.parametrize(("idempotent", "may_wait"), [(True, False), (True, True), (False, False)])
def test_a_batch_that_was_sent_here_goes_back_when_it_may_run_again(
    tmp_path: Path, idempotent: bool, may_wait: bool
) -> None:
    """Where it may not wait for the next interpreter its sender runs it again, and no item of it failed."""

    async def body() -> None:
        async with Life(tmp_path, 1) as life:
            sent = request("run", 7, idempotent=idempotent)
            sent.args.json = json.dumps([{"tag": str(i), "seconds": 0.2} for i in range(4)]).encode()
            sent.batch.count, sent.options.errors = 4, pb.BATCH_ERRORS_APART
            sent.options.hops, sent.options.may_wait, sent.options.retries = 1, may_wait, 3
            serving = asyncio.ensure_future(life.requests.execute(sent.SerializeToString(), ()))
            await until(lambda: "1" in executed(tmp_path))
            os.kill(life.supervisor.interpreter.child.pid, signal.SIGKILL)  # type: ignore[union-attr]
            value = (await serving).value
            if idempotent and not may_wait:
                assert isinstance(value, WorkerCrashed) and value.begun == 2
                return
            (part,) = value.parts
            assert part.size == (4 if idempotent else 2)
            assert len(part.failures) == (0 if idempotent else 2)

    run(body)
