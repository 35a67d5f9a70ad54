"""Calls that are waited for without a thread of their own: each ends when its deadline passes, or when the
Ray session that it was made in is over.

One thread of this process watches all of them. It runs nothing of the user's: `expire` only hands the outcome
on.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger("snakepit_ray")
LOOK_SECONDS = 0.25  # between two looks at the Ray session, while something is pending


class Origin(Protocol):
    """The pool, as this process knows it, that a call was made to."""

    def is_current(self) -> bool:
        """Whether the Ray session that it was made in goes on."""


class Ticket:
    """One pending call. `expire(is_over)` is called once, in the watching thread: `is_over` where the Ray
    session has ended, else its deadline has passed."""

    __slots__ = ("_expire", "deadline", "origin")

    def __init__(self, origin: Origin, deadline: float, expire: Callable[[bool], None]) -> None:
        self.origin = origin
        self.deadline = deadline
        self._expire: Callable[[bool], None] | None = expire

    @property
    def is_pending(self) -> bool:
        return self._expire is not None

    def disarm(self) -> None:
        """It has its outcome. Safe to repeat."""
        self._expire = None

    def expire(self, is_over: bool) -> None:
        expire, self._expire = self._expire, None
        if expire is not None:
            expire(is_over)


class Pending:
    """The pending calls of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Ticket]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def arm(self, origin: Origin, deadline: float, expire: Callable[[bool], None]) -> Ticket:
        """Watches a call until `deadline` (time.monotonic()) or until its ticket is disarmed."""
        ticket = Ticket(origin, deadline, expire)
        with self._changed:
            is_first = not self._heap or deadline < self._heap[0][0]
            heapq.heappush(self._heap, (deadline, next(self._numbers), ticket))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="snakepit-pending", daemon=True)
                self._thread.start()
            elif is_first:
                self._changed.notify()
        return ticket

    def __len__(self) -> int:
        return sum(ticket.is_pending for _, _, ticket in list(self._heap))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap:
                    self._changed.wait()
                now = self._clock()
                if self._heap[0][0] > now:
                    self._changed.wait(min(LOOK_SECONDS, self._heap[0][0] - now))
                late, over = self._taken(self._clock())
            for ticket in late:
                _expire(ticket, False)
            for ticket in over:
                _expire(ticket, True)

    def _taken(self, now: float) -> tuple[list[Ticket], list[Ticket]]:
        """Takes out what is late, and what belongs to a Ray session that is over."""
        late, over = [], []
        while self._heap and (self._heap[0][0] <= now or not self._heap[0][2].is_pending):
            late.append(heapq.heappop(self._heap)[2])
        current: dict[int, bool] = {}
        keep = []
        for row in self._heap:
            ticket = row[2]
            if not ticket.is_pending:
                continue
            key = id(ticket.origin)
            if key not in current:
                current[key] = ticket.origin.is_current()
            if current[key]:
                keep.append(row)
            else:
                over.append(ticket)
        if len(keep) < len(self._heap):
            heapq.heapify(keep)
            self._heap = keep
        return late, over


def _expire(ticket: Ticket, is_over: bool) -> None:
    """What goes wrong with one ends the watch of no other."""
    try:
        ticket.expire(is_over)
    except Exception:
        log.exception("a call that had expired was not ended")


_pending = Pending()


def arm(origin: Origin, deadline: float, expire: Callable[[bool], None]) -> Ticket:
    """Watches a call of this process. See Pending.arm."""
    return _pending.arm(origin, deadline, expire)


def _begin_anew() -> None:
    global _pending
    _pending = Pending()


os.register_at_fork(after_in_child=_begin_anew)
