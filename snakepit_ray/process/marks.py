"""Knows how far a worker's interpreters have come with what was handed to them: one word for each request, in
a file that they store to themselves.

Rules: a word says how many calls of a request have begun, and is stored just before each of them begins; it
is read when nobody can store to it any more (its interpreter has ended; of an earlier process of the worker,
everybody who held the file); what cannot be known counts as begun, all of it; nobody gets a word whose owner
is still in an interpreter.

What a host cannot see is whether a request that it has sent has begun when the interpreter dies: without such
a word, whatever was on its way must be taken for begun."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from snakepit_ray.process import state_files
from snakepit_ray.process.state_files import Base, Opened

SUFFIX = ".marks"
SPARE = 1024  # words of requests that have no slot of their own in the journal
WORD_BYTES = 8
ALL = 2**63  # begun, and nobody can tell how much of it


class Mark(NamedTuple):
    """The word of one request that is about to be handed to an interpreter; nobody else has it until
    `give_back`."""

    marks: Marks
    word: int

    @property
    def begun(self) -> int:
        """Calls of the request that have begun: for certain when its interpreter has ended."""
        return self.marks.begun(self.word)

    def give_back(self) -> None:
        """The request is in no interpreter any more. Safe to repeat."""
        self.marks.give_back(self.word)


class Marks(state_files.MappedFile):
    """The words of one worker: `slots` that belong to the journal's slots, and SPARE others. Make it with
    `Marks.open`."""

    def __init__(self, path: Path, opened: Opened, slots: int) -> None:
        super().__init__(path, opened)
        self.words = slots + SPARE
        self._slots = slots
        self._spare = 0
        self._in_use: set[int] = set()
        self._settled = not self.found

    @classmethod
    def open(cls, worker_id: str, slots: int, base: Base = None) -> Marks:
        """The marks of `worker_id`: those that are there, else new ones.

        Raises ConfigError when the node directory is not ours alone, OSError when no file can be made."""
        path = state_files.path_of(worker_id, SUFFIX, base)
        # Of what was handed over while other words were there that are lost, nobody knows.
        fresh = ALL.to_bytes(WORD_BYTES, sys.byteorder) * slots + bytes(SPARE * WORD_BYTES)
        return cls(path, state_files.open_map(path, fresh, lambda content: True), slots)

    @property
    def settled(self) -> bool:
        """Whether what earlier processes left stays as it is: they have ended, and all that they started."""
        if not self._settled:
            self._settled = self.is_ours_alone()
        return self._settled

    def set(self, word: int, begun: int) -> None:
        """What the word says until an interpreter stores to it."""
        self._words[word] = begun

    def is_free(self, word: int) -> bool:
        """Whether no request that is in an interpreter has the word."""
        return word not in self._in_use

    def take(self, word: int) -> Mark:
        """A request that is about to be handed to an interpreter has the word, with 0 in it."""
        self._in_use.add(word)
        self._words[word] = 0
        return Mark(self, word)

    def take_spare(self) -> Mark | None:
        """`take` of a word for a request that the journal does not list; None when all are taken."""
        for _ in range(SPARE):
            self._spare = (self._spare + 1) % SPARE
            word = self._slots + self._spare
            if self.is_free(word):
                return self.take(word)
        return None

    def give_back(self, word: int) -> None:
        """Nobody has the word any more. Safe to repeat."""
        self._in_use.discard(word)

    def begun(self, word: int) -> int:
        """Calls that have begun, of the request that has this word."""
        return self._words[word]
