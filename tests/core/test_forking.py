"""When a worker forks its interpreters: whatever happens in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.worker.forking import IDLE, SHORT_LIFE, Forking, State

EVENTS = ("start_failed", "executed", "executed in vain", "refused", "by_hand", "replaced")


def happened(forking: Forking, event: str, lived: float) -> bool:
    """Whether a forker is begun."""
    if event.startswith("executed"):
        forking.executed(has_started=event == "executed")
    elif event == "replaced":
        return forking.replaced(lived)
    else:
        getattr(forking, event)()
    return False


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 10 * SHORT_LIFE)), max_size=30))
def test_a_forker_is_begun_only_where_it_pays_and_nothing_is_in_its_way(
    events: list[tuple[str, float]],
) -> None:
    forking, doubted, off, by_hand = Forking(), False, False, False
    for event, lived in events:
        begun = happened(forking, event, lived)
        assert begun == (event == "replaced" and lived < SHORT_LIFE and not (doubted or off or by_hand)), (
            "by the model of this test"
        )
        off = event != "by_hand" and (off or event == "refused" or (doubted and event == "executed"))
        doubted = not off and (event == "start_failed" or (doubted and event == "replaced"))
        by_hand = event == "by_hand" or (by_hand and event != "replaced")
        assert (forking.state is State.OFF, forking.state is State.DOUBTED) == (off, doubted)


@pytest.mark.parametrize(("has_started", "state"), [(True, State.OFF), (False, State.POSSIBLE)])
def test_an_executed_start_shows_whether_the_fork_was_at_fault(has_started: bool, state: State) -> None:
    forking = Forking()
    assert not forking.executed(has_started=has_started) and forking.state is State.POSSIBLE
    forking.start_failed()
    assert forking.executed(has_started=has_started) == has_started
    assert forking.state is state
    assert not forking.executed(has_started=has_started), "it is said once"


def test_a_forker_waits_longer_than_the_lives_that_it_is_begun_for() -> None:
    assert IDLE > SHORT_LIFE
