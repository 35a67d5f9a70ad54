"""The bridge that misbehaves does what it is told, so that tests of hosts can rely on it."""

from __future__ import annotations

import json
import signal

import pytest

from tests.bridge.harness import ROOT, SHOWCASE

SCRIPT = ROOT / "tests" / "bridges" / "misbehave.py"


@pytest.fixture
def misbehaving(bridge):
    """A misbehaving process, configured."""

    def make(how: str, adapter: str = SHOWCASE):
        one = bridge(adapter, script=SCRIPT, adapter_args={"how": how})
        one.configure()
        return one

    return make


@pytest.mark.parametrize("how", ["no_ready", "hang"])
def test_never_ready(misbehaving, how: str) -> None:
    one = misbehaving(how)
    with pytest.raises(TimeoutError):
        one.ready_line(0.3)
    one.process.terminate()
    if how == "no_ready":
        assert one.wait(5) == -signal.SIGTERM
    else:
        with pytest.raises(TimeoutError):
            one.ready_line(0.1)
        assert one.process.poll() is None


def test_garbage_and_wrong_version(misbehaving) -> None:
    with pytest.raises(ValueError, match=r"char 0|utf-8"):
        json.loads(misbehaving("garbage_ready").ready_line())
    assert json.loads(misbehaving("wrong_version").ready_line())["snakepit"] == 99


def test_exit_at_once(misbehaving) -> None:
    one = misbehaving("exit_at_once")
    assert one.ready_line() == b""
    assert one.wait() == 7
    assert "leaving at once" in one.stderr()


@pytest.mark.parametrize("how", ["stderr_flood", "stdout_garbage", "ignore_sigterm"])
def test_those_that_work_otherwise(misbehaving, how: str) -> None:
    one = misbehaving(how)
    assert "error" not in json.loads(one.ready_line())
    assert one.attach().run("add", {"a": 1, "b": 2}) == {"result": 3}
    one.process.terminate()
    if how == "ignore_sigterm":
        assert one.attach().run("add", {"a": 1, "b": 2}) == {"result": 3}
        one.process.stdin.close()
        assert one.wait(5) == 1
    else:
        assert one.wait(5) == 0


@pytest.mark.parametrize(("args", "status"), [({}, 7), ({"status": 4}, 4), ({"signal": 9}, -9)])
def test_die_on_command(misbehaving, args: dict, status: int) -> None:
    one = misbehaving("die_on_command")
    one.ready_line()
    stream = one.attach()
    stream.request("echo", args)
    assert one.wait(5) == status
    with pytest.raises(ConnectionError):
        stream.until(lambda: False)
