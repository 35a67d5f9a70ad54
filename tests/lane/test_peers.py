"""One worker's lanes to other workers over a real socket: what comes back, what goes by Ray, and ends."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from snakepit_ray.errors import SnakepitError
from snakepit_ray.process import lanes as process_lanes
from snakepit_ray.wire import frames, lane
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.worker import peer_links
from snakepit_ray.worker.peer_links import LaneEnded, PeerLinks
from tests.conftest import wait_until
from tests.lane.harness import NODE, SECONDS, Worker

numbers = itertools.count(1)


def moved(command: str, value: Any = None) -> pb.Request:
    request = pb.Request(id=f"caller-{next(numbers)}", command=command, budget_ms=60_000)
    request.args.json = json.dumps(value).encode()
    request.options.hops = 1
    return request


def over(body: Callable[[PeerLinks], Awaitable[Any]], node: str = NODE) -> Any:
    """Runs `body` with the lanes of a worker, and ends them."""

    async def run() -> Any:
        links = PeerLinks(node)
        try:
            return await asyncio.wait_for(body(links), SECONDS)
        finally:
            links.close()
            await asyncio.sleep(0)  # the transports see it

    return asyncio.run(run())


async def answer_to(links: PeerLinks, to: lane.Lane | None, request: pb.Request) -> Any:
    """The value, the error, "refused", or None where it goes by Ray."""
    answer = await links.run(to, request, request.SerializeToString())
    if answer is None:
        return None
    if answer.refused:
        return "refused"
    assert answer.free
    outcome = lane.relayed(answer, request)
    return outcome if isinstance(outcome, SnakepitError) else outcome.value()


def test_what_a_request_came_to_there_comes_back(worker: Worker) -> None:
    async def body(links: PeerLinks) -> None:
        sent = [answer_to(links, worker.lane, moved("echo", number)) for number in range(100)]
        assert await asyncio.gather(*sent) == list(range(100))
        assert isinstance(await answer_to(links, worker.lane, moved("fail")), ValueError)
        assert await answer_to(links, worker.lane, moved("refuse")) == "refused"
        assert links.sent == 102

    over(body)
    assert worker.counted == 0, "its caller's own worker has counted it"


def test_a_batch_and_what_is_told_of_it_come_back_as_by_ray(worker: Worker) -> None:
    async def body(links: PeerLinks) -> None:
        request = moved("echo", [1, 2, 3])
        request.batch.count = 3
        assert await answer_to(links, worker.lane, request) == [1, 2, 3]
        one = moved("echo", 1)
        one.options.encoded = True
        answer = await links.run(worker.lane, one, one.SerializeToString())
        assert answer is not None
        outcome: Any = lane.relayed(answer, one)
        assert outcome.is_kept and outcome.info is None

    over(body)


def test_an_answer_that_is_too_large_is_fetched_by_ray_and_its_command_goes_by_ray(worker: Worker) -> None:
    async def body(links: PeerLinks) -> None:
        large = moved("large")
        assert await answer_to(links, worker.lane, large) is None
        (delegated, error) = worker.commands.kept[large.id]
        assert len(delegated.value.json) > lane.LARGEST and delegated.free and error is None
        again = moved("large")
        assert await answer_to(links, worker.lane, again) is None
        assert again.id not in worker.commands.begun
        assert await answer_to(links, worker.lane, moved("echo", "x" * lane.LARGEST)) is None

    over(body)


def test_without_a_lane_to_this_node_it_goes_by_ray(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(links: PeerLinks) -> None:
        assert await answer_to(links, None, moved("echo")) is None
        assert await answer_to(links, worker.lane._replace(path="/nowhere/s"), moved("echo")) is None
        monkeypatch.setattr(peer_links, "MOST_LINKS", 0)
        assert await answer_to(links, worker.lane, moved("echo")) is None
        monkeypatch.setattr(peer_links, "MOST_LINKS", 1)
        with monkeypatch.context() as patch:
            patch.setattr(process_lanes.sockets, "peer_user", lambda _: -1)
            assert await answer_to(links, worker.lane, moved("echo")) is None
        assert await answer_to(links, worker.lane, moved("echo", 1)) == 1

    async def elsewhere(links: PeerLinks) -> None:
        assert await answer_to(links, worker.lane, moved("echo")) is None

    over(body)
    over(elsewhere, node="another")


def test_a_cancel_reaches_the_command_and_its_id_is_not_sent_a_second_time_beside_it(worker: Worker) -> None:
    async def body(links: PeerLinks) -> None:
        request = moved("wait")
        task = asyncio.ensure_future(answer_to(links, worker.lane, request))
        await asyncio.to_thread(wait_until, lambda: worker.commands.begun)
        (link,) = links._links.values()
        link.cancel(request.id)
        assert link.send(request.id, b"") is None
        task.cancel()
        await asyncio.wait([task])
        await asyncio.to_thread(wait_until, lambda: worker.commands.cancelled == {request.id})
        assert await answer_to(links, worker.lane, moved("echo", 1)) == 1
        assert not link._answers, "the answer to what was cancelled came before that one"

    over(body)


def test_a_worker_that_dies_ends_what_it_has(worker: Worker) -> None:
    async def body(links: PeerLinks) -> None:
        sent = [asyncio.ensure_future(answer_to(links, worker.lane, moved("wait"))) for _ in range(10)]
        await asyncio.to_thread(wait_until, lambda: len(worker.commands.begun) == 10)
        await asyncio.to_thread(worker.die)
        came = await asyncio.gather(*sent, return_exceptions=True)
        assert [type(one) for one in came] == [LaneEnded] * 10
        assert await answer_to(links, worker.lane, moved("echo")) is None

    over(body)


def test_what_was_moved_goes_on_when_the_worker_that_sent_it_dies(worker: Worker) -> None:
    async def body(links: PeerLinks) -> None:
        task = asyncio.ensure_future(answer_to(links, worker.lane, moved("wait")))
        await asyncio.to_thread(wait_until, lambda: worker.commands.begun)
        links.close()
        await asyncio.wait([task])
        assert isinstance(task.exception(), LaneEnded)

    over(body)
    wait_until(lambda: not worker.server.callers)
    assert worker.call(lambda: len(worker.server.moved)) == 1 and not worker.commands.cancelled
    worker.call(worker.commands.go.set)
    wait_until(lambda: not worker.call(lambda: worker.server.moved))


def test_a_connection_that_cannot_be_made_sends_all_by_ray(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, sock: Any, **__: Any) -> Any:
        sock.close()
        raise OSError("too many open files")

    async def body(links: PeerLinks) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "create_unix_connection", broken)
            sent = [answer_to(links, worker.lane, moved("echo")) for _ in range(3)]
            assert await asyncio.gather(*sent) == [None] * 3
        assert await answer_to(links, worker.lane, moved("echo", 1)) == 1

    over(body)
    assert len(worker.commands.begun) == 1


def test_who_says_what_no_worker_says_is_taken_for_dead(worker: Worker) -> None:
    async def body(links: PeerLinks) -> None:
        task = asyncio.ensure_future(answer_to(links, worker.lane, moved("wait")))
        await asyncio.to_thread(wait_until, lambda: worker.commands.begun)
        (caller,) = worker.server.callers
        worker.call(lambda: caller._transport.write(frames.pack(99, b"")))
        await asyncio.wait([task])
        assert isinstance(task.exception(), LaneEnded)

    over(body)
