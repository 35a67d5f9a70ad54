"""The clock, the events and the counts of the simulation.

Rules: events of one moment run in the order in which they were planned; every request is settled here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from tests.core.scenarios import Request, Scenario


class Misses:
    """How long free slots and movable waiters missed each other: min(free, waiting) pairs, FIFO."""

    def __init__(self) -> None:
        self.free = self.waiting = 0
        self.durations: list[float] = []
        self._open: deque[float] = deque()

    def change(self, free: int, waiting: int, now: float) -> None:
        self.free += free
        self.waiting += waiting
        pairs = min(self.free, self.waiting)
        while len(self._open) < pairs:
            self._open.append(now)
        while len(self._open) > pairs:
            self.durations.append(now - self._open.popleft())


class World:
    """The clock, the events and the counts."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.chance = random.Random(scenario.seed + 2)
        self.now = 0.0
        self.misses = Misses()
        self.messages: list[tuple[float, str]] = []
        self.refusals = 0
        self.open = scenario.requests  # without an outcome
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._numbers = count()

    def settle(self, request: Request, outcome: str) -> None:
        request.outcomes.append(outcome)
        self.open -= 1

    def after(self, delay: float, call: Callable[..., None], *args: object) -> None:
        heappush(self._events, (self.now + delay, next(self._numbers), call, args))

    def run(self, until: Callable[[], bool]) -> None:
        while self._events and not until():
            self.now, _, call, args = heappop(self._events)
            call(*args)
