"""Whatever happens to the store, its disk, its holders and messages: what the parties see of sessions is
linearizable, each change takes effect at most once, fences hold, watchers end with the newest."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.state.changing import Changing
from snakepit_ray.core.state.desk import Desk
from snakepit_ray.core.state.leases import Leases
from snakepit_ray.core.state.reading import Reading
from snakepit_ray.core.state.room import Room
from snakepit_ray.core.state.story import Story
from snakepit_ray.store.database import Database
from tests.store.world import HOLDERS, NAMES, POOL, SESSIONS, SHORT, World

STEPS = 120
WEIGHTS = {
    "put": 6, "read": 6, "read_the_copy": 5, "message": 8, "commit": 6, "loaded": 4, "watch": 2,
    "send_again": 2, "time_passes": 1, "join": 0.7, "remove": 0.4, "update": 0.4, "program": 0.3,
    "move": 0.4, "sweep": 0.3,
    "die": 0.5, "full": 0.3,
}  # fmt: skip


def happens(world: World, rng: random.Random) -> None:
    """One step."""
    (what,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
    step(world, what, rng)


def step(world: World, what: str, rng: random.Random) -> None:
    """One of that kind."""
    session = rng.choice(SESSIONS)
    creation = rng.choice([POOL, POOL, SHORT])
    fence = rng.choice([None, None, 0, 0, 1])
    steps: Mapping[str, Callable[[], None]] = {
        "put": lambda: world.put(
            session,
            rng.choice(NAMES),
            rng.choice(["set"] * 9 + ["delete"]),
            fence,
            rng.choice([None, creation]),
            rng.choice([None, *HOLDERS]),
        ),
        "read": lambda: world.read(session, rng.choice(HOLDERS), fence),
        "read_the_copy": lambda: world.read_the_copy(session, rng.choice(HOLDERS)),
        "message": lambda: world.message(
            rng.randrange(100), rng.choices(["arrives", "lost", "twice"], [8, 1, 1])[0]
        ),
        "commit": lambda: world.commit(rng.randint(1, 4)),
        "full": lambda: world.commit(1, is_full=True),
        "loaded": world.loaded,
        "watch": lambda: world.watch(rng.randrange(len(world.watchers))),
        "send_again": lambda: world.send_again(rng.randrange(10)),
        "time_passes": lambda: world.time_passes(
            rng.choice([0.1, 0.5, 1.0, 2.5]), rng.choice([0, 0, 1e5, -1e5])
        ),
        "join": lambda: world.join(session, creation),
        "remove": lambda: world.remove(session),
        "update": lambda: world.update(session),
        "program": lambda: world.program(session),
        "move": lambda: world.move(session),
        "sweep": world.sweep,
        "die": lambda: world.die(rng.randint(0, 3)),
    }
    steps[what]()


def histories(seeds: range) -> None:
    """Raises AssertionError where one of so many histories is not what it must be."""
    for seed in seeds:
        world, rng = World(), random.Random(seed)
        for _ in range(STEPS):
            happens(world, rng)
        world.finish()


def test_no_history_is_broken() -> None:
    histories(range(150))


@given(st.lists(st.tuples(st.sampled_from(sorted(WEIGHTS)), st.integers(0, 1_000)), max_size=60))
def test_no_short_history_is_broken(steps: list[tuple[str, int]]) -> None:
    """Found ones are made as short as they can be."""
    world = World()
    for what, seed in steps:
        step(world, what, random.Random(seed))
    world.finish()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_history_of_many_is_broken() -> None:
    histories(range(150, 10_000))


# ---- each rule is needed: without it histories are broken --------------------------------------------------


def _nobody_waits_for_copies(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "free_from", lambda self, now: now)


def _an_end_waits_for_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Room, "is_quiet", lambda self, now: True)


def _each_lease_has_a_number_of_its_own(patch: pytest.MonkeyPatch) -> None:
    real = Leases.grant

    def grant(self: Leases, holder: str, now: float) -> Any:
        self._ends.pop(holder, None)
        return real(self, holder, now)

    patch.setattr(Leases, "grant", grant)


def _the_next_store_waits_for_no_leases(patch: pytest.MonkeyPatch) -> None:
    real = Database.begin
    patch.setattr(Database, "begin", lambda self, now, at: replace(real(self, now, at), open_at=now))


def _leases_are_granted_before_that_is_durable(patch: pytest.MonkeyPatch) -> None:
    real = Reading.__init__

    def init(self: Reading, desk: Desk) -> None:
        real(self, desk)
        self._grants = True

    patch.setattr(Reading, "__init__", init)


def _fences_are_not_written_down(patch: pytest.MonkeyPatch) -> None:
    def is_fenced(self: Changing, room: Room, fence: Any) -> bool:
        session = self._desk.registry.find(room.id, self._desk.now)
        if fence is not None and session is not None and fence.binding > session.fences.get(fence.pool, 0):
            self._desk.registry.replace(replace(session, fences={fence.pool: fence.binding}))
        return False

    patch.setattr(Changing, "is_fenced", is_fenced)


def _answers_are_not_remembered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Database, "_ops", lambda self, session: {})


def _watchers_are_told_of_what_there_is(patch: pytest.MonkeyPatch) -> None:
    real = Story.since
    patch.setattr(Story, "since", lambda self, cursor, means: real(self, 0, means))


@pytest.mark.parametrize(
    "without",
    [
        _nobody_waits_for_copies,
        _an_end_waits_for_nothing,
        _each_lease_has_a_number_of_its_own,
        _the_next_store_waits_for_no_leases,
        _leases_are_granted_before_that_is_durable,
        _fences_are_not_written_down,
        _answers_are_not_remembered,
        _watchers_are_told_of_what_there_is,
    ],
)
def test_each_rule_is_needed(
    without: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch)
    with pytest.raises(AssertionError):
        histories(range(1_500))
