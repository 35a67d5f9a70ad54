"""Chains of calls that wait for each other end: simulated, and in every order that hypothesis finds."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from snakepit_ray.core.tools.ages import Age, Holder, may_wait


@dataclass
class Chain:
    """Commands of pools that call each other along `path`. It has reached step `depth`, for which it has a
    slot or waits."""

    age: Age
    path: tuple[int, ...]
    depth: int = -1
    is_running: bool = False  # its last command runs: none of its commands waits for a slot
    outcome: str = ""


@dataclass
class World:
    """Pools of one worker each. `rule`: of the requests that may wait. `nests`: a chain that comes back to a
    worker runs inside of its command that waits there."""

    slots: list[int]
    rule: object = may_wait
    nests: bool = False
    holders: list[list[tuple[Chain, int]]] = field(init=False)
    waiting: list[list[Chain]] = field(init=False)

    def __post_init__(self) -> None:
        self.holders = [[] for _ in self.slots]
        self.waiting = [[] for _ in self.slots]

    def call(self, chain: Chain) -> None:
        """Its next command is called: the one before waits from now on."""
        chain.depth += 1
        chain.is_running = False
        pool = chain.path[chain.depth]
        if self.nests and any(one is chain for one, _ in self.holders[pool]):
            chain.is_running = True
        elif len(self.holders[pool]) < self.slots[pool]:
            self.enter(chain)
        elif chain.depth:
            self.waiting[pool].insert(0, chain)  # before those that no command has made
        else:
            self.waiting[pool].append(chain)
        self.look()

    def enter(self, chain: Chain) -> None:
        self.holders[chain.path[chain.depth]].append((chain, chain.depth))
        chain.is_running = True

    def returns(self, chain: Chain) -> None:
        """Its last command ends: its slot is free, and the one before goes on."""
        self.leave(chain, chain.depth)
        chain.depth -= 1
        chain.is_running = True
        if chain.depth < 0:
            chain.outcome = "done"

    def leave(self, chain: Chain, depth: int) -> None:
        pool = chain.path[depth]
        if (chain, depth) not in self.holders[pool]:
            return  # it ran inside of another one
        self.holders[pool].remove((chain, depth))
        if self.waiting[pool]:
            self.enter(self.waiting[pool].pop(0))
        self.look()

    def look(self) -> None:
        """Whoever may not wait fails, and with it its chain."""
        for pool, waiting in enumerate(self.waiting):
            for chain in [one for one in waiting if one.depth > 0 and not self.may_wait(one, pool)]:
                if chain in waiting:
                    waiting.remove(chain)
                    chain.outcome = "failed"
                    for depth in range(chain.depth - 1, -1, -1):
                        self.leave(chain, depth)

    def may_wait(self, chain: Chain, pool: int) -> bool:
        holders = [
            Holder(one.age, not (one.is_running and one.depth == depth)) for one, depth in self.holders[pool]
        ]
        return self.rule(chain.age, holders, self.slots[pool])


def simulated(rule: object, seed: int, chains: int = 60, *, nests: bool = False) -> Counter[str]:
    """Random paths over 2 to 4 pools of 1 or 2 slots, at a load of about a half."""
    pick = random.Random(seed)
    world = World([pick.randint(1, 2) for _ in range(pick.randint(2, 4))], rule, nests)
    paths = [
        tuple(pick.randrange(len(world.slots)) for _ in range(pick.randint(1, 4))) for _ in range(chains)
    ]
    # A command of a step keeps its slot through all that come after it.
    work = sum(len(path) * (len(path) + 1) / 2 for path in paths) / chains
    every = work / (0.5 * sum(world.slots))
    events: list[tuple[float, int, Chain]] = []
    at = 0.0
    made = []
    for number, path in enumerate(paths):
        at += pick.expovariate(1 / every)
        made.append(Chain(Age(number, str(number)), path))
        heapq.heappush(events, (at, number, made[-1]))
    while events:
        at, number, chain = heapq.heappop(events)
        before = {id(one) for one in made if one.is_running}
        if chain.depth < 0:
            world.call(chain)
        elif chain.outcome or not chain.is_running:
            continue
        elif chain.depth + 1 < len(chain.path) and not getattr(chain, "turned", False):
            world.call(chain)
        else:
            chain.turned = True  # type: ignore[attr-defined]
            world.returns(chain)
        for index, one in enumerate(made):
            if one.is_running and not one.outcome and (id(one) not in before or one is chain):
                heapq.heappush(events, (at + pick.expovariate(1.0), index, one))
    return Counter(one.outcome or "stuck" for one in made)


def always(age: Age, holders: object, slots: int) -> bool:
    return True


def test_without_the_rule_chains_wait_for_ever() -> None:
    assert sum(simulated(always, seed)["stuck"] for seed in range(20)) > 100


def test_with_it_none_does_and_few_fail_where_chains_come_back_inside() -> None:
    plain: Counter[str] = sum((simulated(may_wait, seed) for seed in range(80)), Counter())
    nested: Counter[str] = sum((simulated(may_wait, seed, nests=True) for seed in range(80)), Counter())
    assert plain["stuck"] == nested["stuck"] == 0
    assert nested["failed"] < 0.7 * plain["failed"]


CHAINS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=2, max_size=8)


SLOTS = st.lists(st.integers(1, 2), min_size=4, max_size=4)


@given(CHAINS, SLOTS, st.booleans(), st.randoms(use_true_random=False), st.data())
@settings(deadline=None)
def test_whatever_goes_first_each_chain_ends(
    paths: list[list[int]], slots: list[int], nests: bool, pick: random.Random, data: st.DataObject
) -> None:
    world = World(slots, nests=nests)
    ages = data.draw(st.permutations(range(len(paths))))
    chains = [Chain(Age(age, str(age)), tuple(path)) for age, path in zip(ages, paths, strict=True)]
    turned: set[int] = set()
    for _ in range(20 * len(chains)):
        able = [
            index for index, one in enumerate(chains) if not one.outcome and (one.depth < 0 or one.is_running)
        ]
        if not able:
            break
        index = pick.choice(able)
        one = chains[index]
        if one.depth < 0 or (one.depth + 1 < len(one.path) and index not in turned):
            world.call(one)
        else:
            turned.add(index)
            world.returns(one)
    assert {one.outcome for one in chains} <= {"done", "failed"}
    assert not any(world.holders)
    oldest = min(chains, key=lambda one: one.age)
    if nests or len(set(oldest.path)) == len(oldest.path):  # else it may wait for itself
        assert oldest.outcome == "done"


def test_a_free_slot_is_waited_for_whoever_holds_the_others() -> None:
    age = Age(1, "a")
    assert may_wait(age, [], 1)
    assert may_wait(age, [Holder(Age(0, "b"), True)], 2)
    assert not may_wait(age, [Holder(Age(0, "b"), True)], 1)
    assert may_wait(age, [Holder(Age(2, "b"), True)], 1)
    assert may_wait(age, [Holder(Age(0, "b"), False)], 1)
    assert not may_wait(age, [Holder(age, True)], 1), "it would wait for itself"
    assert Age(1, "a") < Age(1, "b") < Age(2, "a")
