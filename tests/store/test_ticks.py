"""The rules of the store and time: what is due is done, also where a question comes before the clock's
word."""

from __future__ import annotations

from typing import Any

from snakepit_ray.core.state.asked import Found, Get, Put, Wrote
from snakepit_ray.core.state.desk import Beginning
from snakepit_ray.core.state.leases import LEASE_SECONDS
from snakepit_ray.core.state.store import StoreCore
from snakepit_ray.store import values
from tests.store.harness import POOL, assign, register


def answers(core: StoreCore, now: float) -> dict[int, Any]:
    """What is answered, where everything that is ordered is durable at once."""
    found: dict[int, Any] = {}
    while (orders := core.take()).answers or orders.transactions:
        found.update({answer.number: answer.value for answer in orders.answers})
        core.durable([one.number for one in orders.transactions], now, 0.0)
    return found


def test_a_question_that_comes_when_a_lease_has_ended_does_not_hold_up_the_write_that_waits_for_it() -> None:
    """The clock is set anew with each question. Had the question been looked at first, there would be nothing
    to wait for, and nothing to look at again."""
    core = StoreCore(Beginning(1, 1), values.accepted)
    core.reading.holders.add("w")
    core.ask(Put("s", "op-1", (register("x", "integer", 1),), creation=POOL), 0.0, 0.0)
    answers(core, 0.0)
    core.ask(Get("s", ("x",), holder="w"), 0.0, 0.0)
    assert next(iter(answers(core, 0.0).values())).lease is not None
    write = core.ask(Put("s", "op-2", (assign("x", 2),)), 1.0, 0.0)
    assert answers(core, 1.0) == {}
    assert core.next_tick() == LEASE_SECONDS
    read = core.ask(Get("s", ("x",)), 2.5, 0.0)
    found = answers(core, 2.5)
    assert isinstance(found[write], Wrote) and isinstance(found[read], Found)
    assert found[read].values["x"].version == 2
