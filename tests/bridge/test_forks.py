"""Commands fork as plain programs do: children have default signals, end where they end, and hang nowhere."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.bridge.harness import BridgeProcess, Stream
from tests.bridge.test_lifeline import gone


@pytest.fixture(scope="module")
def served(_wire: None) -> Iterator[BridgeProcess]:
    one = BridgeProcess("forking:Forking").start()
    yield one
    one.stop()


@pytest.fixture
def stream(served: BridgeProcess) -> Iterator[Stream]:
    one = served.attach()
    yield one
    one.close()


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("exit", 3),
        ("raise", 1),
        ("return", 0),
        ("terminate", -signal.SIGTERM),
        ("interrupt", -signal.SIGINT),
    ],
)
def test_forked_children_end_as_in_a_plain_program(stream: Stream, how: str, status: int) -> None:
    assert stream.run("children", {"count": 40, "how": how}) == [status]
    assert stream.run("environment") is None, "it serves on, and no signal was taken for its own"


def test_a_child_that_comes_back_into_a_stream_or_a_batch_ends(stream: Stream) -> None:
    request = stream.stream("fork_in_a_stream")
    assert stream.reply(request).end.chunks == 3
    assert stream.values(request) == [True] * 3
    batch = stream.request("fork_one", b'[{"item": 1}, {"item": 2}]', batch={"count": 2})
    assert stream.reply(batch).value.json == b"[0,0]"


def test_children_inherit_what_the_user_set_and_nothing_of_the_bridge(stream: Stream) -> None:
    assert stream.run("inherits") == "[True, True, [], -1]"


def test_pools_of_processes_end(stream: Stream) -> None:
    assert stream.run("pools", {"count": 15}) == 15 * 14
    assert stream.run("pool_that_is_late") == "late"
    assert stream.run("executors", {"count": 10}) == 10 * 14
    assert stream.run("terminated") == -signal.SIGTERM


def test_threads_fork_as_well(bridge) -> None:
    """Two commands at once, each in a thread, and gRPC's threads beside them."""
    stream = bridge("forking:Forking", capacity=2).start().attach()
    ids = [stream.request("children", {"count": 25, "how": how}) for how in ("exit", "terminate")]
    assert [stream.result(one) for one in ids] == [[3], [-signal.SIGTERM]]


def test_a_daemonic_helper_does_not_hold_up_a_planned_end(bridge, tmp_path) -> None:
    one = bridge("forking:Forking").start()
    helper = one.attach().run("daemon", {"path": str(tmp_path / "left")})
    began = time.monotonic()
    one.process.terminate()
    assert one.wait() == 0
    assert time.monotonic() - began < 15, "it was 60 s of the helper otherwise"
    assert (tmp_path / "left").exists(), "exit functions were called"
    assert gone(helper)
