"""The whole store in a simulated cluster, over a real database: callers and workers that ask about a few
sessions, watchers, copies under leases, commits that come late or fail, messages that are late, lost or come
twice, and a store that dies before and after a commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakepit_ray.core.state.asked import (
    Changes,
    Creation,
    Fence,
    Found,
    Get,
    Join,
    Joining,
    Put,
    Question,
    Remove,
    StoreProgram,
    Update,
    Watch,
    Wrote,
)
from snakepit_ray.core.state.leases import LEASE_SECONDS, Lease
from snakepit_ray.core.state.orders import Load, Transaction
from snakepit_ray.core.state.store import StoreCore
from snakepit_ray.core.state.writes import Change, Delete
from snakepit_ray.errors import SessionQuotaExceeded
from snakepit_ray.store import values
from snakepit_ray.store.database import Database
from tests.store.harness import data, plain, register

SESSIONS = ("s", "t")
NAMES = ("x", "y")
HOLDERS = ("w-0", "w-1")
FULL = SessionQuotaExceeded("the disk is full", quota="disk")
POOL = Creation("p", 1e6, 10)
SHORT = Creation("p", 6.0, 10)


@dataclass(frozen=True)
class Seen:
    """What one party knows: a variable had this version and value at some moment between two."""

    generation: int
    name: str
    version: int
    value: int
    began: int
    ended: int


@dataclass
class Asked:
    """A question. `answers`: of all the times that it was sent, where it had an effect."""

    question: Question
    began: int
    answers: list[Any] = field(default_factory=list)


@dataclass
class Copy:
    """What a holder keeps of one session."""

    found: Found
    ends: float


@dataclass
class Watcher:
    """What it was told last, of which generation."""

    session: str
    cursor: int = 0
    generation: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    life: int = 0  # the store's, in which it was told


class World:
    """One store. Each method is something that happens."""

    def __init__(self) -> None:
        self.now, self.at, self.number, self.life, self._moment = 100.0, 1e9, 0, 0, 0
        self.database = Database(Path(":memory:"))
        self.seen: list[Seen] = []
        self.generations: list[Seen] = []  # a session's generation, as its version
        self.removed: dict[int, int] = {}  # when that was acknowledged
        self.deleted: set[tuple[int, str]] = set()
        self.maybe_deleted: set[str] = set()
        self.places: dict[int, tuple[int, str, int]] = {}  # where each value was seen
        self.fences: list[tuple[int, int, int]] = []  # generation, binding, when it was answered
        self.binding = dict.fromkeys(SESSIONS, 1)
        self.ops: dict[str, Asked] = {}
        self.copies: dict[tuple[str, str], Copy] = {}
        self.recalled: set[Lease] = set()
        self.messages: list[tuple[str, Callable[[], None]]] = []  # what it is, and what it does
        self.watchers = [Watcher(session) for session in SESSIONS]
        self.begin()

    def begin(self) -> None:
        self.commits: list[Transaction] = []
        self.loads: list[Load] = []
        self.failed: set[int] = set()
        self.waiting: dict[int, Callable[[Any], None]] = {}
        self.core = StoreCore(self.database.begin(self.now, self.at), values.accepted)
        self.core.reading.holders.update(HOLDERS)

    def moment(self) -> int:
        self._moment += 1
        return self._moment

    # ---- questions ----------------------------------------------------------------------------------------

    def put(
        self,
        session: str,
        name: str,
        kind: str,
        fence: int | None,
        creation: Creation | None,
        holder: str | None = None,
    ) -> None:
        """Writes a variable, or deletes it. A `holder` lets go of its own copy before, and says so."""
        self.number += 1
        changes: tuple[Change, ...] = (register(name, "integer", self.number),)
        if kind == "delete":
            changes = (Delete(name),)
            self.maybe_deleted.add(name)
        bound = None if fence is None else Fence("p", self.binding[session] - fence)
        copy = self.copies.pop((session, holder), None) if holder is not None else None
        lease = None if copy is None else copy.found.lease
        if lease is not None:
            self.recalled.add(lease)
        question = Put(session, f"op-{self.number}", changes, fence=bound, creation=creation, released=lease)
        self.change(question)

    def join(self, session: str, creation: Creation) -> None:
        self.number += 1
        self.change(Join(session, creation, f"op-{self.number}"))

    def remove(self, session: str) -> None:
        self.number += 1
        self.change(Remove(session, f"op-{self.number}"))

    def update(self, session: str) -> None:
        self.number += 1
        self.change(Update(session, f"op-{self.number}", metadata={"n": self.number}))

    def program(self, session: str) -> None:
        self.number += 1
        self.change(StoreProgram(session, "p", data(self.number), f"op-{self.number}"))

    def change(self, question: Any) -> None:
        self.ops[question.op] = asked = Asked(question, self.moment())
        self.ask(question, lambda answer: self.changed(asked, answer))

    def send_again(self, index: int) -> None:
        """Its asker has no answer, or an old copy of it is still on its way."""
        asked = list(self.ops.values())[-1 - index % min(len(self.ops), 10)] if self.ops else None
        if asked is not None:
            self.ask(asked.question, lambda answer: self.changed(asked, answer))

    def ask(self, question: Question | Watch, then: Callable[[Any], None], is_use: bool = True) -> None:
        self.waiting[self.core.ask(question, self.now, self.at, is_use)] = then
        self.perform()

    def changed(self, asked: Asked, answer: Any) -> None:
        question = asked.question
        if isinstance(answer, Exception) or (
            isinstance(answer, Wrote) and any(one.error for one in answer.outcome)
        ):
            return
        if answer is not False and not (isinstance(answer, Joining) and not answer.is_new):
            assert answer == (asked.answers or [answer])[0], "one change, two answers"
            asked.answers.append(answer)
        if isinstance(answer, Joining):
            self.of_generation(question.session, answer.info.generation, asked.began)  # type: ignore[union-attr]
        elif isinstance(question, Remove) and answer is True:
            self.moment()
        elif isinstance(question, Put):
            self.wrote(question, answer, asked)

    def wrote(self, question: Put, answer: Wrote, asked: Asked) -> None:
        ended = self.moment()
        self.of_generation(question.session, answer.generation, asked.began)
        self.fenced(question.fence, answer.generation, asked.began, ended)
        for change, written in zip(question.changes, answer.outcome, strict=True):
            if isinstance(change, Delete):
                self.deleted.add((answer.generation, change.name))
            else:
                value = int(plain(change.value))  # type: ignore[union-attr]
                self.note(answer.generation, change.name, written.version, value, asked.began, ended)

    # ---- reads --------------------------------------------------------------------------------------------

    def read(self, session: str, holder: str, fence: int | None) -> None:
        began, asked_at = self.moment(), self.now
        bound = None if fence is None else Fence("p", self.binding[session] - fence)

        def then(found: Any) -> None:
            if not isinstance(found, Found):
                return
            ended = self.moment()
            self.fenced(bound, found.generation, began, ended)
            self.found(session, found, began)
            if found.lease is not None:
                copy = Copy(found, asked_at + LEASE_SECONDS)
                self.messages.append(("copy", lambda: self.keep(session, holder, copy)))

        self.ask(Get(session, NAMES, bound, holder=holder), then)

    def keep(self, session: str, holder: str, copy: Copy) -> None:
        if copy.found.lease not in self.recalled:
            self.copies[session, holder] = copy

    def read_the_copy(self, session: str, holder: str) -> None:
        copy = self.copies.get((session, holder))
        if copy is not None and self.now < copy.ends:
            self.found(session, copy.found, self.moment())

    def found(self, session: str, found: Found, began: int) -> None:
        ended = self.moment()
        self.of_generation(session, found.generation, began)
        for name, one in found.values.items():
            self.note(found.generation, name, one.version, int(plain(one)), began, ended)
        for name in found.missing:
            self.was_missing(found.generation, name, began)

    def was_missing(self, generation: int, name: str, began: int) -> None:
        if name not in self.maybe_deleted:
            before = [one for one in self.seen if (one.generation, one.name) == (generation, name)]
            assert all(one.ended > began for one in before), "written, and not there"

    def note(self, generation: int, name: str, version: int, value: int, began: int, ended: int) -> None:
        self.seen.append(Seen(generation, name, version, value, began, ended))
        place = self.places.setdefault(value, (generation, name, version))
        assert place == (generation, name, version), "one write, twice"

    def of_generation(self, session: str, generation: int, began: int) -> None:
        self.generations.append(Seen(0, session, generation, 0, began, self.moment()))

    def fenced(self, fence: Fence | None, generation: int, began: int, ended: int) -> None:
        if fence is not None:
            for other, binding, at in self.fences:
                assert other != generation or at > began or binding <= fence.binding, "a fence was passed"
            self.fences.append((generation, fence.binding, ended))

    def move(self, session: str) -> None:
        """The session has another owner from now on, whose fence is higher."""
        self.binding[session] += 1

    # ---- watchers -----------------------------------------------------------------------------------------

    def watch(self, index: int) -> None:
        watcher = self.watchers[index]
        life, cursor = self.life, watcher.cursor

        def then(answer: Any) -> None:
            if isinstance(answer, Changes):
                if cursor == watcher.cursor:  # else it has asked twice, and this is the other answer
                    self.told(watcher, answer, life)
            elif life == self.life:
                watcher.cursor, watcher.generation = 0, 0
                watcher.versions.clear()

        question = Watch(watcher.session, ("*",), watcher.cursor, 0.0, watcher.generation)
        self.ask(question, then)

    def told(self, watcher: Watcher, answer: Changes, life: int) -> None:
        is_first = watcher.cursor == 0
        for name, newest, skipped in answer.changes:
            if newest is None:
                watcher.versions.pop(name, None)
                continue
            before = watcher.versions.get(name)
            assert before is None or newest.version > before, "a watcher is told of the past"
            exact = watcher.life == life and not is_first and before is not None
            if exact and name not in self.maybe_deleted:
                assert skipped == newest.version - (before or 0) - 1, "skipped, and not counted"
            watcher.versions[name] = newest.version
        watcher.cursor, watcher.generation, watcher.life = answer.cursor, answer.generation, life

    # ---- the store ----------------------------------------------------------------------------------------

    def perform(self) -> None:
        while not (orders := self.core.take()).are_done:
            self.commits += orders.transactions
            self.loads += orders.loads
            for lease in orders.recalls:
                self.messages.append(("recall", lambda lease=lease: self.let_go(lease)))  # type: ignore[misc]
            for answer in orders.answers:
                self.waiting.pop(answer.number)(answer.value)

    def let_go(self, lease: Lease) -> None:
        self.recalled.add(lease)
        for key, copy in list(self.copies.items()):
            if copy.found.lease == lease:
                del self.copies[key]
        self.messages.append(("released", lambda: self.released(lease)))

    def released(self, lease: Lease) -> None:
        self.core.released([lease], self.now, self.at)
        self.perform()

    def loaded(self) -> None:
        if self.loads:
            load = self.loads.pop(0)
            self.core.loaded(load, self.database.load(load), self.now, self.at)
            self.perform()

    def commit(self, count: int, is_full: bool = False) -> None:
        """A group; on a full disk nothing of it is written."""
        group = [self.commits.pop(0) for _ in range(min(count, len(self.commits)))]
        for one in group:
            if is_full or one.needs in self.failed:
                self.failed.add(one.number)
                self.core.failed(one.number, FULL, self.now, self.at)
            else:
                self.database.commit([one])
                self.core.durable([one.number], self.now, self.at)
        self.perform()

    def die(self, committed: int) -> None:
        """After so many commits of which nobody hears. What was asked is never answered."""
        for one in self.commits[:committed]:
            if one.needs in self.failed:
                break
            self.database.commit([one])
        self.life += 1
        self.begin()

    def time_passes(self, seconds: float, step: float = 0.0) -> None:
        self.now += seconds
        self.at += seconds + step
        self.core.tick(self.now, self.at)
        self.perform()

    def sweep(self) -> None:
        self.core.sweep(100, self.now, self.at)
        self.perform()
        self.database.sweep(100, self.at)

    def message(self, index: int, fate: str) -> None:
        """One "arrives", is "lost", or comes "twice": now, and later again."""
        if not self.messages:
            return
        index %= len(self.messages)
        _, deliver = self.messages[index]
        if fate != "twice":
            self.messages.pop(index)
        if fate != "lost":
            deliver()

    # ---- what must hold -----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Everything that is on its way comes to its end."""
        for _ in range(3):
            while self.commits or self.loads:
                self.loaded()
                self.commit(100)
            self.time_passes(LEASE_SECONDS + 0.1)
        assert not self.waiting, "a question without an answer"

    def finish(self) -> None:
        """Raises AssertionError where a watcher does not end with the newest, or something is lost."""
        self.settle()
        for index, watcher in enumerate(self.watchers):
            self.watch(index)
            self.settle()
            newest: dict[str, int] = {}
            answers: list[Any] = []
            self.ask(Get(watcher.session, NAMES), answers.append)
            self.settle()
            if isinstance(answers[0], Found):
                newest = {name: one.version for name, one in answers[0].values.items()}
                self.watch(index)  # one that was told of an end begins anew
                self.settle()
                assert watcher.versions == newest, "a watcher does not end with the newest"
                self.nothing_is_lost(answers[0])
        self.check()

    def nothing_is_lost(self, found: Found) -> None:
        for one in self.seen:
            if one.generation == found.generation and one.name not in self.maybe_deleted:
                assert one.name in found.values, "seen and lost"
                assert found.values[one.name].version >= one.version, "seen and lost"

    def check(self) -> None:
        """Raises AssertionError where what was seen is not linearizable."""
        _check_order(self.generations)
        for key in {(one.generation, one.name) for one in self.seen}:
            _check_order([one for one in self.seen if (one.generation, one.name) == key])


def _check_order(seen: list[Seen]) -> None:
    """Nothing that began after another ended has an older version, whatever its name is."""
    newest: dict[str, int] = {}
    moments = [(one.began, 1, one) for one in seen] + [(one.ended, 0, one) for one in seen]
    for _, is_begin, one in sorted(moments, key=lambda moment: moment[:2]):
        if is_begin:
            assert one.version >= newest.get(one.name, 0), "older than what somebody had seen before"
        else:
            newest[one.name] = max(newest.get(one.name, 0), one.version)
