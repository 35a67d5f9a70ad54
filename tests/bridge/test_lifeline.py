"""Nobody is left behind: how the interpreter ends, and what it takes along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.harness import ROOT
from tests.conftest import wait_until


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_the_end_of_stdin_ends_it_and_its_descendants(bridge) -> None:
    one = bridge("commands:Commands").start()
    stream = one.attach()
    grandchild = stream.run("grandchild")
    assert not gone(grandchild)
    stream.request("wait_until_cancelled")
    one.process.stdin.close()
    assert one.wait(20) == 1
    wait_until(lambda: gone(grandchild), 2)


def test_the_death_of_the_host_ends_it_and_its_descendants(tmp_path) -> None:
    """The host is killed; its interpreter is nobody's child then."""
    source = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.bridge.harness import BridgeProcess\n"
        "one = BridgeProcess('commands:Commands').start()\n"
        "print(one.pid, one.attach().run('grandchild'), one.directory.name, flush=True)\n"
        "sys.stdin.read()\n"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    interpreter, grandchild, _ = host.stdout.readline().split()
    host.kill()
    host.communicate(timeout=10)
    wait_until(lambda: gone(int(interpreter)) and gone(int(grandchild)), 2)


def test_sigterm_cancels_what_runs_and_exits_with_0(bridge) -> None:
    one = bridge("commands:Commands", capacity=2).start()
    stream = one.attach()
    grandchild = stream.run("grandchild")
    ids = [stream.request(name) for name in ("wait_until_cancelled", "sleep_until_cancelled")]
    stream.until(lambda: len(stream.host_calls) == 2)
    one.process.terminate()
    assert one.wait(20) == 0
    for request in ids:
        assert stream.replies[request][0].failure.kind == pb.Failure.CANCELLED
    wait_until(lambda: gone(grandchild), 2)


def test_sigterm_while_it_starts_ends_it(bridge) -> None:
    one = bridge()
    wait_until(lambda: _catches(one.pid, signal.SIGTERM))
    one.process.terminate()
    assert one.wait(20) == 0


def _catches(pid: int, number: int) -> bool:
    with open(f"/proc/{pid}/status") as file:
        mask = next(line for line in file if line.startswith("SigCgt"))
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def test_a_deaf_command_does_not_hold_up_the_end_for_long(bridge) -> None:
    one = bridge("commands:Commands").start()
    stream = one.attach()
    stream.request("rendezvous", {"tag": "a"})  # waits for 20 s, and looks at nothing
    stream.send()
    wait_until(lambda: _running(one) == 1)
    one.process.terminate()
    assert one.wait(10) == 0, "half of what the command would take"


def _running(one) -> int:
    return pb.Description.FromString(one.unary("/snakepit.v1.Interpreter/Describe")).running


def test_shutdown_lets_commands_finish_within_their_grace(bridge) -> None:
    one = bridge("commands:Commands", capacity=2).start()
    stream = one.attach(on_host_call=lambda call: pb.HostReply(id=call.id, value=pb.Payload(json=b"null")))
    request = stream.request("sleep_until_cancelled", budget_ms=300)
    stream.until(lambda: stream.host_calls)
    began = time.monotonic()
    one.unary("/snakepit.v1.Interpreter/Shutdown", pb.ShutdownRequest(grace_ms=10_000).SerializeToString())
    refused = stream.request("echo")
    assert stream.reply(refused).failure.kind == pb.Failure.CANCELLED
    assert stream.reply(request).failure.kind == pb.Failure.DEADLINE  # its own budget, not the shutdown
    assert one.wait(20) == 0
    assert time.monotonic() - began < 5


def test_shutdown_cancels_what_outlives_the_grace(bridge) -> None:
    one = bridge("commands:Commands").start()
    stream = one.attach()
    request = stream.request("wait_until_cancelled")
    stream.until(lambda: stream.host_calls)
    one.unary("/snakepit.v1.Interpreter/Shutdown", pb.ShutdownRequest(grace_ms=10).SerializeToString())
    assert one.wait(20) == 0
    assert stream.replies[request][0].failure.kind == pb.Failure.CANCELLED


def test_an_interrupt_belongs_to_the_host_and_reaches_what_commands_start(bridge) -> None:
    one = bridge("commands:Commands").start()
    stream = one.attach()
    os.kill(one.pid, signal.SIGINT)
    assert stream.run("signals") == {"ignored": False, "blocked": []}
    grandchild = stream.run("grandchild")
    os.kill(grandchild, signal.SIGINT)
    wait_until(lambda: gone(grandchild), 5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has the parent-death signal")
def test_the_parent_death_signal_alone_harms_nobody(bridge) -> None:
    one = bridge("commands:Commands").start()
    os.kill(one.pid, signal.SIGRTMIN + 7)  # as it comes when only the thread that started it has ended
    assert one.attach().run("echo", {"value": 1}) == 1
