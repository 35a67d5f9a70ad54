"""A session's request whose owner is another worker: what becomes of it when that worker does not answer it.
The pool around the worker is made of fakes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import TaskCancelledError

from snakepit_ray.errors import QueueTimeout, WorkerCrashed
from snakepit_ray.ledger import NOT_BEGUN, UNKNOWN, Ledger
from snakepit_ray.port.messages import Claimed, Delegated, Refused
from snakepit_ray.supervisor import Relayed
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.worker.memory import About, Memory
from snakepit_ray.worker.peer_links import PeerLinks
from snakepit_ray.worker.peers import Peers

UNBEGUN = WorkerCrashed("its interpreter died before it began", may_have_started=False)
BEGUN = WorkerCrashed("its interpreter died with it", may_have_started=True)


class Owner:
    """The actor of the worker that the session lives at; every request comes to `answer`, which may be
    an error of Ray's."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[pb.Request] = []
        self.execute = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._execute))

    def _execute(self, blob: bytes, *beside: object) -> asyncio.Future[object]:
        self.asked.append(pb.Request.FromString(blob))
        return asyncio.ensure_future(self._answer())

    async def _answer(self) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def outcome_of(owner: Owner, ledger: Ledger, *, strict: bool) -> Relayed | None:
    async def claim(session: str, strict: bool, rebind: bool) -> Claimed:
        return Claimed("test-1", owner, 1)

    memory = Memory(About("test-0", "node"), ledger, 1)
    refused: list[str] = []
    pool_link: Any = SimpleNamespace(sessions=SimpleNamespace(claim=claim), refused=refused.append)
    worker: Any = SimpleNamespace(
        is_idempotent=lambda request: False,
        movable=0,
        beside=lambda request: [],
    )
    peers = Peers("test", memory, worker, pool_link, {}, PeerLinks("node"))
    request = pb.Request(id="r", command="run", session="s")
    request.options.affinity = pb.AFFINITY_STRICT_QUEUE if strict else pb.AFFINITY_HINT
    relayed = await peers.elsewhere(request, memory.arrives(request))
    assert [(asked.options.hops, asked.options.may_wait) for asked in owner.asked] == [(1, strict)]
    assert request.options.hops == 0, "what runs here is the request as it came"
    return relayed


@pytest.mark.parametrize(
    ("answer", "strict", "runs_here", "stays_written"),
    [
        (Delegated(UNBEGUN, True), False, True, False),
        (Delegated(UNBEGUN, True), True, False, False),
        (Refused("test-1"), False, True, False),
        (Delegated(BEGUN, True), False, False, True),
        (Delegated(BEGUN, True), True, False, True),
        (Delegated(QueueTimeout("it waited"), True), False, False, False),
        (Delegated("a value", True), False, False, True),
    ],
    ids=["unbegun, hint", "unbegun, strict", "busy, hint", "begun, hint", "begun, strict", "late", "value"],
)
def test_what_its_owner_did_not_begin_runs_here_where_the_session_is_a_hint(
    answer: Any, strict: bool, runs_here: bool, stays_written: bool, tmp_path: Path
) -> None:
    ledger = Ledger.open("test-0", tmp_path)
    try:
        relayed = asyncio.run(outcome_of(Owner(answer), ledger, strict=strict))
        assert (relayed is None) == runs_here
        if relayed is not None:
            assert relayed == Relayed(answer.value, answer.free)
        may_have_run = ledger.recall("r") not in (UNKNOWN, NOT_BEGUN)
        assert may_have_run == stays_written, "the ledger says what may have run elsewhere"
    finally:
        ledger.remove()


@pytest.mark.parametrize("strict", [False, True])
def test_what_ray_cancels_at_its_owner_is_cancelled_here(
    strict: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray cancels a request's children before the request. That was said to be a fault of the worker, which
    could not hand the command on."""
    monkeypatch.setattr("ray.cancel", lambda ref: None)  # the reference is none of Ray's
    ledger = Ledger.open("test-0", tmp_path)
    try:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(outcome_of(Owner(TaskCancelledError()), ledger, strict=strict))
    finally:
        ledger.remove()
