"""The entry of one request in a worker's ledger, from `begin` to the request's end."""

from __future__ import annotations

from typing import Protocol

from snakepit_ray.ledger.layout import BEFORE, FACTS, LIVE, OUTCOME
from snakepit_ray.ledger.outcomes import Outcomes


class Book(Protocol):
    """What an entry asks of the ledger that it belongs to."""

    words: memoryview
    outcomes: Outcomes

    def leaves(self, entry: Entry) -> None:
        """The request is over and no interpreter has it: its place may be given to another one."""


class Entry:
    """The entry of one request that this worker serves; `word` is the number of the word in the file that the
    interpreter stores to. Made by `Ledger.begin`."""

    __slots__ = ("_inside", "_ledger", "_over", "lingers", "name", "word")

    def __init__(self, ledger: Book, name: bytes, word: int) -> None:
        self.word = word
        self._ledger = ledger
        self.name = name
        self.lingers = True
        self._inside = False  # an interpreter may store to the word
        self._over = False

    @property
    def begun(self) -> int:
        """Calls of the request that have begun in this attempt: for certain when its interpreter has
        ended."""
        return self._ledger.words[self.word]

    def left(self) -> None:
        """No interpreter has the request any more. Safe to repeat."""
        self._inside = False
        if self._over:
            self._ledger.leaves(self)

    def refused(self) -> None:
        """The place that the request was sent to did not begin it, and never will."""
        words = self._ledger.words
        words[self.word + FACTS] &= LIVE | BEFORE
        words[self.word] = 0

    def end(self, outcome: bytes | None) -> None:
        """The request has ended, and nobody has heard of it yet. `outcome`: what is answered when the request
        comes again; None where that is not kept. To be called once."""
        if outcome is not None:
            self._ledger.words[self.word + OUTCOME] = self._ledger.outcomes.store(self.name, outcome)
        self._over = True
        if not self._inside:
            self._ledger.leaves(self)

    def drop(self) -> None:
        """`end` of a request that never comes again."""
        self.lingers = False
        self.end(None)

    @property
    def is_over(self) -> bool:
        """Whether the request has ended."""
        return self._over
