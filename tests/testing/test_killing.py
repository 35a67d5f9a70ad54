"""How strikes fall on what is alive, with processes of this test in the place of interpreters."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from snakepit_ray.testing import killing, machine
from snakepit_ray.testing.killing import Killer
from snakepit_ray.testing.plan import Strike, Target
from snakepit_ray.testing.witness import Incarnation, Witnessed

WAIT = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Witnessed]:
    """Three living processes that carry tokens, as the witness would tell of them."""
    monkeypatch.setattr(machine, "supervised", machine.serves)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes, found = [], Witnessed()
    for _ in range(3):
        token = secrets.token_hex(8)
        environ = {**os.environ, "SNAKEPIT_TOKEN": token}
        one = subprocess.Popen([sys.executable, "-c", WAIT], env=environ, text=True, **pipes)
        one.stdout.readline()
        processes.append(one)
        found.incarnations[token] = Incarnation(token, one.pid, os.getpid())
    yield found
    for one in processes:
        one.kill()
        one.communicate()


def struck(seen: Witnessed, strikes: list[Strike]) -> Killer:
    killer = Killer("p", strikes, lambda: seen)
    killer.start(time.monotonic())
    killer.stop()
    return killer


def test_strikes_fall_on_those_alive_and_then_on_nobody(
    seen: Witnessed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killing, "PATIENCE_SECONDS", 0.1)
    strikes = [Strike(0.02 * i, Target.INTERPRETER, choice) for i, choice in enumerate((0.5, 0.9, 0.0, 0.3))]
    killer = struck(seen, strikes)
    tokens = list(seen.incarnations)
    assert [killed.token for killed in killer.killed] == [tokens[1], tokens[2], tokens[0]]
    assert killer.missed == 1
    assert not any(machine.serves(one) for one in seen.incarnations.values())
    assert all(killed.at >= strike.at for killed, strike in zip(killer.killed, strikes, strict=False))


def test_a_plan_without_strikes(seen: Witnessed) -> None:
    killer = struck(seen, [])
    assert (killer.killed, killer.missed) == ([], 0)


def test_a_broken_look_is_not_silent(seen: Witnessed) -> None:
    def look() -> Witnessed:
        raise OSError("the log is gone")

    killer = Killer("p", [Strike(0.0, Target.INTERPRETER, 0.0)], look)
    killer.start(time.monotonic())
    with pytest.raises(OSError, match="the log is gone"):
        killer.stop()
