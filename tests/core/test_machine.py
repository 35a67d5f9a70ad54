"""The tables of the state machines: each does what it says, and a guide shows it as it is."""

from __future__ import annotations

import re
from enum import Enum
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import snakepit_ray
from snakepit_ray.core.machine import Machine, UnknownEvent
from snakepit_ray.core.pool import row
from snakepit_ray.core.worker import lifecycle, runs

PAGE = Path(snakepit_ray.__file__).with_name("docs") / "architecture.md"
MACHINES = {
    "lifecycle": (lifecycle.MACHINE, lifecycle.WorkerState, lifecycle.WorkerEvent),
    "request": (runs.MACHINE, runs.RunState, runs.RunEvent),
    "roster": (row.MACHINE, row.RowState, row.RowEvent),
}
PAIRS = [
    pytest.param(machine, state, event, id=f"{name}-{state}-{event}")
    for name, (machine, states, events) in MACHINES.items()
    for state, event in product(states, events)
]


def reachable(machine: Machine[Any, Any], start: Enum) -> set[Any]:
    """Every state that some sequence of events leads to, with `start` itself."""
    found, fresh = {start}, {start}
    while fresh:
        fresh = {after for (at, _), after in machine.transitions.items() if at in fresh} - found
        found |= fresh
    return found


@pytest.mark.parametrize(("machine", "state", "event"), PAIRS)
def test_each_event_leads_on_or_is_refused_with_what_is_possible(
    machine: Machine[Any, Any], state: Enum, event: Enum
) -> None:
    if (state, event) in machine.transitions:
        assert machine.step(state, event) is machine.transitions[state, event]
        return
    with pytest.raises(UnknownEvent) as refusal:
        machine.step(state, event)
    before, _, possible = str(refusal.value).partition("; it knows ")
    assert before == f"{machine.what} that is {state.value} does not know {event.value}"
    assert set(filter(None, possible.split(", "))) == {
        known.value for at, known in machine.transitions if at is state
    }


@pytest.mark.parametrize("name", MACHINES)
def test_nothing_is_out_of_reach_and_all_may_end(name: str) -> None:
    machine, states, _ = MACHINES[name]
    assert reachable(machine, machine.start) == set(states)
    assert all(machine.end in reachable(machine, state) for state in states)
    assert reachable(machine, machine.end) == {machine.end}


@pytest.mark.parametrize("name", MACHINES)
def test_the_diagram_has_each_arrow_once(name: str) -> None:
    machine, _, _ = MACHINES[name]
    drawn = re.findall(r"^    (\w+) --> (\w+): (.+)$", machine.diagram(), re.MULTILINE)
    arrows = [(at, event, after) for at, after, events in drawn for event in events.split(", ")]
    wanted = [
        (at.value, event.value, after.value)
        for (at, event), after in machine.transitions.items()
        if (at, after) != (machine.end, machine.end)  # an arrow out of the picture instead
    ]
    assert sorted(arrows) == sorted(wanted)


@pytest.mark.parametrize("name", MACHINES)
def test_the_guide_shows_the_table_as_it_is(name: str) -> None:
    machine, _, _ = MACHINES[name]
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = PAGE.read_text()
    assert text.count(begin) == text.count(end) == 1
    shown = text.partition(begin)[2].partition(end)[0]
    assert shown == f"\n```mermaid\n{machine.diagram()}\n```\n", (
        f"{PAGE.name} shows other states than the table has: to fix this, put between {begin} and {end}, "
        f"in a ```mermaid block:\n{machine.diagram()}"
    )
