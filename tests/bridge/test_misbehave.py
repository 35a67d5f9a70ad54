"""The bridge that misbehaves does what it is told, so that tests of hosts can rely on it."""

from __future__ import annotations

import ast
import json
import os
import signal
import time
from pathlib import Path

import pytest

from snakepit_ray.testing import ADAPTERS, MISBEHAVING_BRIDGE
from tests.bridge.harness import SHOWCASE
from tests.conftest import wait_until


@pytest.fixture
def misbehaving(bridge):
    """A misbehaving process, configured."""

    def make(how: str, adapter: str = SHOWCASE, **args):
        one = bridge(adapter, script=MISBEHAVING_BRIDGE, adapter_args={"how": how, **args})
        one.configure()
        return one

    return make


@pytest.mark.parametrize("how", ["no_ready", "hang"])
def test_never_ready(misbehaving, how: str) -> None:
    one = misbehaving(how)
    with pytest.raises(TimeoutError):
        one.ready_line(0.3)
    if how == "hang":
        wait_until(lambda: _ignores(one.process.pid, signal.SIGTERM), 30, "it is deaf")
    one.process.terminate()
    if how == "no_ready":
        assert one.wait(20) == -signal.SIGTERM
    else:
        with pytest.raises(TimeoutError):
            one.ready_line(0.1)
        assert one.process.poll() is None


def _ignores(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


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
        assert one.wait(20) == 1
    else:
        assert one.wait(20) == 0


@pytest.mark.parametrize(("args", "status"), [({}, 7), ({"status": 4}, 4), ({"signal": 9}, -9)])
def test_die_on_command(misbehaving, args: dict, status: int) -> None:
    one = misbehaving("die_on_command")
    one.ready_line()
    stream = one.attach()
    stream.request("echo", args)
    assert one.wait(20) == status
    with pytest.raises(ConnectionError):
        stream.until(lambda: False)


def state(pid: int) -> bytes:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]


def test_freeze_answers_once_and_stops(misbehaving) -> None:
    one = misbehaving("freeze")
    one.ready_line()
    assert one.attach().run("add", {"a": 1, "b": 2}) == {"result": 3}
    wait_until(lambda: state(one.pid) == b"T", what="it has stopped itself")


def test_crash_loop_gets_ready_first(misbehaving) -> None:
    one = misbehaving("crash_loop", after=0.3)
    assert "error" not in json.loads(one.ready_line())
    assert one.attach().run("add", {"a": 1, "b": 2}) == {"result": 3}
    assert one.wait(20) == 7


def test_crash_at_start_times_fails_so_often_and_then_works(misbehaving, tmp_path: Path) -> None:
    counted = {"times": 2, "counter": str(tmp_path / "counter")}
    for _ in range(2):
        one = misbehaving("crash_at_start_times", **counted)
        assert (one.ready_line(), one.wait()) == (b"", 7)
    one = misbehaving("crash_at_start_times", **counted)
    assert "error" not in json.loads(one.ready_line())
    assert one.attach().run("add", {"a": 1, "b": 2}) == {"result": 3}


def test_hold_gil_lets_nothing_else_run(misbehaving) -> None:
    one = misbehaving("hold_gil")
    assert "error" not in json.loads(one.ready_line())
    one.unary("/grpc.health.v1.Health/Check")
    stream = one.attach()
    held = stream.request("hold_gil", {"seconds": 0.6})
    began = time.monotonic()
    while held not in stream.replies:
        one.unary("/grpc.health.v1.Health/Check")
        slowest, began = time.monotonic() - began, time.monotonic()
        if slowest > 0.2:
            break
    said = stream.result(held)
    assert 0.2 < said["held_s"] < 2.5, "about what was asked for, on a machine shared with others"
    assert slowest > 0.5 * said["held_s"], "health was not answered meanwhile"


def test_deaf_does_not_hear_a_cancel(misbehaving, tmp_path: Path) -> None:
    one = misbehaving("deaf", path=str(tmp_path / "log"))
    one.ready_line()
    stream = one.attach()
    deaf = stream.request("deaf", {"seconds": 0.5, "tag": "a"})
    wait_until(lambda: "begin a" in (tmp_path / "log").read_text(), what="it runs")
    began = time.monotonic()
    stream.cancel(deaf)
    stream.reply(deaf)
    assert time.monotonic() - began > 0.2
    up, begin, end = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert up == ["up", one.token, str(one.pid), str(os.getpid())]
    assert (begin, end[:3]) == (["begin", "a", one.token], ["end", "a", one.token])
    assert began < float(end[3]) < time.monotonic()


def test_leak_keeps_what_it_takes(misbehaving) -> None:
    one = misbehaving("leak")
    one.ready_line()
    stream = one.attach()
    before = resident_mb(one.pid)
    assert stream.run("leak", {"megabytes": 40})["kept_mb"] == 40
    assert resident_mb(one.pid) - before > 35
    child = stream.run("leak_in_child", {"megabytes": 40})["child"]
    wait_until(lambda: resident_mb(child) > 40, what="the child has it")


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize("path", [MISBEHAVING_BRIDGE, ADAPTERS])
def test_the_files_are_written_for_the_oldest_python(path: str) -> None:
    ast.parse(Path(path).read_text(), feature_version=(3, 9))
