"""What watchers are told: each name that has changed since their cursor, with the versions that they missed;
names by patterns; and what a write costs."""

from __future__ import annotations

import fnmatch
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.state import story
from snakepit_ray.core.state.constraints import demanded
from snakepit_ray.core.state.patterns import matching, matching_any
from snakepit_ray.core.state.session import SessionState
from snakepit_ray.core.state.writes import Delete, Register, Write

ANY = demanded("integer", {}, "any")
NAMES = ("a", "b", "c")
steps = st.lists(
    st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), min_size=1, max_size=3),
    min_size=1,
    max_size=30,
)


def write(state: SessionState, changes: list[tuple[str, bool]], number: int) -> None:
    """One write, which is visible at once; `True` of a name: it is deleted, where it is there."""
    made = [
        Delete(name) if is_gone and name in state.visible else Register(name, number, ANY)
        for name, is_gone in dict(changes).items()
    ]
    op = f"op-{number}"
    state.write(Write(op, tuple(made)), 0.0, 0.0)
    state.durable(op)
    assert list(state.settled(0.0)) == [op]


@given(steps, st.integers(1, 40), st.booleans())
def test_a_watcher_of_any_past_is_told_all_that_it_missed(
    writes: list[list[tuple[str, bool]]], kept: int, restarted: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(story, "KEPT_CHANGES", kept)
        state = SessionState("s", 1)
        tables = [{}]  # after each change: the versions that there are
        for number, changes in enumerate(writes):
            write(state, changes, number)
            tables.append({name: one.newest.number for name, one in state.visible.items()})
        if restarted:
            state = SessionState("s", 1, state.visible, state.floor, gone=state.story.gone)
        assert state.story.cursor == len(writes)
        for cursor in range(1, len(writes) + 1):
            told = {one.name: one for one in state.story.since(cursor, lambda name: True)}
            before, after = tables[cursor], tables[-1]
            different = {name for name in NAMES if before.get(name) != after.get(name)}
            assert different <= set(told)
            for name, one in told.items():
                assert (one.variable is None) == (name not in after)
                if name in before and name in after and not _was_deleted(tables[cursor:], name):
                    missed = after[name] - before[name] - 1
                    assert one.skipped == (missed if len(writes) - cursor <= kept else min(missed, 9))


def _was_deleted(tables: list[dict[str, int]], name: str) -> bool:
    return any(name not in table for table in tables)


@given(st.text("ab*.", max_size=8), st.text("ab.", max_size=12))
def test_patterns_mean_what_the_shells_do(pattern: str, name: str) -> None:
    regex = fnmatch.translate(pattern)
    assert matching(pattern)(name) == (re.match(regex, name) is not None)
    assert matching_any([pattern, "c"])(name) == matching(pattern)(name)


@pytest.mark.parametrize("letter", ["[", "?", "]", "\\"])
def test_other_letters_stand_for_themselves(letter: str) -> None:
    assert matching(f"*{letter}")(f"x{letter}") and not matching(letter)("x")


def test_a_write_costs_what_it_changes_and_not_what_there_is() -> None:
    state = SessionState("s", 1)
    for number in range(0, 10_000, 1_000):
        names = [(f"x{one}", False) for one in range(number, number + 1_000)]
        write(state, names, number)
    tracemalloc.start()
    write(state, [("x5", False)], 10_001)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000, "a copy of the table has some hundred thousand bytes"
