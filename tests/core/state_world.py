"""A session's variables in a simulated cluster: writers and readers, copies under leases, messages that are
late, lost or come twice, a store that dies before and after a commit, and holders that stand still."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from snakepit_ray.core.state.constraints import demanded
from snakepit_ray.core.state.leases import LEASE_SECONDS, Lease
from snakepit_ray.core.state.session import SessionState
from snakepit_ray.core.state.writes import Outcome, Register, Set, Write
from snakepit_ray.errors import VersionConflict
from tests.core.linear import check_register

NAMES = ("x", "y")
STEPS = 200  # of a history
HOLDERS = ("w-0", "w-1", "w-2")
INTEGERS = demanded("integer", {}, "any")
NEVER = -1.0
Copy = Mapping[str, tuple[int, int]]  # version and value of each variable


@dataclass(frozen=True)
class Seen:
    """What one party knows: a variable had this version and value at some moment between two."""

    name: str
    version: int
    value: int
    began: int
    ended: int
    wrote: bool


@dataclass
class Asked:
    """A write of one writer, which is sent until it is answered."""

    write: Write
    began: int
    outcome: Outcome | None = None


@dataclass
class Holder:
    """A worker with a copy. `invalidated`: how often it was told to let go."""

    copy: Copy = field(default_factory=dict)
    ends: float = NEVER
    invalidated: int = 0
    stands_still: bool = False


class World:
    """One session, one store, three holders. Each method is something that happens."""

    written = NAMES  # by callers

    def __init__(self) -> None:
        self.now, self.number, self.deaths = 100.0, 0, 0
        self.store = SessionState("s", 1)
        self.rows: dict[str, Any] = {}  # what is durable: variables, the floor, outcomes
        self.floor = 0
        self.done: dict[str, Outcome] = {}
        self.commits: list[tuple[str, Any, int, Outcome]] = []
        self.holders = {name: Holder() for name in HOLDERS}
        self.messages: list[tuple[str, Callable[[], None]]] = []  # who gets it, and what it does there
        self.asked: dict[str, Asked] = {}
        self.seen: list[Seen] = []
        self._moment = 0
        for name in NAMES:
            self.send(Write(f"register-{name}", (Register(name, 0, INTEGERS),)))
        self.store_commits(2)

    def moment(self) -> int:
        self._moment += 1
        return self._moment

    # ---- writers ------------------------------------------------------------------------------------------

    def set(self, names: set[str], guess: int | None) -> None:
        """Somebody writes, whatever the version is or expecting one that may be wrong by `guess`."""
        self.number += 1
        versions = {name: self.visible()[name][0] if name in self.visible() else 1 for name in names}
        expected = {name: None if guess is None else versions[name] - guess for name in names}
        changes = tuple(Set(name, self.number, expected[name]) for name in sorted(names))
        self.send(Write(f"op-{self.number}", changes))

    def send(self, write: Write) -> None:
        self.asked[write.op] = self.newly(write)
        self.arrives(write)

    def newly(self, write: Write) -> Asked:
        return Asked(write, self.moment())

    def send_again(self, op: str) -> None:
        """Its writer has no answer, or an old copy of it is still on its way."""
        self.arrives(self.asked[op].write)

    def arrives(self, write: Write) -> None:
        told = self.store.write(write, self.now, 0.0)
        if told.outcome is not None:
            self.answered(write.op, told.outcome)
        if told.rows:
            self.commits.append((write.op, told.rows, told.floor, told.accepted))
        for lease in told.leases:
            self.messages.append((lease.holder, lambda lease=lease: self.let_go(lease)))  # type: ignore[misc]

    def answered(self, op: str, outcome: Outcome) -> None:
        asked = self.asked[op]
        if asked.outcome is not None:
            return
        asked.outcome = outcome
        for one in outcome:
            if one.error is not None:
                assert isinstance(one.error, VersionConflict), one.error
                # Who is refused can read the version that it is told of.
                assert (one.error.actual or 0) <= self.visible()[one.name][0]
        if any(one.error is not None for one in outcome):
            return
        ended = self.moment()
        for one, change in zip(outcome, asked.write.changes, strict=True):
            value = change.value if isinstance(change, (Set, Register)) else 0
            self.seen.append(Seen(one.name, one.version, value, asked.began, ended, wrote=True))

    # ---- the store ----------------------------------------------------------------------------------------

    def store_commits(self, count: int) -> None:
        for _ in range(min(count, len(self.commits))):
            self.store.durable(self._commit())
        self.settle()

    def store_dies(self, after_a_commit: bool) -> None:
        if after_a_commit and self.commits:
            self._commit()  # and nobody hears of it
        self.commits.clear()
        until, self.deaths = self.now + LEASE_SECONDS, self.deaths + 1
        self.store = SessionState("s", 1, self.rows, self.floor, self.done, until, self.deaths)

    def _commit(self) -> str:
        op, rows, floor, outcome = self.commits.pop(0)
        for name, row in rows.items():
            self.rows[name] = row
        self.floor, self.done[op] = floor, outcome
        return op

    def settle(self) -> None:
        for op, outcome in self.store.settled(self.now).items():
            self.answered(op, outcome)

    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    # ---- holders and readers ------------------------------------------------------------------------------

    def visible(self) -> Copy:
        return {name: (one.newest.number, one.newest.value) for name, one in self.store.visible.items()}

    def is_readable(self) -> bool:
        return self.now >= self.store.readable_from

    def ask(self, name: str) -> None:
        """A holder reads what it has no copy of."""
        holder = self.holders[name]
        if not holder.stands_still:
            asked = self.now, holder.invalidated, self.moment()
            self.messages.append(("store", lambda: self._asked(name, *asked)))

    def _asked(self, name: str, at: float, invalidated: int, began: int) -> None:
        if self.is_readable():  # else it waits there, and whoever asked asks again
            copy, lease = self.visible(), self.store.lease(name, self.now)
            self.messages.append((name, lambda: self._got(name, copy, lease, at, invalidated, began)))

    def _got(
        self, name: str, copy: Copy, lease: Lease | None, at: float, invalidated: int, began: int
    ) -> None:
        self.note(copy, began)
        holder = self.holders[name]
        if lease is not None and self.may_keep(holder, invalidated):
            holder.copy, holder.ends = copy, at + LEASE_SECONDS

    def may_keep(self, holder: Holder, invalidated: int) -> bool:
        """An answer that was overtaken by the word to let go is not kept."""
        return holder.invalidated == invalidated

    def let_go(self, lease: Lease) -> None:
        holder = self.holders[lease.holder]
        holder.invalidated += 1
        holder.ends = NEVER
        self.messages.append(("store", lambda: self._released(lease)))

    def _released(self, lease: Lease) -> None:
        self.store.leases.release(lease)
        self.settle()

    def read_the_copy(self, name: str) -> None:
        """Also of a worker that stands still: its interpreter reads on."""
        holder = self.holders[name]
        if self.now < holder.ends:
            self.note(holder.copy, self.moment())

    def read_the_store(self) -> None:
        if self.is_readable():
            self.note(self.visible(), self.moment())

    def note(self, copy: Copy, began: int) -> None:
        ended = self.moment()
        for name, (version, value) in copy.items():
            self.seen.append(Seen(name, version, value, began, ended, wrote=False))

    def stand_still_or_go_on(self, name: str) -> None:
        self.holders[name].stands_still = not self.holders[name].stands_still

    def message(self, index: int, fate: str) -> None:
        """One message "arrives", is "lost", or comes "twice": now, and later again."""
        to, deliver = self.messages[index]
        if to in self.holders and self.holders[to].stands_still:
            return
        if fate != "twice":
            self.messages.pop(index)
        if fate != "lost":
            deliver()

    # ---- what must hold -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises AssertionError where what was seen is not linearizable, or a write took effect twice, or one
        that was acknowledged is missing."""
        for name in NAMES:
            seen = [one for one in self.seen if one.name == name]
            check_register(seen)
            row = self.rows.get(name)
            assert row is not None or not seen, "acknowledged and lost"
            if row is not None:
                assert all(one.version <= row.newest.number for one in seen), "acknowledged and lost"
                kept = [version.value for version in row.versions]
                assert len(kept) == len(set(kept)), "one write, twice"


def happens(world: World, rng: random.Random, weights: Mapping[str, float]) -> None:
    """One step, whose name is one of `weights`."""
    (what,) = rng.choices(list(weights), list(weights.values()))
    if what == "message":
        if world.messages:
            fate = rng.choices(["arrives", "lost", "twice"], [8, 1, 1])[0]
            world.message(rng.randrange(len(world.messages)), fate)
    elif what == "set":
        names = rng.sample(world.written, rng.randint(1, len(world.written)))
        world.set(set(names), rng.choice([None, 0, 1]))
    elif what == "store_commits":
        world.store_commits(rng.randint(1, 3))
    elif what == "store_dies":
        world.store_dies(rng.random() < 0.5)
    elif what == "time_passes":
        world.time_passes(rng.choice([0.1, 0.5, 1.0, 2.5]))
    elif what == "send_again":
        world.send_again(rng.choice(list(world.asked)))
    elif what == "read_the_store":
        world.read_the_store()
    else:
        getattr(world, what)(rng.choice(HOLDERS))


def histories(make: Callable[[], World], weights: Mapping[str, float], seeds: int) -> None:
    """Raises AssertionError where one of so many histories is not what it must be."""
    for seed in range(seeds):
        world, rng = make(), random.Random(seed)
        for _ in range(STEPS):
            happens(world, rng, weights)
        world.check()
