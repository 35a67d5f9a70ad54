"""Whether the outcomes of a stress run are true: what callers were told against what the adapter has written.

Pure: calls and their ends, and the tags that the adapter wrote, become a list of faults. Rules:

- each call has one end;
- what was told not to have run has written nothing, and what gave a value has;
- what is not idempotent has run at most once, of a batch each item;
- of a batch that was lost, the items that are told to have begun have;
- values, arrays and the order of chunks are right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from snakepit_ray.errors import (
    CommandError,
    DeadlineExceeded,
    PoolSaturated,
    QueueTimeout,
    SnakepitError,
    WorkerCrashed,
)
from tests.stress.plan import Call

VALUE, PART, CANCELLED = "value", "part of a stream", "cancelled"


@dataclass(frozen=True)
class End:
    """How a call ended: VALUE, PART, CANCELLED, or an error. `wrong` says what was wrong with the value.

    `cut`: items of a batch that its deadline or a cancel kept from running, or stopped."""

    outcome: str | SnakepitError
    failures: int = 0
    wrong: str = ""
    cut: int = 0


@dataclass
class Fate:
    """A call, and the ends that it had."""

    call: Call
    ends: list[End]


def faults(fates: Mapping[str, Fate], begun: Counter[str]) -> list[str]:
    """What is not as it should be; `begun` counts the tags that the adapter wrote."""
    return [
        f"{fate.call.id} {fate.call.command}: {fault}"
        for fate in fates.values()
        for fault in _of(fate, begun)
    ]


def _of(fate: Fate, begun: Counter[str]) -> Iterator[str]:
    call = fate.call
    if len(fate.ends) != 1:
        yield f"{len(fate.ends)} ends: {[end.outcome for end in fate.ends]}"
        return
    end = fate.ends[0]
    count = sum(begun[tag] for tag in call.tags)
    if end.wrong:
        yield end.wrong
    if not call.idempotent and any(begun[tag] > 1 for tag in call.tags):
        yield f"ran twice: {[begun[tag] for tag in call.tags]}"
    if count and _says_it_did_not_run(end.outcome):
        yield f"ran, and its caller was told {end.outcome!r}"
    if end.outcome is VALUE:
        yield from _of_value(call, end, count)
    if isinstance(end.outcome, WorkerCrashed) and call.items:
        yield from _of_lost_batch(call, end.outcome, count)


def _says_it_did_not_run(outcome: str | SnakepitError) -> bool:
    if isinstance(outcome, DeadlineExceeded):
        return outcome.where == "waiting"
    if isinstance(outcome, WorkerCrashed):
        return not outcome.may_have_started
    return isinstance(outcome, QueueTimeout | PoolSaturated)


def _of_value(call: Call, end: End, count: int) -> Iterator[str]:
    wrong_arguments = call.bad_items is None
    least = len(call.items) - wrong_arguments - end.cut if call.items else 1
    if count < least:
        yield f"gave a value, and {count} of {least} calls have run"
    own = end.failures - end.cut  # failures of the items themselves
    if (
        call.items
        and not wrong_arguments
        and not (call.bad_items or 0) - end.cut <= own <= (call.bad_items or 0)
    ):
        yield f"{own} items failed of {call.bad_items}"


def _of_lost_batch(call: Call, crash: WorkerCrashed, count: int) -> Iterator[str]:
    # An item may have begun and not have come to its line yet; one with wrong arguments writes none.
    missing = 1 + (call.bad_items is None)
    if crash.begun is not None and not count <= crash.begun <= count + missing:
        yield f"{crash.begun} items are told to have begun, {count} have"


def is_a_failure_of_its_own(error: SnakepitError) -> bool:
    """Whether the command itself failed: to the worker that is an answer."""
    return isinstance(error, CommandError)
