"""The table of a worker's life: what it promises, and that the README shows it as it is."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.lifecycle import (
    TRANSITIONS,
    LifecycleError,
    WorkerEvent,
    WorkerState,
    diagram,
    step,
)

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- lifecycle: begin -->", "<!-- lifecycle: end -->"
PAIRS = list(product(WorkerState, WorkerEvent))


def reachable(start: WorkerState) -> set[WorkerState]:
    """Every state that some sequence of events leads to, with `start` itself."""
    found, fresh = {start}, {start}
    while fresh:
        fresh = {after for (at, _), after in TRANSITIONS.items() if at in fresh} - found
        found |= fresh
    return found


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_each_event_leads_on_or_is_refused_with_what_is_possible(
    state: WorkerState, event: WorkerEvent
) -> None:
    if (state, event) in TRANSITIONS:
        assert step(state, event) is TRANSITIONS[state, event]
        return
    with pytest.raises(LifecycleError) as refusal:
        step(state, event)
    before, _, possible = str(refusal.value).partition("; it knows ")
    assert before == f"a worker that is {state.value} does not know {event.value}"
    assert set(possible.split(", ")) == {known.value for at, known in TRANSITIONS if at is state}


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
    assert reachable(WorkerState.STARTING) == set(WorkerState)
    assert all(WorkerState.DEAD in reachable(state) for state in WorkerState)
    assert reachable(WorkerState.DEAD) == {WorkerState.DEAD}
    assert reachable(WorkerState.DRAINING) == {WorkerState.DRAINING, WorkerState.DEAD}


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


def test_the_diagram_has_each_arrow_once() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): (.+)$", diagram(), re.MULTILINE)
    arrows = [(at, event, after) for at, after, events in drawn for event in events.split(", ")]
    wanted = [(at.value, event.value, after.value) for (at, event), after in TRANSITIONS.items()]
    wanted.remove(("dead", "stop", "dead"))  # the end has an arrow out of the picture instead
    assert sorted(arrows) == sorted(wanted)


def test_the_readme_shows_the_table_as_it_is() -> None:
    text = README.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    shown = text.partition(BEGIN)[2].partition(END)[0]
    assert shown == f"\n```mermaid\n{diagram()}\n```\n", (
        f"README.md shows another life of a worker than core/lifecycle.py has: to fix this, put between "
        f"{BEGIN} and {END}, in a ```mermaid block, what this prints:\n"
        '    python -c "from snakepit_ray.core.lifecycle import diagram; print(diagram())"'
    )
