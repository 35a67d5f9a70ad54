"""A worker whose loop is uvloop's, as Ray's actors have it where that is installed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from snakepit_ray.client import answers
from snakepit_ray.client.lanes import Waits
from snakepit_ray.wire import frames, lane
from snakepit_ray.worker.peer_links import LaneEnded, PeerLinks
from tests.conftest import wait_until
from tests.lane.harness import NODE, SECONDS, Client, Worker
from tests.lane.test_peers import answer_to, moved

uvloop = pytest.importorskip(
    "uvloop", reason="uvloop is not installed: Ray's actors run on asyncio's own loop"
)


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(uvloop.new_event_loop) as one:
        yield one


def test_values_errors_and_cancels(worker: Worker, client: Client) -> None:
    assert answers.get(client.send("echo", {"a": [1, 2]}), SECONDS) == {"a": [1, 2]}
    with pytest.raises(ValueError, match="no good"):
        answers.get(client.send("fail"), SECONDS)
    assert answers.get(client.send("large"), SECONDS) == "by ray"
    sent = client.send("wait")
    wait_until(lambda: len(worker.commands.begun) == 4)
    answers.cancel(sent)
    wait_until(lambda: worker.commands.cancelled)


def test_who_is_refused_hears_nothing(worker: Worker) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(worker.lane.path)
        connection.sendall(lane.hello(b"x" * lane.SECRET_BYTES) + frames.pack(lane.CALL, b""))
        assert connection.recv(1) == b""


def test_a_caller_whose_loop_is_uvloops_too(worker: Worker, client: Client) -> None:
    async def body() -> None:
        sent = [client.send("echo", number, Waits.LOOP) for number in range(200)]
        assert [await one for one in sent] == list(range(200))
        client.lanes.close()
        await asyncio.to_thread(wait_until, lambda: not worker.server.callers)

    run_on_uvloop(body())


def test_what_has_no_answer_goes_by_ray_when_the_worker_dies(worker: Worker, client: Client) -> None:
    sent = [client.send("wait", number) for number in range(10)]
    wait_until(lambda: len(worker.commands.begun) == 10)
    worker.die()
    assert [answers.get(one, SECONDS) for one in sent] == ["by ray"] * 10


def test_requests_that_are_moved_between_two_such_workers(worker: Worker) -> None:
    async def body() -> None:
        links = PeerLinks(NODE)
        sent = [answer_to(links, worker.lane, moved("echo", number)) for number in range(100)]
        assert await asyncio.gather(*sent) == list(range(100))
        task = asyncio.ensure_future(answer_to(links, worker.lane, moved("wait")))
        await asyncio.to_thread(wait_until, lambda: len(worker.commands.begun) == 101)
        await asyncio.to_thread(worker.die)
        await asyncio.wait([task])
        assert isinstance(task.exception(), LaneEnded)
        links.close()

    run_on_uvloop(body())


def run_on_uvloop(body: Any) -> None:
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(body, SECONDS))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
