"""Requests that go to another worker by its lane: run at most once, whoever of the two dies or gives up. Real
interpreters, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snakepit_ray.errors import WorkerCrashed
from snakepit_ray.ledger import ALL, NOT_BEGUN, Begun
from snakepit_ray.port import ray_port
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.worker import memory
from snakepit_ray.worker.lane import LaneServer
from snakepit_ray.worker.peer_links import Peer
from tests.supervisor.harness import executed, request, run, until
from tests.supervisor.test_kept_answers import Life, Remote, actor_of, told

MOVED_TO = 2  # the place of worker "test-1" in a ledger


class NoRay:
    """Nothing is to go by Ray."""

    def options(self, **_: Any) -> NoRay:
        return self

    def remote(self, *_: Any) -> Any:
        raise AssertionError("it went by Ray")


@asynccontextmanager
async def joined(relay: Life, target: Life) -> AsyncIterator[LaneServer]:
    """The target has a lane, and the relay knows of it. Its actor answers no call but `recall`."""
    server = LaneServer(target.requests, "test", 10_240, lambda count: None)
    lane = server.open("node")
    await server.serve()
    actor = SimpleNamespace(execute=NoRay(), recall=Remote(target.recall))
    relay.peers.known["test-1"] = Peer(actor, lane)
    try:
        yield server
    finally:
        relay.peers.links.close()
        end(server)


def end(server: LaneServer) -> None:
    """As if its process had died."""
    server.close()
    for caller in list(server.callers):
        caller.abort()


def moved(command: str, number: int, *, may_wait: bool = True, **args: Any) -> pb.Request:
    sent = request(command, number, **args)
    sent.options.hops = 1
    sent.options.may_wait = may_wait
    return sent


def test_what_becomes_of_requests_that_are_moved(tmp_path: Path) -> None:
    """One pair of workers for all of it."""

    async def body() -> None:
        async with (
            Life(tmp_path, 1) as relay,
            Life(tmp_path, 1, "test-1") as target,
            joined(relay, target),
        ):
            for number, part in enumerate((an_outcome_comes_back, refused, cancelled, too_large)):
                (tmp_path / "log").unlink(missing_ok=True)
                await part(relay, target, tmp_path, 10 * number)

    run(body)


async def an_outcome_comes_back(relay: Life, target: Life, tmp_path: Path, number: int) -> None:
    sent, fails = moved("run", number, tag="moved"), moved("raises", number + 1, name="ValueError")
    relayed = await relay.peers.delegate("test-1", sent, chained=False)
    failed = await relay.peers.delegate("test-1", fails, chained=False)
    assert relayed is not None and failed is not None
    outcome: Any = relayed.unwrap()
    assert outcome.value()["tag"] == "moved"
    assert isinstance(failed.value, ValueError) and relayed.free and failed.free
    assert relay.ledger.recall(sent.id) == Begun(ALL, MOVED_TO)
    assert executed(tmp_path) == ["moved"] and relay.peers.links.sent == 2


async def refused(relay: Life, target: Life, tmp_path: Path, number: int) -> None:
    """It is not executed, and stays where it was."""
    go = tmp_path / "go"
    busy = asyncio.ensure_future(target.ask(request("until_file", number, tag="busy", path=str(go))))
    await until(lambda: executed(tmp_path) == ["busy"])
    sent = moved("run", number + 1, tag="never", may_wait=False)
    assert await relay.peers.delegate("test-1", sent, chained=True) is None
    assert relay.ledger.recall(sent.id) is NOT_BEGUN
    go.touch()
    await busy
    assert executed(tmp_path) == ["busy"]


async def cancelled(relay: Life, target: Life, tmp_path: Path, number: int) -> None:
    """It is cancelled where it runs."""
    sent = moved("until_cancelled", number, tag="stops")
    call = asyncio.ensure_future(relay.peers.delegate("test-1", sent, chained=False))
    await until(lambda: executed(tmp_path) == ["stops"])
    call.cancel()
    await asyncio.wait([call])
    await until(lambda: executed(tmp_path) == ["stops", "stops:cancelled"])
    await until(lambda: not target.requests.present)


async def too_large(relay: Life, target: Life, tmp_path: Path, number: int) -> None:
    """A large request goes by Ray; an answer that is too large is fetched by Ray, and runs once."""
    peer, before, text = relay.peers.known["test-1"], relay.peers.links.sent, "x" * 200_000
    relay.peers.known["test-1"] = peer._replace(actor=actor_of(target))
    script = f"echo once >> {tmp_path / 'log'}; printf %400000s x"
    large = moved("identity", number, text=text, more=text)
    printed = moved("output_of", number + 1, argv=["sh", "-c", script])
    came = [await relay.peers.delegate("test-1", sent, chained=False) for sent in (large, printed)]
    outcomes: list[Any] = [relayed.unwrap() for relayed in came if relayed is not None]
    assert outcomes[0].value() == {"text": text, "more": text} and len(outcomes[1].value()) == 400_000
    assert executed(tmp_path) == ["once"] and relay.peers.links.sent - before == 1


@pytest.mark.parametrize("idempotent", [False, True])
def test_what_the_other_worker_died_with_is_not_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, idempotent: bool
) -> None:
    monkeypatch.setattr(memory, "SETTLE_SECONDS", 0.1)  # its interpreter is alive: that is not awaited

    async def body() -> None:
        never = str(tmp_path / "never")
        async with (
            Life(tmp_path, 1) as relay,
            Life(tmp_path, 1, "test-1") as target,
            joined(relay, target) as server,
        ):
            sent = moved("until_file", 1, tag="runs", path=never, idempotent=idempotent)
            call = asyncio.ensure_future(told(relay.peers.delegate("test-1", sent, chained=False)))
            await until(lambda: executed(tmp_path) == ["runs"])
            (serving,) = server.moved
            server.moved.clear()  # no process goes on after its death
            end(server)
            outcome = await call
            assert "test-1" not in relay.peers.known
            if idempotent:
                assert outcome is None and relay.memory.begun_before(sent) == ALL
            else:
                assert isinstance(outcome, WorkerCrashed) and outcome.may_have_started
            await asyncio.wait([serving])

    run(body)


def test_what_was_moved_outlives_the_worker_that_moved_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        go = tmp_path / "go"
        asked = request("until_file", 1, tag="once", path=str(go))
        async with Life(tmp_path, 1, "test-1") as target:
            async with Life(tmp_path, 1) as relay, joined(relay, target):
                sent = moved("until_file", 1, tag="once", path=str(go))
                call = asyncio.ensure_future(relay.peers.delegate("test-1", sent, chained=False))
                await until(lambda: executed(tmp_path) == ["once"])
                relay.ledger.close()  # it dies as it is
                call.cancel()
                relay.peers.links.close()
                await asyncio.wait([call])
            monkeypatch.setattr(ray_port, "find_worker", lambda name: {"test-1": actor_of(target)}[name])
            async with Life(tmp_path, 2) as relay:
                again = asyncio.ensure_future(relay.ask(asked))
                await until(lambda: target.requests._served[asked.id] is not None)
                go.touch()
                assert (await again)["tag"] == "once"
        assert executed(tmp_path) == ["once"]

    run(body)
