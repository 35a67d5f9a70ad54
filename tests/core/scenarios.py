"""What is simulated, what comes out of it, and the ideal: one central FIFO in front of all slots.

Rules: one seed gives one run; both pools get the same arrivals, services, joins and leaves (common random
numbers). Every time is in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace

from snakepit_ray.core.routing.reporting import BUDGET

ROUTER_LATENCY = 0.003
DELEGATION = 0.0025
POLL = 1.0
NEVER = float("inf")
WARM_UP = 0.1  # of the requests, not measured

SERVICES: dict[str, Callable[[random.Random], float]] = {
    "exponential": lambda rng: rng.expovariate(10.0),
    "heavy": lambda rng: 0.005 if rng.random() < 0.9 else 1.0,
    "add": lambda rng: 0.001,
    "tiny": lambda rng: 0.0005,
    "long": lambda rng: 0.005 if rng.random() < 0.5 else 30.0,
}
MEANS = {"exponential": 0.1, "heavy": 0.1045, "add": 0.001, "tiny": 0.0005, "long": 15.0025}


@dataclass(frozen=True)
class Scenario:
    """One cell of the table."""

    workers: int
    capacity: int = 1
    callers: int = 4
    service: str = "exponential"
    load: float = 0.8
    requests: int = 20_000
    churn: bool = False  # a quarter joins after a third of the time, a quarter leaves after two thirds
    pinned: float = 0.0  # share of the requests that never move
    limit: int | None = None  # waiting requests per worker
    queue_timeout: float = NEVER
    cancelled: float = 0.0  # share of the requests that are cancelled 10 ms after they were sent
    lost: float = 0.0  # share of the delegations whose requests are cancelled on their way: none arrives
    budget: float = BUDGET  # messages a second
    seed: int = 1

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.load * self.workers * self.capacity / MEANS[self.service]


@dataclass
class Request:
    name: str
    arrived_at: float
    service: float
    caller: int
    pinned: bool = False
    hops: int = 0
    started_at: float | None = None
    outcomes: list[str] = field(default_factory=list)


@dataclass
class Result:
    scenario: Scenario
    ideal: float  # mean wait, seconds
    mean: float
    p99: float
    messages: float  # a second, at the router
    peak: float  # the highest of the seconds
    kinds: dict[str, float]  # messages a second by kind
    refusals: float  # a second
    delegated: float  # share of the requests
    capped: bool  # the router spaced the reports to keep to its budget
    idle_p99: float  # how long a free slot and a movable waiter missed each other
    requests: list[Request]

    @property
    def bound(self) -> float:
        """What the issue asks for: 1.3 x ideal + four matching latencies."""
        return 1.3 * self.ideal + 4 * ROUTER_LATENCY


def arrivals(scenario: Scenario) -> list[Request]:
    """Poisson arrivals, spread over the callers at random."""
    rng = random.Random(scenario.seed)
    now = 0.0
    requests = []
    for i in range(scenario.requests):
        now += rng.expovariate(scenario.rate)
        service = SERVICES[scenario.service](rng)
        pinned = rng.random() < scenario.pinned
        requests.append(Request(f"r{i}", now, service, rng.randrange(scenario.callers), pinned))
    return requests


def churn_times(scenario: Scenario) -> tuple[float, float]:
    """When workers join and when they leave; never without churn."""
    if not scenario.churn:
        return NEVER, NEVER
    length = scenario.requests / scenario.rate
    return length / 3, 2 * length / 3


def ideal_waits(scenario: Scenario, requests: list[Request]) -> list[float]:
    """The waits of one central FIFO in front of all slots: the lower bound that no pool of queues beats."""
    joins_at, leaves_at = churn_times(scenario)
    changing = scenario.workers // 4 * scenario.capacity
    slots = [0.0] * (scenario.workers * scenario.capacity)
    waits = []
    for request in requests:
        if request.arrived_at >= joins_at:
            slots += [joins_at] * changing
            heapify(slots)
            joins_at = NEVER
        if request.arrived_at >= leaves_at:
            for _ in range(changing):
                heappop(slots)
            leaves_at = NEVER
        start = max(request.arrived_at, slots[0])
        heapreplace(slots, start + request.service)
        waits.append(start - request.arrived_at)
    return waits


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed; 0 without values."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0
