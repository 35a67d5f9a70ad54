"""The simulated cluster of state_world.py, in which each holder is a worker with real Copies and an
interpreter that reads by itself: what it was told comes late, and it reads on when its worker stands still
or has died."""

from __future__ import annotations

from dataclasses import dataclass, field

from snakepit_ray.core.state.asked import Data, Found, Versioned
from snakepit_ray.core.state.copies import Copies, Terms
from snakepit_ray.core.state.leases import Lease
from snakepit_ray.core.state.writes import Set, Write
from tests.core.state_world import HOLDERS, NAMES, World

WORDS = 2


@dataclass
class Worker:
    """A worker with its copies and the memory that it shares with its interpreter, which keeps `read`: values
    with their terms, the end of which is by the interpreter's own reckoning, and the memory."""

    name: str
    lives: int = 0
    read: dict[str, tuple[int, int, Terms, list[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A process of the worker begins, on another node: what is stored there nobody reads here."""
        self.lives += 1
        self.words = [0] * WORDS
        self.copies = Copies(self.words, self.holder())

    def holder(self) -> str:
        return f"{self.name}#{self.lives}"


class CopiesWorld(World):
    """One session, one store, three workers with an interpreter each."""

    written = ("x",)  # interpreters write it, too

    def __init__(self) -> None:
        self.workers = {name: Worker(name) for name in HOLDERS}
        super().__init__()

    def ask(self, name: str) -> None:
        """An interpreter reads what it has no copy of."""
        if self.holders[name].stands_still:
            return
        worker, began, at = self.workers[name], self.moment(), self.now
        known = worker.copies.read("s", NAMES, 0, self.now)
        if known is not None:
            self._tell(name, known.found, known.terms, at, began)
            return
        copies, terms = worker.copies, worker.copies.asks("s", self.now)
        self.messages.append(("store", lambda: self._asks(name, copies, terms, at, began)))

    def _asks(self, name: str, copies: Copies, terms: Terms, at: float, began: int) -> None:
        if not self.is_readable():
            return
        values = {
            one: Versioned(version, Data(b"%d" % value), 0.0)
            for one, (version, value) in self.visible().items()
        }
        found = Found(1, values, lease=self.store.lease(copies.holder, self.now))
        self.messages.append((name, lambda: self._answers(name, copies, found, terms, at, began)))

    def _answers(self, name: str, copies: Copies, found: Found, terms: Terms, at: float, began: int) -> None:
        if copies is self.workers[name].copies:  # else it has died
            kept = copies.keep("s", found, terms)
            self._tell(name, found, terms if kept else None, at, began)

    def _tell(self, name: str, found: Found, terms: Terms | None, at: float, began: int) -> None:
        """The answer reaches the interpreter, at some time. It was asked at `at`, and hears how much
        longer."""
        ends = None if terms is None else at + (terms.ends - at)
        words = self.workers[name].words
        self.messages.append(("an interpreter", lambda: self._heard(name, found, terms, ends, began, words)))

    def _heard(
        self, name: str, found: Found, terms: Terms | None, ends: float | None, began: int, words: list[int]
    ) -> None:
        values = {one: (value.version, int(value.value.json)) for one, value in found.values.items()}
        self.note(values, began)
        if terms is not None and ends is not None:
            for one, (version, value) in values.items():
                self.workers[name].read[one] = (version, value, terms._replace(ends=ends), words)

    def read_the_copy(self, name: str) -> None:
        """Also where the worker stands still, or has died."""
        worker = self.workers[name]
        for one, (version, value, terms, words) in worker.read.items():
            if self.is_good(words, terms):
                self.note({one: (version, value)}, self.moment())

    def is_good(self, words: list[int], terms: Terms) -> bool:
        return words[terms.word] == terms.stamp and self.now < terms.ends

    def let_go(self, lease: Lease) -> None:
        for released in self.workers[lease.holder.partition("#")[0]].copies.let_go([lease]):
            self.messages.append(("store", lambda lease=released: self._released(lease)))  # type: ignore[misc]

    def writes(self, name: str) -> None:
        """An interpreter writes."""
        if self.holders[name].stands_still:
            return
        self.number += 1
        own = self.workers[name].copies.gives_up("s")
        write = Write(f"op-{self.number}", (Set("x", self.number),))
        self.asked[write.op] = self.newly(write)
        self.messages.append(("store", lambda: self._writes(own, write)))

    def _writes(self, own: Lease | None, write: Write) -> None:
        if own is not None:
            self.store.leases.release(own)
        self.arrives(write)

    def dies(self, name: str) -> None:
        """The worker's process is killed and begins again. Its interpreter reads on for a while."""
        self.workers[name].begin()

    def message(self, index: int, fate: str) -> None:
        to, deliver = self.messages[index]
        self.messages[index] = (to.partition("#")[0], deliver)
        super().message(index, fate)
