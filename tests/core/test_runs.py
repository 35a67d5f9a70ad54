"""The table of a request in an interpreter: what it promises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.worker.runs import (
    IN_INTERPRETER,
    MACHINE,
    TOLD_TO_STOP,
    TRANSITIONS,
    RunEvent,
    RunState,
    step,
)
from tests.core.test_machine import reachable


@given(st.lists(st.sampled_from(RunEvent), max_size=12))
def test_a_request_is_sent_at_most_once_and_never_after_it_was_withdrawn(events: list[RunEvent]) -> None:
    state, sent = RunState.ENTERED, 0
    for event in events:
        if (state, event) not in TRANSITIONS:
            continue
        sent += event is RunEvent.SEND
        assert not (event is RunEvent.SEND and state is RunState.WITHDRAWN)
        state = step(state, event)
    assert sent <= 1
    assert not (state in IN_INTERPRETER and not sent)


@given(st.lists(st.sampled_from(RunEvent), max_size=12))
def test_one_that_was_told_to_stop_stays_told_and_is_not_called_back(events: list[RunEvent]) -> None:
    state, told = RunState.ENTERED, False
    for event in events:
        if (state, event) in TRANSITIONS:
            state = step(state, event)
            told = told or state in TOLD_TO_STOP
            assert not told or state in TOLD_TO_STOP | {RunState.ENDED}


def test_it_may_end_and_be_told_to_stop_whatever_it_does() -> None:
    living = set(RunState) - {RunState.ENDED}
    assert all(step(state, RunEvent.END) is RunState.ENDED for state in living)
    assert all(step(state, RunEvent.STOP) in TOLD_TO_STOP for state in living)
    assert RunState.RECALLED not in reachable(MACHINE, RunState.STOPPING)
