"""Processes that carry a token, and owners that can be killed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from snakepit_ray.process import registry, tree
from snakepit_ray.process.launch import TOKEN_VARIABLE

ROOT = Path(__file__).resolve().parents[2]

# An interpreter that has started something in a session of its own and waits; it has no lifeline.
FAMILY = """
import os, subprocess, sys, time
other = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(os.getpid(), other.pid, flush=True)
time.sleep(600)
"""

OWNER = """
import json, os, subprocess, sys, time
from snakepit_ray.process import registry
token, worker, base, directory, say_started = json.loads(sys.argv[1])
entry = registry.register(token, worker, "pool", directory, base=base)
env = {**os.environ, "SNAKEPIT_TOKEN": token}
child = subprocess.Popen([sys.executable, "-c", sys.argv[2]], env=env, stdout=subprocess.PIPE, text=True)
pids = child.stdout.readline().split()
if say_started:
    entry.started(child.pid)
print(*pids, flush=True)
time.sleep(600)
"""


class Owner(NamedTuple):
    """A process that registered an incarnation and started it: `pids` of the interpreter and its child."""

    process: subprocess.Popen[str]
    token: str
    directory: Path
    pids: tuple[int, ...]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def clean() -> Iterator[list[tuple[str, subprocess.Popen[Any]]]]:
    """Tokens and processes that end with the test, whatever it found."""
    started: list[tuple[str, subprocess.Popen[Any]]] = []
    yield started
    for token, process in started:
        tree.send(token, signal.SIGKILL)
        process.kill()
        process.communicate()


@pytest.fixture
def carrier(clean: list[tuple[str, subprocess.Popen[Any]]]) -> Callable[[str], int]:
    """Starts a process that carries the given token; its pid."""

    def start(token: str) -> int:
        process = subprocess.Popen(["sleep", "600"], env={**os.environ, TOKEN_VARIABLE: token})
        clean.append((token, process))
        return process.pid

    return start


@pytest.fixture
def owner(tmp_path: Path, clean: list[tuple[str, subprocess.Popen[Any]]]) -> Callable[..., Owner]:
    """Starts another process that owns an interpreter with a child in a session of its own."""

    def start(worker: str = "w-0", say_started: bool = True) -> Owner:
        token = secrets.token_hex(16)
        directory = tmp_path / f"snakepit-{token[:8]}"
        directory.mkdir(mode=0o700)
        (directory / "s").touch()
        words = json.dumps([token, worker, str(tmp_path), str(directory), say_started])
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, words, FAMILY],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        clean.append((token, process))
        pids = tuple(map(int, process.stdout.readline().split()))
        assert len(pids) == 2, "the owner did not start"
        return Owner(process, token, directory, pids)

    return start


def killed(program: str, base: Path) -> None:
    """Runs a program that is told `base` and ends by SIGKILL."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", program, str(base)], env=env, timeout=60)
    assert ended.returncode == -signal.SIGKILL


def alive(pid: int) -> bool:
    return tree.identity(pid) is not None


def write_entry(base: Path, token: str, /, **changes: Any) -> Path:
    """An entry of this process, but for `changes`: owners that are gone, times that are long ago."""
    entry = registry.register(token, "w-0", "pool", str(base / "none"), base=base)
    entry.path.write_text(json.dumps({**json.loads(entry.path.read_text()), **changes}))
    return entry.path


GONE = {"owner_started": "1"}  # this process's pid, but it started at another time: the owner is gone
