"""What storms know of this machine: who carries a token, what is killed, which files are stale."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from snakepit_ray.testing import machine
from snakepit_ray.testing.witness import Incarnation
from tests.conftest import wait_until

WAIT = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that carries a token, and the token."""
    token = secrets.token_hex(8)
    environ = {**os.environ, "SNAKEPIT_TOKEN": token}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", WAIT], env=environ, text=True, **pipes) as one:
        one.stdout.readline()
        yield one, token
        one.kill()


def test_a_process_is_known_by_its_token(process: tuple[subprocess.Popen[str], str]) -> None:
    one, token = process
    assert (machine.token_of(one.pid), machine.token_of(os.getpid())) == (token, None)
    assert machine.carriers({token, "other"}) == {one.pid: token}
    assert machine.serves(Incarnation(token, one.pid, 1))
    assert not machine.serves(Incarnation("other", one.pid, 1)), "its pid came back as another's"
    assert not machine.supervised(Incarnation(token, one.pid, os.getpid())), "we are not Ray's"
    assert not machine.is_rays(one.pid)


def test_only_what_is_recognised_is_killed(process: tuple[subprocess.Popen[str], str]) -> None:
    one, token = process
    assert not machine.kill(one.pid, lambda: False)
    assert machine.is_alive(one.pid)
    assert machine.kill(one.pid, lambda: machine.token_of(one.pid) == token)
    wait_until(lambda: not machine.is_alive(one.pid), what="it is gone")
    one.wait()
    assert not machine.kill(one.pid, lambda: True)


def test_directories_are_those_of_the_processes(process: tuple[subprocess.Popen[str], str]) -> None:
    one, _ = process
    assert machine.directories([one.pid]) == {os.environ["TMPDIR"]}
    assert machine.directories([]) == {os.environ["TMPDIR"]}


def test_a_socket_directory_is_stale_when_nobody_listens(tmp_path: Path) -> None:
    served, dead, empty = (tmp_path / f"snakepit-{name}" for name in ("served", "dead", "empty"))
    for place in (served, dead, empty):
        place.mkdir()
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(str(served / "s"))
        one.listen()
        other.bind(str(dead / "s"))
    with socket.socket(socket.AF_UNIX) as one:
        (served / "s").unlink()
        one.bind(str(served / "s"))
        one.listen()
        new = machine.files([str(tmp_path)])
        assert {str(served), str(dead), str(empty)} <= new
        stale = list(machine.stale_files({path for path in new if path.startswith(str(tmp_path))}, ["x"]))
    assert stale == [f"socket directory {dead}", f"socket directory {empty}"]


def test_a_file_is_stale_when_it_names_us(tmp_path: Path) -> None:
    registry, other = tmp_path / "snakepit-registry", tmp_path / "snakepit-other"
    registry.mkdir()
    (registry / "12").write_text('{"pid": 12, "token": "abc"}')
    (registry / "13").write_text('{"pid": 13, "token": "xyz"}')
    other.write_text("journal of pool-7")
    assert list(machine.stale_files(map(str, [registry, other]), ["abc", "pool-3"])) == [
        f"file {registry}/12"
    ]
    assert list(machine.stale_files([str(other)], ["pool-7"])) == [f"file {other}"]
