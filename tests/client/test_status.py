"""What `repr(pool)` says: from facts that the handle has, without Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_ray.client.directory import Directory
from snakepit_ray.client.status import OLD_SECONDS, Status, running_and_waiting
from snakepit_ray.config import PoolConfig
from snakepit_ray.port.messages import Entry, Snapshot, Update, WorkerCounts

COUNT = st.integers(0, 5)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (Status("a", 4, WorkerCounts(4)), "<Pool 'a' 4 of 4 workers ready>"),
        (Status("a", 1, WorkerCounts(4)), "<Pool 'a' 1 of 4 workers ready, 3 starting>"),
        (
            Status("a", 1, WorkerCounts(4, 1, 1), 6, 2),
            "<Pool 'a' 1 of 4 workers ready, 1 starting, 1 quarantined, 1 failed to start, 6 running, "
            "2 waiting>",
        ),
        (Status("a", 5, WorkerCounts(4)), "<Pool 'a' 5 of 4 workers ready>"),
        (Status("a", 4, WorkerCounts(4), age=OLD_SECONDS - 0.1), "<Pool 'a' 4 of 4 workers ready>"),
        (Status("a", 4, WorkerCounts(4), age=12.4), "<Pool 'a' 4 of 4 workers ready, as of 12 s ago>"),
        (
            Status("a", 4, WorkerCounts(4), 1, closed="it was shut down"),
            "<Pool 'a' closed: it was shut down>",
        ),
    ],
)
def test_a_status_is_one_line(status: Status, line: str) -> None:
    assert status.line() == line


@given(COUNT, COUNT, COUNT, COUNT, COUNT, COUNT)
def test_every_number_is_said_once_and_no_zero(ready, wanted, quarantined, failed, running, waiting) -> None:
    line = Status("a", ready, WorkerCounts(wanted, quarantined, failed), running, waiting).line()
    words = dict(word.split(" ", 1)[::-1] for word in line[len("<Pool 'a' ") : -1].split(", ")[1:])
    starting = max(0, wanted - ready - quarantined - failed)
    said = {
        "starting": starting,
        "quarantined": quarantined,
        "failed to start": failed,
        "running": running,
        "waiting": waiting,
    }
    assert words == {what: str(count) for what, count in said.items() if count}


@given(st.lists(st.integers(0, 50)), st.integers(1, 10))
def test_a_request_runs_or_waits(loads: list[int], capacity: int) -> None:
    running, waiting = running_and_waiting(loads, capacity)
    assert running + waiting == sum(loads)
    assert 0 <= running <= capacity * len(loads)
    assert waiting == 0 or running >= capacity


def entry(worker_id: str, load: int) -> Entry:
    return Entry(worker_id, SimpleNamespace(execute=None), 2, load, 1)


def test_a_handle_tells_what_it_was_told_and_asks_nobody() -> None:
    config = PoolConfig.build(name="a", profile="thread", threads_per_worker=2)
    snapshot = Snapshot(1, [entry("w-0", 0), entry("w-1", 5)], WorkerCounts(3))
    directory = Directory(config, None, snapshot)  # a router of which nothing can be asked
    assert directory.status().line() == "<Pool 'a' 2 of 3 workers ready, 1 starting, 2 running, 3 waiting>"
    directory._take(Update(1, 2, 0, None, {"w-0": 1, "w-1": 2}, [], False, WorkerCounts(3, 1)))
    assert directory.status().line() == "<Pool 'a' 2 of 3 workers ready, 1 quarantined, 3 running>"
    directory._take(Update(2, 3, 0, [entry("w-0", 0)], None, [], False, WorkerCounts(1)))
    assert directory.status().line() == "<Pool 'a' 1 of 1 workers ready>"
    assert directory.snapshot().counts == WorkerCounts(1)
    directory.close()
    assert directory.status().line() == "<Pool 'a' closed: it was shut down>"
