"""Each request is counted once, with its items, when it has its outcome."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from snakepit_ray import telemetry
from snakepit_ray.errors import CommandError, QueueTimeout, RequestCancelled, WorkerCrashed
from snakepit_ray.supervisor.accounts import Accounts, Counters
from snakepit_ray.supervisor.outcomes import Answer, Done, Relayed
from snakepit_ray.supervisor.story import Story
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope, BatchPart

ONE, BATCH = pb.Request(id="1", command="c"), pb.Request(id="2", command="c", batch=pb.Batch(count=10))
ELSEWHERE = pb.Request(id="3", command="c", options=pb.CallOptions(hops=1))
FAILURE = pb.Failure(type="ValueError")


def done(**reply: Any) -> Done:
    return Done(Answer(pb.Reply(**reply)), 0.0, 1, 1)


def account(request: pb.Request, outcome: object) -> tuple[tuple[int, int, int], list[Any]]:
    """(requests, errors, cancelled), and the events."""
    counters, told = Counters(), []
    accounts = Accounts(counters, Story("pool", "w-0", lambda: pb.Epoch(number=1)))
    with (
        telemetry.attach("request.*", lambda *event: told.append(event)),
        suppress(type(outcome)),  # type: ignore[arg-type]
        accounts.opened(request) as opened,
    ):
        if isinstance(outcome, BaseException):
            raise outcome
        opened.is_(outcome)
    return (counters.requests, counters.errors, counters.cancelled), told


@pytest.mark.parametrize(
    ("request_", "outcome", "counted"),
    [
        (ONE, done(), (1, 0, 0)),
        (ONE, done(failure=FAILURE), (1, 1, 0)),
        (ONE, CommandError("no"), (1, 1, 0)),
        (ONE, QueueTimeout.after(1, 1, "pool"), (1, 1, 0)),
        (ONE, asyncio.CancelledError(), (1, 0, 1)),
        (ONE, GeneratorExit(), (1, 0, 1)),
        (ONE, RequestCancelled.because("it was closed", "c"), (1, 0, 1)),
        (ONE, Relayed(CommandError("no")), (1, 1, 0)),
        (BATCH, done(items=10, failures=[pb.ItemFailure(index=2, failure=FAILURE)]), (10, 1, 0)),
        (BATCH, done(items=4), (4, 0, 0)),
        (BATCH, done(failure=FAILURE), (10, 10, 0)),
        (BATCH, WorkerCrashed("gone", begun=3), (3, 3, 0)),
        (BATCH, WorkerCrashed("gone"), (10, 10, 0)),
        (BATCH, BatchEnvelope([BatchPart(b"[]", 6, (), [(1, CommandError("no"))])]), (6, 1, 0)),
        (BATCH, asyncio.CancelledError(), (10, 0, 10)),
        (ELSEWHERE, done(), (0, 0, 0)),
        (ELSEWHERE, CommandError("no"), (0, 0, 0)),
        (ELSEWHERE, asyncio.CancelledError(), (0, 0, 0)),
    ],
)
def test_an_outcome_counts_its_items(
    request_: pb.Request, outcome: object, counted: tuple[int, int, int]
) -> None:
    counters, told = account(request_, outcome)
    assert counters == counted
    events = [measured for event, measured, _ in told if event == "request.executed"]
    cancelled = [measured["items"] for event, measured, _ in told if event == "request.cancelled"]
    assert (
        sum(event["items"] for event in events) + sum(cancelled),
        sum(event["failed"] for event in events),
    ) == (
        counted[0],
        counted[1],
    )


def test_an_event_says_success_only_where_nothing_failed() -> None:
    _, told = account(BATCH, done(items=10, failures=[pb.ItemFailure(index=2, failure=FAILURE)]))
    ((_, measured, about),) = told
    assert (measured["items"], measured["failed"], about["success"], about["error"]) == (10, 1, False, None)
    _, told = account(ONE, QueueTimeout.after(1, 1, "pool"))
    assert told[0][2]["error"] == "QueueTimeout"
