"""How awaited calls travel together, and end each for itself; no Ray."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from snakepit_ray.client.coalescing import HOLD_SECONDS, Coalescer
from snakepit_ray.client.pending import Ticket
from snakepit_ray.client.sender import Sent
from snakepit_ray.config import DEFAULT_OPTIONS
from snakepit_ray.errors import DeadlineExceeded, EncodingError, PoolClosed
from snakepit_ray.wire.codec import BatchOutcome
from tests.client.fakes import FakeSender

whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")


class AsyncSender(FakeSender):
    """Its refs are futures of the running loop."""

    def __init__(self) -> None:
        super().__init__()
        self.tickets: list[Ticket] = []
        self.contexts: list[str] = []
        self.refs: list[tuple[asyncio.Future[Any], list[dict[str, Any]]]] = []

    def arm(self, sent: Sent, expire: Callable[[bool], None]) -> Ticket:
        self.tickets.append(Ticket(None, sent.deadline, expire))  # type: ignore[arg-type]
        return self.tickets[-1]

    def gave_up(self, sent: Sent, is_over: bool) -> Exception:
        return PoolClosed("over") if is_over else DeadlineExceeded.after(sent.budget, "running", "c")

    def _send(self, items: list[dict[str, Any]]) -> Sent:
        ref = asyncio.get_running_loop().create_future()
        self.refs.append((ref, items))
        self.contexts.append(whose.get())
        return Sent(ref, "c", 60.0, 0.0, "w")

    def answer_all(self, most: int | None = None) -> None:
        """Every batch that is open gets its items back, or its first `most`."""
        for ref, items in self.refs:
            if not ref.done():
                values = items[:most]
                ref.set_result(BatchOutcome(values, [], 0.001, 0))


def run(test: Callable[[AsyncSender, Coalescer], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        sender = AsyncSender()
        await asyncio.wait_for(test(sender, Coalescer(sender)), 60)  # type: ignore[arg-type]

    asyncio.run(main())


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def calls_of(coalescer: Coalescer, count: int) -> list[asyncio.Task[Any]]:
    return [
        asyncio.ensure_future(coalescer.call("c", {"a": number}, DEFAULT_OPTIONS)) for number in range(count)
    ]


def test_a_call_sends_what_it_was_given_when_it_was_made() -> None:
    async def test(sender: AsyncSender, coalescer: Coalescer) -> None:
        shared: dict[str, Any] = {"x": {"n": 0}}
        calls = []
        for number in range(4):
            shared["x"]["n"] = number
            coroutine = coalescer.call("c", shared, DEFAULT_OPTIONS)
            calls.append(asyncio.ensure_future(coroutine))
            await asyncio.sleep(0)
        shared["x"]["n"] = -1
        await settled()
        assert [item["x"]["n"] for _, items in sender.refs for item in items] == [0, 1, 2, 3]
        for call in calls:
            call.cancel()

    run(test)


def test_what_is_shared_is_sent_in_nobodys_context() -> None:
    async def test(sender: AsyncSender, coalescer: Coalescer) -> None:
        whose.set("the first caller's")
        calls = calls_of(coalescer, 10)
        await settled()
        assert set(sender.contexts) == {"nobody's"}
        sender.answer_all(1)  # the rest is given back, and goes again
        await settled()
        assert len(sender.refs) > 2
        assert set(sender.contexts) == {"nobody's"}
        while not all(call.done() for call in calls):
            sender.answer_all()
            await settled()
        assert [call.result()["a"] for call in calls] == list(range(10))

    run(test)


def test_who_is_cancelled_takes_nothing_from_the_others_and_the_last_takes_it_along() -> None:
    async def test(sender: AsyncSender, coalescer: Coalescer) -> None:
        calls = calls_of(coalescer, 4)
        await settled()
        calls[0].cancel()
        await settled()
        assert not sender.cancelled
        for call in calls[1:]:
            call.cancel()
        await settled()
        assert sender.cancelled == {ref for ref, _ in sender.refs}

    run(test)


@pytest.mark.parametrize(("is_over", "error"), [(False, DeadlineExceeded), (True, PoolClosed)])
def test_calls_whose_worker_says_nothing_end_by_themselves(is_over: bool, error: type[Exception]) -> None:
    async def test(sender: AsyncSender, coalescer: Coalescer) -> None:
        calls = calls_of(coalescer, 4)
        await settled()
        for ticket in sender.tickets:
            ticket.expire(is_over)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [error] * 4

    run(test)


def test_calls_wait_for_a_place_only_for_a_moment_however_many_come_after_them() -> None:
    async def test(sender: AsyncSender, _: Coalescer) -> None:
        sender.slots, now = 1, 100.0
        coalescer = Coalescer(sender, lambda: now)  # type: ignore[arg-type]
        calls = []
        for number in range(6):
            calls.append(asyncio.ensure_future(coalescer.call("c", {"a": number}, DEFAULT_OPTIONS)))
            await settled()
            now += HOLD_SECONDS / 3
        sent = [[item["a"] for item in items] for _, items in sender.refs]
        assert sent == [[0], [1], [2, 3, 4, 5]], "two fill the slot, and the next ones wait together"
        for call in calls:
            call.cancel()

    run(test)


def test_what_cannot_be_encoded_fails_when_the_call_is_made_and_alone() -> None:
    async def test(sender: AsyncSender, coalescer: Coalescer) -> None:
        calls = calls_of(coalescer, 2)
        with pytest.raises(EncodingError, match="x"):
            await coalescer.call("c", {"x": object()}, DEFAULT_OPTIONS)
        await settled()
        sender.answer_all()
        assert sorted(result["a"] for result in await asyncio.gather(*calls)) == [0, 1]

    run(test)


def test_a_closed_pool_says_so_at_once() -> None:
    async def test(sender: AsyncSender, coalescer: Coalescer) -> None:
        sender.is_closed = True
        with pytest.raises(PoolClosed):
            await coalescer.call("c", {}, DEFAULT_OPTIONS)

    run(test)
