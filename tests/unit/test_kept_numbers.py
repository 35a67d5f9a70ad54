"""What a pool has counted, and its size, survive the death of whatever knows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.row import Row, RowState
from snakepit_ray.ledger import Ledger
from snakepit_ray.port.messages import PoolMemory, WorkerFacts
from snakepit_ray.router.members import COUNTED, Members
from snakepit_ray.router.reconciler import make_roster
from snakepit_ray.supervisor import Counters
from snakepit_ray.worker import pool_notes

MEMORY = PoolMemory(7, 3, 12, {name: 100 + place for place, name in enumerate(COUNTED)})


def facts(incarnation: int, counts_from: int, **counted: int) -> WorkerFacts:
    given = dict.fromkeys(WorkerFacts._fields, 0) | {"worker_id": "p-0", "node_id": "n", "state": "ready"}
    return WorkerFacts(**given | {"epoch": (incarnation, 1), "counts_from": counts_from, **counted})


def test_counters_and_notes_are_there_in_the_next_process(tmp_path: Path) -> None:
    first = Ledger.open("w-0", tmp_path)
    counters = Counters(first.counts)
    for name in COUNTED:
        setattr(counters, name, getattr(counters, name) + len(name))
    pool_notes.store(first.notes, MEMORY)
    first.close()
    second = Ledger.open("w-0", tmp_path)
    again = Counters(second.counts)
    assert {name: getattr(again, name) for name in COUNTED} == {name: len(name) for name in COUNTED}
    assert pool_notes.load(second.notes) == MEMORY
    second.close()


def test_each_counter_has_a_place_of_its_own() -> None:
    words = [0] * Counters.SIZE
    counters = Counters(words)
    for number, name in enumerate(COUNTED, 1):
        setattr(counters, name, number)
    assert sorted(words) == list(range(1, Counters.SIZE + 1))
    assert [getattr(counters, name) for name in COUNTED] == list(range(1, Counters.SIZE + 1))


@given(st.integers(0, 2 + len(COUNTED)), st.integers(0, 2**63 - 1))
def test_notes_that_are_damaged_or_half_written_are_none(place: int, number: int) -> None:
    words = [0] * 20
    assert pool_notes.load(words) == PoolMemory()
    pool_notes.store(words, MEMORY)
    before, words[place] = words[place], number
    assert pool_notes.load(words) == (MEMORY if number == before else PoolMemory())


@pytest.mark.parametrize(("counts_from", "expected"), [(1, 9), (2, 14)])
def test_a_restarted_worker_goes_on_counting_or_begins_anew(counts_from: int, expected: int) -> None:
    """On its own node it goes on; on another one what it had counted stays as it was last heard."""
    members = Members(1, make_roster(PoolConfig(name="p"), 1))
    member = members.add(Row("p-0", 0, RowState.READY))
    members.heard(member, facts(1, 1, requests=5))
    now = facts(2, counts_from, requests=9)
    assert members.heard(member, now)
    assert members.stats([now], 0).requests == expected
