"""A worker with a lane, and a caller of it, for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import wait_until
from tests.lane.harness import Client, Worker, reader_threads


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker() as one:
        yield one


@pytest.fixture
def client(worker: Worker) -> Iterator[Client]:
    one = Client(worker)
    yield one
    one.lanes.close()
    wait_until(lambda: not reader_threads(), what="the readers have ended")
