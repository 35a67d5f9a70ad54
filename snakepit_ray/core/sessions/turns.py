"""A session's requests begin in the order in which their caller made them.

Ray starts the calls of an async actor in any order, and two calls may travel different ways. So a caller
numbers its requests of each session (Turns), and a worker lets them in by number (Turnstile).

- A request passes when the one before it has passed, or has ended as far as its caller knows.
- What a worker has never heard of may have run elsewhere, or have been cancelled on its way. A request
  waits for it only so long: the worker's shell bounds the wait, and lets it pass then.
- Both sides forget the sessions that were used longest ago. A number that is not above the last one passes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

MOST_SESSIONS = 10_000


class Turns:
    """One caller's side."""

    def __init__(self, most: int = MOST_SESSIONS) -> None:
        self._sessions: OrderedDict[str, _Given] = OrderedDict()
        self._most = most

    def take(self, session: str) -> tuple[int, int]:
        """The number of the next request of `session`, and the number up to which all have ended."""
        given = self._sessions.get(session)
        if given is None:
            given = self._sessions[session] = _Given()
            if len(self._sessions) > self._most:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(session)
        given.last += 1
        return given.last, given.done

    def done(self, session: str, number: int) -> None:
        """That request has ended."""
        given = self._sessions.get(session)
        if given is not None:
            given.ended(number)


class _Given:
    """The numbers of one session."""

    __slots__ = ("beyond", "done", "last")

    def __init__(self) -> None:
        self.last = self.done = 0
        self.beyond: set[int] = set()  # ended, while one before them has not

    def ended(self, number: int) -> None:
        self.beyond.add(number)
        while self.done + 1 in self.beyond:
            self.done += 1
            self.beyond.discard(self.done)


class Turnstile:
    """A worker's side. A key is a caller and a session."""

    def __init__(self, most: int = MOST_SESSIONS) -> None:
        self._passed: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._waiting: dict[tuple[str, str], dict[int, Callable[[], None]]] = {}
        self._most = most

    def __len__(self) -> int:
        return len(self._passed)

    @property
    def waiting(self) -> int:
        """Requests that wait for one before them."""
        return sum(map(len, self._waiting.values()))

    def may_pass(self, key: tuple[str, str], number: int, done: int) -> bool:
        """Whether the request may begin, as all before it have passed or ended."""
        return number <= max(self._passed.get(key, 0), done) + 1

    def wait(self, key: tuple[str, str], number: int, go: Callable[[], None]) -> None:
        """`go` is called when the one before it has passed."""
        self._waiting.setdefault(key, {})[number] = go

    def leave(self, key: tuple[str, str], number: int) -> None:
        """It waits no more. Safe to repeat."""
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.pop(number, None) is not None and not waiting:
            del self._waiting[key]

    def passed(self, key: tuple[str, str], number: int) -> None:
        """It has begun, or waits where those after it come after it, or never will: the next may pass."""
        self.leave(key, number)
        self._passed[key] = max(self._passed.get(key, 0), number)
        self._passed.move_to_end(key)
        while len(self._passed) > self._most:
            self._passed.popitem(last=False)
        waiting = self._waiting.get(key, {})
        for number in sorted(waiting):
            go = waiting.get(number)  # `go` may let others pass in turn
            if go is not None and number <= self._passed[key] + 1:
                go()
