"""What this interpreter keeps of sessions' variables, to read them again without its host.

- An answer of the host says until when its value may be read again: as long as a word of the memory that both
  map is what it was, and some seconds since the question. Both are looked at with each read.
- What a read gives is its reader's own: a list that one command changes is as it was for the next.
- Values in shared memory and large ones are not kept. The host keeps those.
"""

from __future__ import annotations

import marshal

LARGEST = 64 * 1024  # bytes of one value
MOST = 16 * 1024 * 1024  # of all; more, and everything is forgotten
MOST_SESSIONS = 10_000
_PLAIN = (int, float, str, bool, type(None), bytes)


class Kept:
    """A value of a variable, until when, and of which life of its session. `thaw(value)` gives a reader its
    own; None where a value cannot be changed.
    """

    __slots__ = ("asked", "ends", "generation", "stamp", "thaw", "value", "version", "word")

    def __init__(self, value, thaw, version: int, generation: int, lease: dict, asked: float) -> None:
        self.value = value
        self.thaw = thaw
        self.version = version
        self.generation = generation
        self.word = lease["word"]
        self.stamp = lease["stamp"]
        self.asked = asked
        self.ends = asked + lease["seconds"]


class Copies:
    """The copies of one interpreter. `words` are those of the memory that it shares with its host; None where
    there are none, and nothing is kept. `small`: bytes of the largest value that travels in a message.
    """

    def __init__(self, words, small: int) -> None:
        self.words = words
        self._small = small
        self._sessions: dict[str, dict] = {}
        self._bytes = 0

    def of(self, session: str) -> dict:
        """What is kept of a session: Kept by name."""
        if len(self._sessions) >= MOST_SESSIONS:
            self.forget()
        return self._sessions.setdefault(session, {})

    def keep(self, kept: dict, name: str, value, answer: dict, asked: float) -> None:
        """Keeps in `kept` what the host has answered to a question of the time `asked`, where it may be."""
        lease = answer.get("lease")
        if lease is None or self.words is None or lease["word"] >= len(self.words):
            return
        size, frozen, thaw = self._frozen(value)
        if size > LARGEST:
            return
        if self._bytes + size > MOST:
            self.forget()
        self._bytes += size
        kept[name] = Kept(frozen, thaw, answer["version"], answer["generation"], lease, asked)

    def forget(self) -> None:
        """Keeps nothing of what there is. Those who look at it already see it empty."""
        sessions, self._sessions, self._bytes = self._sessions, {}, 0
        for kept in sessions.values():
            kept.clear()

    def _frozen(self, value):
        """(Bytes, what is kept, how a reader gets its own); too many bytes for what is not kept."""
        if type(value) in _PLAIN:
            return (len(value) if type(value) in (str, bytes) else 32) + 200, value, None
        if type(value).__module__ == "numpy":  # it is read-only
            return (value.nbytes if value.nbytes <= self._small else LARGEST) + 200, value, None
        if not _is_plain(value):  # marshal would take an array inside of it for its bytes
            return LARGEST + 1, None, None
        data = marshal.dumps(value)
        return len(data) + 200, data, marshal.loads


def _is_plain(value) -> bool:
    """Whether it is made of lists, dicts and values that cannot be changed."""
    kind = type(value)
    if kind is list:
        return all(map(_is_plain, value))
    return all(map(_is_plain, value.values())) if kind is dict else kind in _PLAIN
