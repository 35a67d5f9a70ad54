"""The bridge as a forker: what it takes for safe to fork, its orders, its end. No worker is here."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridge.environments import environment, found
from tests.bridge.harness import TIMEOUT, BridgeProcess, carriers

ADAPTER = """
from snakepit_bridge import Adapter, command

{more}

class Mine(Adapter):
    @command
    def double(self, x: int):
        return 2 * x
"""


class ForkerProcess(BridgeProcess):
    """A forker, in the hands of somebody who has nothing but the contract."""

    def __init__(self, adapter: str, **config: Any) -> None:
        self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.orders.settimeout(TIMEOUT)
        number = theirs.fileno()
        words = ("--forker-fd", str(number))
        env = {"SNAKEPIT_TOKEN": secrets.token_hex(16), "OPENBLAS_NUM_THREADS": "1"}
        super().__init__(adapter, words=words, inherited=(number,), env=env, **config)
        theirs.close()
        self.tokens.add(env["SNAKEPIT_TOKEN"])

    def fork(self, numbers: tuple[int, ...] = (), mark: int | None = None) -> Fork:
        """Orders one interpreter."""
        return Fork(self, numbers, mark)

    def stop(self) -> None:
        self.orders.close()
        super().stop()


class Fork:
    """One order, its pipes and its report."""

    def __init__(self, forker: ForkerProcess, numbers: tuple[int, ...], mark: int | None) -> None:
        self.token = secrets.token_hex(16)
        forker.tokens.add(self.token)
        self.report, report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.report.settimeout(TIMEOUT)
        null = os.open(os.devnull, os.O_RDWR)
        stdin, self.lifeline = os.pipe()
        self.ready, ready = os.pipe()
        order = {"token": self.token, "mark": mark, "numbers": list(numbers)}
        given = [report.fileno(), stdin, null, null, ready, *numbers]
        socket.send_fds(forker.orders, [json.dumps(order).encode()], given)
        for descriptor in (null, stdin, ready):
            os.close(descriptor)
        report.close()

    def said(self) -> tuple[dict[str, Any], list[int]]:
        """What the forker says next of it, and the descriptors that come with that."""
        data, descriptors, _, _ = socket.recv_fds(self.report, 4096, 2)
        return json.loads(data), descriptors

    def start(self, config: dict[str, Any]) -> dict[str, Any]:
        """Its ready line."""
        os.write(self.lifeline, json.dumps(config).encode() + b"\n")
        with open(self.ready, "rb", closefd=False) as file:
            return dict(json.loads(file.readline()))

    def close(self) -> None:
        for descriptor in (self.lifeline, self.ready):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.report.close()


@pytest.fixture
def forker(tmp_path: Path) -> Iterator[Any]:
    started: list[ForkerProcess] = []

    def start(more: str = "", **config: Any) -> ForkerProcess:
        (tmp_path / "mine.py").write_text(ADAPTER.format(more=more))
        started.append(ForkerProcess("mine.py:Mine", **{"cwd": str(tmp_path), **config}))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def ready(one: ForkerProcess) -> dict[str, Any]:
    one.configure()
    return dict(json.loads(one.ready_line()))


def serves(one: ForkerProcess) -> None:
    """A fork of it serves, and its end is told."""
    fork = one.fork()
    try:
        (pid,) = [said["pid"] for said, _ in [fork.said()]]
        line = fork.start(one.config)
        assert line["pid"] == pid and set(line["commands"]) == {"double"}
        stream = one.attach()
        assert stream.run("double", {"x": 21}) == 42
        assert stream.failure("double", {"x": "1"}).message == "double: x must be int, got str '1'"
        assert carriers({fork.token}) == {pid}
        os.close(fork.lifeline)
        assert fork.said()[0] == {"exited": 1}
        stream.close()
    finally:
        fork.close()


def test_a_forker_forks_what_serves(forker: Any) -> None:
    one = forker()
    assert ready(one) == {"snakepit": 2, "pid": one.pid, "forker": True}
    serves(one)
    one.directory.cleanup()  # an interpreter removes it at the end of its lifeline
    os.mkdir(one.directory.name, 0o700)
    serves(one)
    assert one.process.poll() is None


@pytest.mark.interpreters
@pytest.mark.parametrize(("version", "python"), found().items(), ids=list(found()))
def test_every_python_forks(forker: Any, version: str, python: str) -> None:
    one = forker(python=environment(version, python, "grpcio", "protobuf"))
    assert ready(one)["forker"] is True, one.stderr()
    serves(one)


UNSAFE = {
    "threads": "import _thread, time\n_thread.start_new_thread(time.sleep, (600,))",
    "socket:[": "import socket\nPAIR = socket.socketpair()",
    "pipe:[": "import os\nPIPE = os.pipe()",
    "mine.py, which": "FILE = open(__file__)",
    "processes": "import subprocess\nCHILD = subprocess.Popen(['sleep', '600'])",
    "signals": "import signal\nsignal.signal(signal.SIGUSR1, print)",
    "timer": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 600)",
    "the generator of `random`": "import random\nrandom.seed(1)",
    "mine.RNG is a generator": "import random\nRNG = random.Random(1)",
    "mine.NUMPY is a generator": "import numpy\nNUMPY = numpy.random.default_rng()",
    "__forkable__": "Adapter = type('Adapter', (Adapter,), dict(__forkable__=False))",
    "serves itself": "from snakepit_bridge import BaseCommandHandler, ProtocolHandler\n"
    "ProtocolHandler(BaseCommandHandler()).run()",
}


@pytest.mark.parametrize("why", UNSAFE)
def test_what_is_not_safe_to_fork_is_not_forked(forker: Any, why: str) -> None:
    one = forker(UNSAFE[why], wire="frames")
    error = one.start_error()
    assert error["stage"] == "fork" and why in error["message"]
    assert carriers({one.token}) == set()


@pytest.mark.parametrize(
    "harmless",
    ["import random\nSYSTEM = random.SystemRandom()", "import numpy\nSTATE = numpy.random.mtrand._rand"],
)
def test_what_a_fork_does_not_share_is_safe(forker: Any, harmless: str) -> None:
    assert ready(forker(harmless, wire="frames"))["forker"] is True


def test_what_the_import_raises_is_told(forker: Any) -> None:
    error = forker("1 / 0", wire="frames").start_error()
    assert (error["stage"], error["type"]) == ("import", "ZeroDivisionError")


@pytest.mark.parametrize("when", ["later", "during the import"])
def test_of_a_change_on_the_disk_the_next_order_hears(forker: Any, tmp_path: Path, when: str) -> None:
    one = forker("import os\nos.utime(__file__)" if when == "during the import" else "", wire="frames")
    ready(one)
    if when == "later":
        (tmp_path / "mine.py").write_text(ADAPTER.format(more="# new"))
    fork = one.fork()
    said, descriptors = fork.said()
    assert said == {"refused": f"{tmp_path}/mine.py has changed"} and not descriptors
    fork.close()


def test_no_order_more_is_the_end_once_nothing_runs(forker: Any) -> None:
    one = forker(wire="frames")
    ready(one)
    fork = one.fork()
    _, (pidfd,) = fork.said()
    one.orders.close()
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    assert fork.said()[0] == {"exited": -signal.SIGKILL}
    assert one.wait() == 0
    fork.close()


@pytest.mark.parametrize("end", ["lifeline", "kill"])
def test_the_end_of_the_host_or_of_the_forker_is_the_end_of_all(forker: Any, end: str) -> None:
    one = forker(wire="frames")
    ready(one)
    fork = one.fork()
    _, (pidfd,) = fork.said()
    os.close(pidfd)
    fork.start(one.config)
    if end == "lifeline":
        one.process.stdin.close()
    else:
        one.process.kill()
    one.wait()
    with open(fork.ready, "rb", closefd=False) as file:
        file.read()
    assert not fork.report.recv(100), "nobody says how it ended"
    fork.close()
