"""Knows the words in which a host reads, when this process has died, what of its requests had begun.

Rules: a word is stored before the call that it counts begins, and never after; nothing is read here.
"""

from __future__ import annotations

import mmap


class Marks:
    """The words behind a descriptor, which stays open: who holds it may still begin something. None where
    there are none.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._words = None if descriptor is None else memoryview(mmap.mmap(descriptor, 0)).cast("Q")

    def of(self, request):
        """(words, place): `words[place]` says how many calls of a request have begun (a pair: a store costs
        less than a call). None where nobody wants to know.
        """
        words, place = self._words, request.mark - 1
        return (words, place) if words is not None and 0 <= place < len(words) else None
