"""What handles are told, and when: without Ray, on an event loop whose handles wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from snakepit_ray.config import PoolConfig
from snakepit_ray.core.pool.row import Row, RowState
from snakepit_ray.port.messages import Update, WorkerCounts
from snakepit_ray.process.awaiting import within
from snakepit_ray.router.members import Members
from snakepit_ray.router.reconciler import make_roster
from snakepit_ray.router.updates import LOAD_PERIOD, SILENT_SECONDS, Updates
from tests import virtual_time
from tests.virtual_time import VirtualLoop

LONG = 60.0  # of a question; an answer that comes before that was not waited for in vain
BOUND = 20.0


def pool(
    state: RowState = RowState.READY, clock: Callable[[], float] = time.monotonic
) -> tuple[Members, Updates]:
    members = Members(1, make_roster(PoolConfig(name="w", size=2), 1))
    for number in range(2):
        members.add(Row(f"w-{number}", number, state))
    updates = Updates(members, clock)
    updates.known.set()
    return members, updates


async def answered(question: Awaitable[Update]) -> Update:
    return await within(BOUND, question)


def ask(updates: Updates, update: Update) -> Any:
    """The handle's next question, once it waits."""
    versions = update.version, update.load_version, update.binding_version
    return asyncio.ensure_future(updates.next("handle", *versions, LONG))


def test_a_new_handle_hears_at_once_how_many_workers_serve() -> None:
    async def story() -> None:
        members, updates = pool()
        members.by_id["w-1"].row.state = RowState.QUARANTINED
        updates.table_changed()
        update = await answered(updates.next("handle", members.version, members.load_version, 0, LONG))
        assert (update.entries, update.counts) == (None, WorkerCounts(2, quarantined=1))

    asyncio.run(story())


def test_a_worker_that_fails_to_start_is_told_although_the_table_stays_as_it_is() -> None:
    async def story() -> None:
        members, updates = pool(RowState.STARTING)
        first = await answered(updates.next("handle", members.version, members.load_version, 0, LONG))
        waiting = ask(updates, first)
        await asyncio.sleep(0)
        members.by_id["w-1"].row.state = RowState.FAILED
        updates.table_changed()
        update = await answered(waiting)
        assert (update.version, update.entries) == (first.version, None)
        assert update.counts == WorkerCounts(2, failed=1)

    asyncio.run(story())


def test_where_nothing_happens_nobody_is_woken() -> None:
    async def story() -> None:
        members, updates = pool()
        first = await answered(updates.next("handle", members.version, members.load_version, 0, LONG))
        waiting = ask(updates, first)
        updates.table_changed()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()

    asyncio.run(story())


def test_loads_are_told_once_a_period_however_often_they_change() -> None:
    async def story(loop: VirtualLoop) -> None:
        members, updates = pool(clock=loop.time)
        update = await updates.next("handle", members.version, members.load_version, 0, LONG)
        began, answers = loop.time(), 0
        while loop.time() < began + 10 * LOAD_PERIOD:
            waiting = ask(updates, update)
            while not waiting.done():
                await asyncio.sleep(LOAD_PERIOD / 16)
                members.load_version += 1
                updates.something_changed()
            update, answers = waiting.result(), answers + 1
        assert 9 <= answers <= 10

    virtual_time.run(story)


def test_a_question_ends_after_its_own_timeout_where_nothing_happens() -> None:
    async def story(loop: VirtualLoop) -> None:
        _, updates = pool(clock=loop.time)
        first = await updates.next("handle", 0, 0, 0, LONG)
        began = loop.time()
        again = await ask(updates, first)
        assert loop.time() == began + LONG
        assert (again.entries, again.loads, again.bindings) == (None, None, [])

    virtual_time.run(story)


def test_a_table_is_known_when_everyone_who_still_asks_has_named_it() -> None:
    async def story(loop: VirtualLoop) -> None:
        members, updates = pool(clock=loop.time)
        first = await updates.next("asks", 0, 0, 0, LONG)
        await updates.next("is gone", 0, 0, 0, LONG)
        began = loop.time()
        waiting = asyncio.ensure_future(updates.known_to_all(members.version, LONG))
        ask_again = asyncio.ensure_future(
            updates.next("asks", first.version, first.load_version, first.binding_version, LONG)
        )
        assert await waiting
        assert loop.time() == began + SILENT_SECONDS, "one that does not ask is gone after that"
        assert not ask_again.done()
        assert await updates.known_to_all(members.version, 0.0)
        later = members.version + 1
        assert not await updates.known_to_all(later, 5.0), "it waits, and knows an older one"
        assert loop.time() == began + SILENT_SECONDS + 5.0
        ask_again.cancel()

    virtual_time.run(story)
