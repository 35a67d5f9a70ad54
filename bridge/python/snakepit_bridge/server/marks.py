"""The words in which a host reads, when this process has died, what of its requests had begun; and those in
which the host says how long copies of sessions' variables are the newest (adapter/copies.py).

Rules: a mark is stored before the call that it counts begins, and never after; it is not read here.
"""

from __future__ import annotations

import mmap


class Marks:
    """The words behind a descriptor, which stays open: who holds it may still begin something. None where
    there are none.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._words = None if descriptor is None else _mapped(descriptor)

    @property
    def words(self):
        """The words that there are now; None where there are none. Their first ones stay where they are."""
        return self._words

    def of(self, request):
        """(words, place): `words[place]` says how many calls of a request have begun (a pair: a store costs
        less than a call). None where nobody wants to know.
        """
        words, place = self._words, request.mark - 1
        if words is None or place < 0:
            return None
        if place >= len(words):  # the host has made the file longer; runs that have the old words keep them
            words = self._words = _mapped(self._descriptor)
        return (words, place) if place < len(words) else None


def _mapped(descriptor: int):
    content = memoryview(mmap.mmap(descriptor, 0))
    return content[: len(content) // 8 * 8].cast("Q")
