"""Each rule of the stress run's accounts finds its fault, and none where there is none."""

from __future__ import annotations

from collections import Counter

import pytest

from snakepit_ray.errors import CommandError, DeadlineExceeded, QueueTimeout, WorkerCrashed
from tests.stress.accounts import CANCELLED, PART, VALUE, End, Fate, faults
from tests.stress.plan import Call

CALL = Call("q1", "run")
BATCH = Call("q1", "item", items=({"bad": False}, {"bad": True}, {"bad": False}))
STARTED, UNSTARTED = (WorkerCrashed("gone", may_have_started=one) for one in (True, False))


def _faults(call: Call, *ends: End, begun: tuple[str, ...] = ()) -> list[str]:
    return faults({call.id: Fate(call, list(ends))}, Counter(begun))


@pytest.mark.parametrize(
    ("call", "end", "begun"),
    [
        (CALL, End(VALUE), ("q1",)),
        (CALL, End(CANCELLED), ()),
        (CALL, End(CANCELLED), ("q1",)),
        (CALL, End(DeadlineExceeded.after(1.0, "running", "run")), ("q1",)),
        (CALL, End(DeadlineExceeded.after(1.0, "waiting", "run")), ()),
        (CALL, End(STARTED), ("q1",)),
        (CALL, End(UNSTARTED), ()),
        (Call("q1", "idem", idempotent=True), End(VALUE), ("q1", "q1")),
        (BATCH, End(VALUE, failures=1), ("q1#0", "q1#1", "q1#2")),
        (BATCH, End(VALUE, failures=2, cut=2), ("q1#0",)),
        (BATCH, End(VALUE, failures=2, cut=1), ("q1#0", "q1#1")),
    ],
)
def test_a_true_outcome_is_no_fault(call: Call, end: End, begun: tuple[str, ...]) -> None:
    assert _faults(call, end, begun=begun) == []


@pytest.mark.parametrize(
    ("call", "end", "begun", "words"),
    [
        (CALL, End(VALUE), (), "0 of 1 calls have run"),
        (CALL, End(VALUE), ("q1", "q1"), "ran twice"),
        (CALL, End(PART, wrong="chunk 3 is 4, not 3"), ("q1",), "chunk 3 is 4"),
        (CALL, End(QueueTimeout.after(1.0, 1.0, "test")), ("q1",), "ran, and its caller was told"),
        (CALL, End(DeadlineExceeded.after(1.0, "waiting", "run")), ("q1",), "ran, and its caller was told"),
        (CALL, End(UNSTARTED), ("q1",), "ran, and its caller was told"),
        (BATCH, End(VALUE, failures=1), ("q1#0", "q1#1"), "2 of 3 calls have run"),
        (BATCH, End(VALUE, failures=2), ("q1#0", "q1#1", "q1#2"), "2 items failed of 1"),
        (BATCH, End(VALUE, failures=2, cut=1), ("q1#1",), "1 of 2 calls have run"),
        (BATCH, End(VALUE, failures=1), ("q1#0", "q1#1", "q1#2", "q1#2"), "ran twice"),
    ],
)
def test_each_rule_finds_its_fault(call: Call, end: End, begun: tuple[str, ...], words: str) -> None:
    (fault,) = _faults(call, end, begun=begun)
    assert words in fault


def test_a_call_has_one_end() -> None:
    assert "0 ends" in _faults(CALL)[0]
    assert "2 ends" in _faults(CALL, End(VALUE), End(CANCELLED), begun=("q1",))[0]


@pytest.mark.parametrize(
    ("said", "begun", "count"), [(1, ("q1#0",), 0), (2, ("q1#0",), 0), (3, ("q1#0",), 1)]
)
def test_of_a_lost_batch_what_is_told_to_have_begun_has(
    said: int, begun: tuple[str, ...], count: int
) -> None:
    crash = WorkerCrashed("gone", may_have_started=True)
    crash.begun = said
    assert len(_faults(BATCH, End(crash), begun=("q1#0",))) == count


def test_a_command_that_fails_is_an_outcome_like_another() -> None:
    assert _faults(CALL, End(CommandError("no", remote_type="KeyError")), begun=("q1",)) == []
