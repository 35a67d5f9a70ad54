"""In the process profile everything of a user runs in the main thread, as in a plain program."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.harness import BridgeProcess, Stream
from tests.conftest import wait_until


@pytest.fixture(scope="module")
def served(_wire: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    path = str(tmp_path_factory.mktemp("plain") / "seen.db")
    one = BridgeProcess("plain:Plain", adapter_args={"path": path}).start()
    yield one
    one.stop()


@pytest.fixture
def stream(served: BridgeProcess) -> Iterator[Stream]:
    one = attached(served)
    yield one
    one.close()


def attached(one: BridgeProcess) -> Stream:
    return one.attach(on_host_call=lambda call: pb.HostReply(id=call.id, value=pb.Payload(json=b"null")))


def plain(bridge: Any, tmp_path: Path) -> BridgeProcess:
    return bridge("plain:Plain", adapter_args={"path": str(tmp_path / "seen.db")}).start()


def words(path: Path) -> list[str]:
    with sqlite3.connect(path) as database:
        return [word for (word,) in database.execute("select word from seen")]


def test_what_setup_did_is_there_in_commands_and_in_teardown(bridge, tmp_path: Path) -> None:
    one = plain(bridge, tmp_path)
    stream = one.attach()
    assert stream.run("later") is True
    for name in ("chunks", "chunks_later", "chunks_at_last"):
        request = stream.stream(name)
        assert stream.reply(request).end.chunks == 1
        assert stream.values(request)[0]
    state = stream.run("state", session="s")
    assert (state["value"], state["digits"], state["name"]) == ("kept", 52, "setup")
    assert len(state["places"]) == 9 and set(state["places"].values()) == {True}, state["places"]
    one.process.terminate()
    assert one.wait() == 0
    assert words(tmp_path / "seen.db") == ["command", "teardown True"], "committed"


def test_a_timeout_that_uses_the_alarm_ends_its_command_and_a_late_one_nothing(stream: Stream) -> None:
    failed = stream.failure("limited", {"seconds": 0.05})
    assert (failed.type, failed.message) == ("TimeoutError", "the alarm")
    stream.run("leaves_an_alarm", {"seconds": 0.01})
    time.sleep(0.05)  # the alarm comes while nothing runs: no other way to have it so
    for _ in range(20):  # and in the midst of what the bridge itself does
        asked = stream.request("leaves_an_alarm", {"seconds": 0.0005}), stream.request("ticked")
        for reply in map(stream.reply, asked):  # whichever command it meets has it for its outcome
            assert reply.HasField("value") or reply.failure.type == "TimeoutError"
    stream.reply(stream.request("leaves_an_alarm", {"seconds": 0}))


@pytest.mark.parametrize("how", ["get", "run", "closed"])
def test_event_loops_are_used_as_in_a_plain_program(bridge, tmp_path: Path, how: str) -> None:
    stream = plain(bridge, tmp_path).attach()
    assert stream.run("runs_a_loop", {"how": how}) is True
    assert stream.run("later") is (how == "get")  # asyncio.run and close leave a new loop to those after
    if how == "get":
        assert stream.run("runs_a_loop", {"how": "run"}) is True
    assert stream.run("handles_a_signal") is True


def test_a_task_goes_on_between_commands(stream: Stream) -> None:
    stream.run("starts_a_task")
    before = stream.run("ticked")
    wait_until(lambda: stream.run("ticked") > before + 5)


def test_an_async_setup_shares_loop_and_variables_with_commands(bridge, tmp_path: Path) -> None:
    stream = bridge("plain:LaterSetup", adapter_args={"path": str(tmp_path / "x")}).start().attach()
    assert stream.run("same_sync") == ["async setup", True, True]
    assert stream.run("same") == ["async setup", True, True]


def test_threads_of_the_thread_profile_have_the_variables_of_setup(bridge) -> None:
    stream = bridge("plain:Threaded", thread_profile=True, capacity=2).start().attach()
    assert stream.run("seen") == ["setup", 40, False]
    assert stream.run("seen_later") == ["setup", 40, False]


@pytest.mark.parametrize("how", ["sleep", "Python", "async"])
def test_a_deaf_command_lets_go_at_the_end_so_that_teardown_runs(bridge, tmp_path: Path, how: str) -> None:
    one = plain(bridge, tmp_path)
    stream = attached(one)
    request = stream.request("deaf_async") if how == "async" else stream.request("deaf", {"how": how})
    stream.until(lambda: stream.host_calls)
    one.process.terminate()
    assert one.wait() == 0
    assert stream.replies[request][0].failure.kind == pb.Failure.CANCELLED
    assert words(tmp_path / "seen.db") == ["teardown True"]


def test_sigterm_ends_an_interpreter_whose_main_thread_is_in_a_long_call_into_c(bridge, tmp_path) -> None:
    one = plain(bridge, tmp_path)
    stream = attached(one)
    stream.request("deaf", {"how": "C"})
    stream.until(lambda: stream.host_calls)
    one.process.terminate()
    assert one.wait() == 0
    assert "no teardown" in one.stderr()


def test_a_user_who_takes_sigterm_does_not_keep_the_interpreter(bridge, tmp_path: Path) -> None:
    one = plain(bridge, tmp_path)
    one.attach().run("replaces_the_handler")
    os.kill(one.pid, signal.SIGTERM)
    assert one.wait() == 0
