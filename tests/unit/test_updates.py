"""What handles are told, and when: without Ray, on an event loop whose handles wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from snakepit_ray.port.messages import Update, WorkerCounts
from snakepit_ray.process.awaiting import within
from snakepit_ray.router.members import Member, Members
from snakepit_ray.router.updates import Updates

LONG = 60.0  # of a question; an answer that comes before that was not waited for in vain
BOUND = 20.0


def pool(states: str = "ready") -> tuple[Members, Updates]:
    members = Members(capacity=1, size=2)
    for number in range(2):
        members.add(Member(f"w-{number}", state=states))
    updates = Updates(members)
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
        members.set_state(members.by_id["w-1"], "quarantined")
        updates.table_changed()
        update = await answered(updates.next("handle", members.version, members.load_version, 0, LONG))
        assert (update.entries, update.counts) == (None, WorkerCounts(2, quarantined=1))

    asyncio.run(story())


def test_a_worker_that_fails_to_start_is_told_although_the_table_stays_as_it_is() -> None:
    async def story() -> None:
        members, updates = pool("starting")
        first = await answered(updates.next("handle", members.version, members.load_version, 0, LONG))
        waiting = ask(updates, first)
        await asyncio.sleep(0)
        members.set_state(members.by_id["w-1"], "failed")
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
