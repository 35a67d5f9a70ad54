"""The table of a worker's life: what it promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.worker.lifecycle import MACHINE, TRANSITIONS, WorkerEvent, WorkerState, step
from tests.core.test_machine import reachable


@given(st.lists(st.sampled_from(WorkerEvent), max_size=30))
def test_a_leaver_never_comes_back_and_the_dead_stay_dead(events: list[WorkerEvent]) -> None:
    state, story = WorkerState.STARTING, [WorkerState.STARTING]
    for event in events:
        if (state, event) in TRANSITIONS:
            state = step(state, event)
            story.append(state)
    if WorkerState.DEAD in story:
        assert set(story[story.index(WorkerState.DEAD) :]) == {WorkerState.DEAD}
    if WorkerState.DRAINING in story:
        left = set(story[story.index(WorkerState.DRAINING) :])
        assert left <= {WorkerState.DRAINING, WorkerState.DEAD}


def test_nothing_is_out_of_reach_and_all_may_end() -> None:
    assert reachable(MACHINE, WorkerState.STARTING) == set(WorkerState)
    assert all(WorkerState.DEAD in reachable(MACHINE, state) for state in WorkerState)
    assert reachable(MACHINE, WorkerState.DEAD) == {WorkerState.DEAD}
    assert reachable(MACHINE, WorkerState.DRAINING) == {WorkerState.DRAINING, WorkerState.DEAD}


def test_the_pool_may_end_and_shrink_whatever_a_worker_does() -> None:
    assert all(step(state, WorkerEvent.STOP) is WorkerState.DEAD for state in WorkerState)
    living = set(WorkerState) - {WorkerState.DEAD}
    assert all(step(state, WorkerEvent.LEAVE) is WorkerState.DRAINING for state in living)


@pytest.mark.parametrize("event", list(WorkerEvent))
def test_a_leaver_takes_whatever_its_interpreters_do(event: WorkerEvent) -> None:
    """Its keeper goes on until the worker ends: none of its reports may raise."""
    assert step(WorkerState.DRAINING, event) in {WorkerState.DRAINING, WorkerState.DEAD}


def test_only_a_spent_budget_leads_into_quarantine_and_only_time_out_of_it() -> None:
    into = {pair for pair, after in TRANSITIONS.items() if after is WorkerState.QUARANTINED}
    assert into == {(WorkerState.STARTING, WorkerEvent.EXHAUSTED)}
    assert step(WorkerState.QUARANTINED, WorkerEvent.RETRY) is WorkerState.STARTING
