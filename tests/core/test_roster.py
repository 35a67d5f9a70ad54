"""The roster of a pool: facts in any order, and a small world in which actors come, die and come back."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.core.pool import roster as rules
from snakepit_ray.core.pool.orders import Do, Order, RosterLimits
from snakepit_ray.core.pool.roster import Roster
from snakepit_ray.core.pool.row import ALIVE, MACHINE, TRANSITIONS, RowEvent, RowState
from tests.core.test_machine import reachable

LIMITS = RosterLimits(pool="p", asked="CPU 1", batch=2, delay=0.5, arrival=60.0, startup=30.0)
ERROR = ValueError("no interpreter")


def begun(size: int, **limits: Any) -> Roster:
    roster = Roster(RosterLimits(**{**LIMITS.__dict__, **limits}), size)
    roster.whole(0.0)
    return roster


def served(size: int) -> Roster:
    """A roster whose workers all serve."""
    roster = begun(size, batch=100)
    for number in range(size):
        worker_id = f"p-{number}"
        roster.created(worker_id, 0.0)
        roster.came(worker_id, 1, "n", RowEvent.CAME, 0.0)
        roster.started(worker_id, 1, 0.0)
    assert states(roster) == {RowState.READY: size}
    return roster


def states(roster: Roster) -> dict[RowState, int]:
    return dict(Counter(row.state for row in roster.rows.values()))


def did(orders: list[Order], do: Do) -> list[str]:
    return [worker_id for what, worker_id in orders if what is do]


# ---- the table ---------------------------------------------------------------------------------------------


def test_nothing_is_out_of_reach_and_who_leaves_only_goes() -> None:
    assert reachable(MACHINE, RowState.WANTED) == set(RowState)
    assert all(RowState.GONE in reachable(MACHINE, state) for state in RowState)
    assert reachable(MACHINE, RowState.LEAVING) == {RowState.LEAVING, RowState.GONE}
    assert reachable(MACHINE, RowState.GONE) == {RowState.GONE}


def test_only_a_worker_that_says_so_serves() -> None:
    into = {event for (_, event), after in TRANSITIONS.items() if after is RowState.READY}
    assert into == {RowEvent.SERVES}


# ---- facts in any order ------------------------------------------------------------------------------------

NUMBERS = st.integers(0, 5)
TIMES = st.sampled_from([0.0, 0.1, 0.5, 1.0, 5.0, 31.0, 100.0])


@st.composite
def facts(draw: st.DrawFn) -> tuple[str, tuple[Any, ...]]:
    """A method of Roster with arguments, whether they make sense or not."""
    number = draw(NUMBERS)
    worker, incarnation = f"p-{number}", draw(st.integers(0, 3))
    event = draw(st.sampled_from([RowEvent.CAME, RowEvent.SERVES, RowEvent.TROUBLED, RowEvent.LEAVE]))
    return draw(
        st.sampled_from(
            [
                ("resize", (draw(st.integers(0, 4)),)),
                ("whole", ()),
                ("surveyed", (draw(st.integers(0, 3)), draw(st.integers(0, 4)), ERROR)),
                ("tick", ()),
                ("found", (worker,)),
                ("created", (worker,)),
                ("refused", (worker, ERROR)),
                ("came", (worker, incarnation, f"n{number % 2}", event)),
                ("started", (worker, incarnation)),
                ("interrupted", (worker,)),
                ("could_not_start", (worker, ERROR)),
                ("troubled", (worker, incarnation)),
                ("recovered", (worker, incarnation)),
                ("died", (worker, incarnation)),
                ("gone", (worker, incarnation, ERROR)),
                ("left", (worker,)),
            ]
        )
    )


@dataclass
class Seen:
    """What follows from the orders alone: it must agree with the rows."""

    on_it: set[str] = field(default_factory=set)
    serving: set[str] = field(default_factory=set)
    turns: set[str] = field(default_factory=set)
    ever: set[str] = field(default_factory=set)

    def take(self, orders: list[Order]) -> None:
        for do, worker_id in orders:
            if do is Do.ENTER:
                assert worker_id not in self.on_it
                self.on_it.add(worker_id)
                self.ever.add(worker_id)
            elif do is Do.FORGET:
                self.on_it.remove(worker_id)
                self.serving.discard(worker_id)
            elif do is Do.SERVE:
                self.serving.add(worker_id)
            elif do in (Do.UNSERVE, Do.LEAVE):
                self.serving.discard(worker_id)
            elif do is Do.END:
                assert worker_id
            elif worker_id:
                assert worker_id in self.on_it, f"{do} is about somebody on the roster"


@given(st.lists(st.tuples(facts(), TIMES), max_size=60))
def test_whatever_is_reported_the_roster_stays_whole(story: list[tuple[tuple[str, Any], float]]) -> None:
    roster, seen, now, version = Roster(LIMITS, 2), Seen(), 0.0, 1
    seen.take(roster.whole(now))
    for (method, arguments), later in story:
        now += later
        ready = {row.worker_id for row in roster.rows.values() if row.state is RowState.READY}
        seen.take(getattr(roster, method)(*arguments, now))
        rows = roster.rows
        assert seen.on_it == set(rows)
        after = {name for name, row in rows.items() if row.state is RowState.READY}
        assert seen.serving == after
        assert len(roster.staying()) == roster.size, roster
        assert roster.version >= version + (ready != after), "handles learn who serves"
        version = roster.version
        assert all(row.number < roster.next_number for row in rows.values())
    roster.surveyed(1, 9, None, now)
    seen.take(roster.tick(now))
    assert roster.next_at() > now, "nothing that is due is left undone"
    for worker_id in did(orders := roster.close(now), Do.END):
        assert worker_id in seen.on_it
    seen.take(orders)
    assert not roster.rows and not seen.on_it
    assert roster.came("p-9", 1, "n", RowEvent.CAME, now) == [], "nobody joins a pool that has ended"


@given(st.lists(st.tuples(facts(), TIMES), max_size=60))
def test_no_more_begin_at_once_than_may(story: list[tuple[tuple[str, Any], float]]) -> None:
    roster, now = begun(4), 0.0
    starting: set[str] = set()
    for (method, arguments), later in story:
        now += later
        if method in ("started", "interrupted", "could_not_start"):
            starting.discard(arguments[0])
        for do, worker_id in getattr(roster, method)(*arguments, now):
            if do is Do.START:
                starting.add(worker_id)
            elif do in (Do.LEAVE, Do.FORGET):
                starting.discard(worker_id)
        per_node = Counter(roster.rows[name].node_id for name in starting)
        assert max(per_node.values(), default=0) <= LIMITS.batch


# ---- single rules ------------------------------------------------------------------------------------------


def test_a_worker_that_is_gone_for_good_is_replaced_under_a_new_number() -> None:
    roster = served(3)
    orders = roster.gone("p-1", 1, ERROR, 5.0)
    assert did(orders, Do.UNSERVE) == ["p-1"] and did(orders, Do.LOST) == ["p-1"]
    assert did(orders, Do.FORGET) == ["p-1"] and did(orders, Do.SPAWN) == ["p-3"]
    assert states(roster) == {RowState.READY: 2, RowState.WANTED: 1}


def test_a_worker_whose_actor_died_returns_and_is_watched_meanwhile() -> None:
    roster = served(2)
    orders = roster.died("p-0", 1, 5.0)
    assert did(orders, Do.UNSERVE) == ["p-0"] and not did(orders, Do.FORGET)
    assert roster.next_at() == 5.0 + rules.FIND_AGAIN_SECONDS
    assert did(roster.tick(6.0), Do.WATCH) == ["p-0"], "its restart may fail for good"
    assert did(roster.died("p-0", 1, 6.5), Do.LOST) == [], "said once"
    assert did(roster.came("p-0", 2, "n", RowEvent.CAME, 7.0), Do.START) == ["p-0"]
    assert did(roster.started("p-0", 2, 7.5), Do.SERVE) == ["p-0"]
    assert roster.died("p-0", 1, 8.0) == [], "the end of the process before it is old news"


def test_a_lost_worker_whose_restart_fails_for_good_is_replaced() -> None:
    roster = served(2)
    roster.died("p-0", 1, 5.0)
    assert did(roster.gone("p-0", 1, ERROR, 7.0), Do.SPAWN) == ["p-2"]


def test_a_late_answer_of_the_process_before_does_not_make_a_lost_worker_serve() -> None:
    roster = begun(1)
    roster.created("p-0", 0.0)
    roster.came("p-0", 1, "n", RowEvent.CAME, 0.0)
    roster.died("p-0", 1, 1.0)
    assert did(roster.started("p-0", 1, 1.1), Do.SERVE) == []
    roster.came("p-0", 2, "n", RowEvent.CAME, 2.0)
    assert did(roster.started("p-0", 1, 2.1), Do.SERVE) == []
    assert roster.rows["p-0"].state is RowState.STARTING


@pytest.mark.parametrize("failures", [1, 5, 9])
def test_starts_that_fail_are_tried_again_ever_more_slowly(failures: int) -> None:
    roster, now = begun(1), 0.0
    roster.created("p-0", now)
    orders = roster.came("p-0", 1, "n", RowEvent.CAME, now)
    pauses = []
    for _ in range(failures):
        assert did(orders, Do.START) == ["p-0"]
        roster.could_not_start("p-0", ERROR, now)
        assert roster.rows["p-0"].is_failed and roster.rows["p-0"].error is ERROR
        pauses.append(roster.next_at() - now)
        now = roster.next_at()
        orders = roster.tick(now)
    expected = [*rules.RETRY_SECONDS, *[rules.RETRY_SECONDS[-1]] * failures]
    assert pauses == pytest.approx(expected[:failures])


def test_shrinking_lets_the_youngest_go_and_first_those_that_do_not_serve() -> None:
    roster = served(4)
    roster.troubled("p-0", 1, 1.0)
    orders = roster.resize(2, 2.0)
    assert did(orders, Do.LEAVE) == ["p-3", "p-0"]
    assert states(roster) == {RowState.READY: 2, RowState.LEAVING: 2}
    grown = roster.resize(3, 3.0)
    assert did(grown, Do.SPAWN) == ["p-4"], "a leaver does not come back"
    assert did(roster.left("p-0", 4.0), Do.FORGET) == ["p-0"]


def test_who_has_not_reported_is_ended_and_not_asked() -> None:
    roster = begun(2, batch=5)
    roster.created("p-0", 0.0)
    roster.created("p-1", 0.0)
    roster.came("p-0", 1, "n", RowEvent.SERVES, 0.0)
    orders = roster.resize(1, 1.0)
    assert did(orders, Do.END) == ["p-1"] and not did(orders, Do.LEAVE)
    assert list(roster.rows) == ["p-0"]


def test_an_actor_that_was_created_in_vain_is_ended() -> None:
    roster = begun(1)
    roster.resize(0, 0.0)
    assert roster.created("p-0", 0.5) == [Order(Do.END, "p-0")]


def test_turns_are_given_batch_by_batch_and_a_late_one_gives_its_turn_away() -> None:
    roster = Roster(LIMITS, 5)
    assert did(roster.whole(0.0), Do.SPAWN) == ["p-0", "p-1"]
    assert did(roster.surveyed(2, 99, None, 0.0), Do.SPAWN) == ["p-2", "p-3"], "a batch for each node"
    for number in range(4):
        roster.created(f"p-{number}", 1.0)
    assert roster.next_at() == 61.0
    late = roster.tick(61.0)
    assert did(late, Do.GIVE_UP) == ["p-0", "p-1", "p-2", "p-3"] and did(late, Do.SPAWN) == ["p-4"]
    assert "CPU 1" in str(roster.rows["p-0"].error) and "within 60 s" in str(roster.rows["p-0"].error)
    roster.came("p-0", 1, "n", RowEvent.CAME, 62.0)
    assert not roster.rows["p-0"].is_overdue and roster.rows["p-0"].error is None, "it joins when it comes"


def test_who_can_have_no_room_is_judged_at_once_and_created_all_the_same() -> None:
    roster = Roster(LIMITS, 3)
    orders = roster.whole(0.0) + roster.surveyed(1, 1, ERROR, 0.0)
    assert did(orders, Do.GIVE_UP) == ["p-1", "p-2"]
    assert [row.is_judged for row in roster.rows.values()] == [False, True, True]
    assert did(roster.created("p-1", 1.0), Do.SPAWN) == ["p-2"], "its turn ends with its creation"


def test_a_node_starts_one_batch_and_pauses_after_each_start() -> None:
    roster = begun(4, batch=2)
    roster.surveyed(2, 99, None, 0.0)
    started = []
    for number in range(4):
        roster.created(f"p-{number}", 0.0)
        started += did(roster.came(f"p-{number}", 1, "n", RowEvent.CAME, 0.0), Do.START)
    assert started == ["p-0", "p-1"]
    assert did(roster.started("p-0", 1, 1.0), Do.START) == []
    assert roster.next_at() == 1.5
    assert did(roster.tick(1.5), Do.START) == ["p-2"]
    assert did(roster.could_not_start("p-1", ERROR, 1.6), Do.START) == ["p-3"], "a failure leaves no pause"


def test_a_router_that_was_restarted_adds_nobody_before_all_have_had_the_time() -> None:
    roster = Roster(LIMITS, 3)
    roster.adopt(3, 12)
    roster.found("p-7", 0.0)
    assert not did(roster.came("p-5", 4, "n", RowEvent.SERVES, 0.0), Do.SPAWN)
    assert not did(roster.gone("p-5", 4, ERROR, 0.0), Do.SPAWN)
    assert did(roster.whole(9.0), Do.SPAWN) == ["p-12", "p-13"], "no number is given twice"
    leaving = roster.came("p-2", 4, "n", RowEvent.LEAVE, 9.0)
    assert did(leaving, Do.LEAVE) == ["p-2"], "the router before this one was letting it go"


# ---- a world -----------------------------------------------------------------------------------------------


class World:
    """Performs orders after a while, as Ray and the workers would, and goes wrong until `calm_at`."""

    def __init__(self, seed: int, size: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.calm_at = 200.0
        self.roster = Roster(LIMITS, size)
        self.alive: dict[str, int] = {}  # the incarnation of each actor that is there
        self.lives: Counter[str] = Counter()
        self.watched: dict[str, int] = {}
        self.events: list[tuple[float, int, Any]] = []
        self.serving: set[str] = set()

    def later(self, least: float, most: float, act: Any) -> None:
        heappush(self.events, (self.now + self.random.uniform(least, most), len(self.events), act))

    def fails(self, share: float) -> bool:
        return self.now < self.calm_at and self.random.random() < share

    def do(self, orders: list[Order]) -> None:
        for do, worker_id in orders:
            getattr(self, f"_{do.value}", lambda _: None)(worker_id)

    def tell(self, method: str, *arguments: Any) -> None:
        self.do(getattr(self.roster, method)(*arguments, self.now))

    def run(self, until: float) -> None:
        while self.now < until:
            tick_at = self.roster.next_at()
            if self.events and self.events[0][0] <= min(tick_at, until):
                self.now, _, act = heappop(self.events)
                act()
            else:
                self.now = min(tick_at, until)
                self.tell("tick")

    def _survey(self, _: str) -> None:
        self.do(self.roster.surveyed(2, 99, None, self.now))

    def _spawn(self, worker_id: str) -> None:
        if self.fails(0.1):
            self.later(0.0, 1.0, lambda: self.tell("refused", worker_id, ERROR))
        else:
            self.later(0.0, 2.0, lambda: self._create(worker_id))

    def _create(self, worker_id: str) -> None:
        self.later(0.0, 70.0 if self.fails(0.1) else 3.0, lambda: self._arrive(worker_id))
        self.alive[worker_id] = 0
        self.tell("created", worker_id)

    def _arrive(self, worker_id: str) -> None:
        if worker_id not in self.alive:
            return
        self.lives[worker_id] += 1
        self.alive[worker_id] = self.lives[worker_id]
        number = int(worker_id[2:])
        self.tell("came", worker_id, self.lives[worker_id], f"n{number % 2}", RowEvent.CAME)
        if self.fails(0.5):
            self.later(0.0, 40.0, lambda: self._die(worker_id))

    def _die(self, worker_id: str) -> None:
        if worker_id not in self.alive:
            return
        incarnation, for_good = self.alive.pop(worker_id), self.fails(0.3)
        if not for_good:
            self.alive[worker_id] = 0
            self.later(0.0, 3.0, lambda: self._arrive(worker_id))
        method, more = ("gone", (ERROR,)) if for_good else ("died", ())
        self.later(0.0, 1.0, lambda: self.tell(method, worker_id, incarnation, *more))

    def _watch(self, worker_id: str) -> None:
        if worker_id not in self.alive:
            incarnation = self.roster.rows[worker_id].incarnation
            self.later(0.0, 0.5, lambda: self.tell("gone", worker_id, incarnation, ERROR))

    def _start(self, worker_id: str) -> None:
        incarnation = self.alive.get(worker_id, 0)

        def answer() -> None:
            if self.alive.get(worker_id) != incarnation or not incarnation:
                self.tell("interrupted", worker_id)
            elif self.fails(0.3):
                self.tell("could_not_start", worker_id, ERROR)
            else:
                self.tell("started", worker_id, incarnation)

        self.later(0.1, 4.0, answer)

    def _serve(self, worker_id: str) -> None:
        self.serving.add(worker_id)

    def _unserve(self, worker_id: str) -> None:
        self.serving.discard(worker_id)

    def _leave(self, worker_id: str) -> None:
        self.serving.discard(worker_id)

        def ended() -> None:
            self.alive.pop(worker_id, None)
            self.tell("left", worker_id)

        self.later(0.5, 30.0, ended)

    def _end(self, worker_id: str) -> None:
        self.alive.pop(worker_id, None)

    def _forget(self, worker_id: str) -> None:
        self.serving.discard(worker_id)


@pytest.mark.parametrize("seed", range(40))
def test_once_nothing_goes_wrong_any_more_all_wanted_workers_serve(seed: int) -> None:
    world = World(seed, size=6)
    world.do(world.roster.whole(0.0))
    for at in range(10, 200, 10):
        world.run(float(at))
        world.tell("resize", world.random.randint(1, 9))
    world.run(450.0)
    rows = world.roster.rows
    assert states(world.roster) == {RowState.READY: world.roster.size}
    assert world.serving == set(rows) == set(world.alive)
    assert all(row.incarnation == world.alive[name] for name, row in rows.items())
    assert all(row.state in ALIVE for row in rows.values())
