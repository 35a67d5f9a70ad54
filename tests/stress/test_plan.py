"""The plan of a stress run: repeatable, and with everything in it."""

from __future__ import annotations

from tests.stress.plan import Call, Recycle, Signal, settings_of, steps_of

SEEDS = range(40)


def _actions(seed: int) -> list[Call | Recycle | Signal]:
    return [action for step in steps_of(seed, 250) for action in step.actions]


def test_a_seed_gives_the_same_plan_again() -> None:
    assert settings_of(5) == settings_of(5)
    assert list(steps_of(5, 100)) == list(steps_of(5, 100)) != list(steps_of(6, 100))


def test_ids_are_unique_in_a_run() -> None:
    ids = [action.id for action in _actions(7) if isinstance(action, Call)]
    assert len(ids) == len(set(ids)) > 200


def test_the_seeds_together_have_every_kind_of_request_and_of_disturbance() -> None:
    actions = [action for seed in SEEDS for action in _actions(seed)]
    calls = [action for action in actions if isinstance(action, Call)]
    commands = {call.command for call in calls}
    assert commands == {
        *("run", "idem", "awaited", "holds_gil", "cooperative", "raises", "asks_host"),
        *("array", "item", "stream", "astream"),
    }
    assert {signal.name for signal in actions if isinstance(signal, Signal)} == {"KILL", "TERM", "STOP"}
    assert {recycle.then is None for recycle in actions if isinstance(recycle, Recycle)} == {True, False}
    assert {call.cancelled_after is None for call in calls} == {True, False}


def test_the_seeds_together_have_every_setting() -> None:
    every = [settings_of(seed) for seed in SEEDS]
    assert {one.capacity for one in every} == {1, 4}
    assert {one.overlap for one in every} == {one.is_stopped_early for one in every} == {True, False}
    assert {one.queue_limit for one in every} == {None, 20, 100}
