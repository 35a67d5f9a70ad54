"""The policy as a whole: the real classes in a simulated pool, against the ideal central FIFO.

A subset of benchmarks/routing_sim.py that runs in seconds; seeds are fixed.
"""

from __future__ import annotations

from collections import Counter

import pytest

from snakepit_ray.core.routing.matching import LOST
from snakepit_ray.core.routing.reporting import AGAIN
from tests.core.scenarios import NEVER, Result, Scenario, ideal_waits
from tests.core.scenarios import Request as SimRequest
from tests.core.simulation import simulate

IDLE = 0.020  # seconds that a free slot may idle while a movable request waits elsewhere
SECOND_LIMIT = 1000


def cell(*args: object, **options: object) -> Result:
    return simulate(Scenario(*args, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("service", ["exponential", "heavy"])
@pytest.mark.parametrize("load", [0.5, 0.8, 0.95])
def test_four_workers_keep_to_the_bound(service: str, load: float) -> None:
    result = cell(4, callers=8, service=service, load=load, requests=2500)
    assert result.mean <= result.bound
    assert result.idle_p99 <= IDLE
    assert result.peak < SECOND_LIMIT


@pytest.mark.parametrize("callers", [1, 64])
def test_sixteen_workers_at_half_load_keep_to_the_bound(callers: int) -> None:
    result = cell(16, callers=callers, service="heavy", load=0.5, requests=2500)
    assert result.mean <= result.bound
    assert result.idle_p99 <= IDLE


@pytest.mark.parametrize("service", ["exponential", "heavy"])
def test_sixteen_workers_at_high_load_do_not_idle_though_the_mean_exceeds_the_bound(service: str) -> None:
    result = cell(16, callers=8, service=service, load=0.8, requests=3000)
    assert result.idle_p99 <= IDLE
    assert result.mean <= 1.3 * result.bound, "each delegation costs a slot 8.5 ms: see the table"


def test_slots_of_eight_keep_to_the_bound() -> None:
    assert (result := cell(4, 8, 8, "heavy", 0.8, requests=3000)).mean <= result.bound
    assert (result := cell(16, 8, 8, "exponential", 0.8, requests=3000)).mean <= result.bound


def test_a_large_pool_coalesces_its_messages() -> None:
    result = cell(256, callers=16, load=0.8, requests=4000)
    assert result.capped
    assert result.messages < SECOND_LIMIT
    assert result.mean < 0.4, "one random queue for each worker would wait 0.4 s"


def test_a_pool_of_short_calls_is_nearly_silent() -> None:
    """1,500 calls a second of 1 ms on 4 workers."""
    result = cell(4, callers=1, service="add", load=0.375, requests=8_000)
    assert result.messages < 10
    assert result.mean < 0.002


@pytest.mark.parametrize("load", [0.8, 0.95])
def test_commands_of_under_a_millisecond_keep_to_the_bound_where_they_were_sent(load: float) -> None:
    result = cell(4, callers=8, service="tiny", load=load, requests=10_000)
    assert result.delegated < 0.005
    assert result.mean <= result.bound
    assert result.idle_p99 <= IDLE


def test_an_idle_pool_is_silent() -> None:
    result = cell(16, callers=1, service="exponential", load=0.01, requests=300)
    assert result.messages - result.kinds["poll"] < 5


def test_workers_join_and_leave_and_nothing_is_lost() -> None:
    result = cell(8, callers=4, load=0.7, requests=3000, churn=True)
    assert result.mean <= result.bound
    assert result.idle_p99 <= IDLE
    assert Counter(o for r in result.requests for o in r.outcomes) == {"done": 3000}
    assert sum(r.hops for r in result.requests) > 0


@pytest.mark.parametrize("seed", range(3))
def test_every_request_gets_exactly_one_outcome_and_at_most_one_hop(seed: int) -> None:
    result = cell(
        4, 2, 3, "heavy", 1.2, requests=1500, churn=True, pinned=0.3, limit=20, queue_timeout=1.0,
        cancelled=0.2, seed=seed,
    )  # fmt: skip
    assert all(len(r.outcomes) == 1 and r.hops <= 1 for r in result.requests)
    assert {r.outcomes[0] for r in result.requests} == {"done", "expired", "rejected", "cancelled"}
    assert not any(r.pinned and r.hops for r in result.requests)
    late = [r for r in result.requests if r.started_at is not None and r.started_at - r.arrived_at > 1.01]
    assert not late, "nobody starts after its queue timeout, but for a delegate under way"


@pytest.mark.parametrize("seed", range(20))
def test_a_request_that_is_cancelled_on_its_way_leaves_no_slot_idle_for_ever(seed: int) -> None:
    """Its target believes that the router knows of the slot, the router that the slot is taken."""
    result = cell(2, callers=2, service="long", load=100, requests=30, lost=0.5, seed=seed)
    assert all(len(r.outcomes) == 1 for r in result.requests)
    assert result.idle_p99 < 5 * (LOST + AGAIN), "so long for each that is lost in succession; it was 30 s"


def test_the_ideal_is_a_central_fifo() -> None:
    requests = [SimRequest(f"r{i}", 0.0, 1.0, 0) for i in range(4)]
    assert ideal_waits(Scenario(2), requests) == [0.0, 0.0, 1.0, 1.0]
    assert NEVER > 1e300
