"""Two pools share sessions, one with hints and one strict, while everything that can die does: what callers
and commands see of the variables is linearizable."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.port.naming import NAMESPACE
from snakepit_ray.port.store_actor import STORE
from snakepit_ray.store import spawn
from tests.conftest import wait_until
from tests.core.linear import check_register
from tests.ray.conftest import adapter
from tests.scale import OPERATIONS

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]
SESSIONS = [f"storm-{number}" for number in range(6)]
PARTIES = 8
BETWEEN = 100  # operations between two faults
STILL_SECONDS = 3.0  # of a worker that stands still: longer than a lease


class Seen(NamedTuple):
    """What one party knows: the variable had this version and value at some moment between two."""

    session: str
    version: int
    value: int
    began: float
    ended: float
    wrote: bool


class Party(threading.Thread):
    """Reads and writes, as a caller or by commands, until it is told to stop."""

    def __init__(self, number: int, pools: list[snakepit.Pool], over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._rng = random.Random(number)
        self._number = number
        self._pools = pools
        self._over = over
        self.seen: list[Seen] = []
        self.asked: dict[str, set[int]] = {session: set() for session in SESSIONS}
        self.failures: list[BaseException] = []

    def run(self) -> None:
        count = 0
        while not self._over.is_set():
            count += 1
            session = self._rng.choice(SESSIONS)
            pool, is_command = self._rng.choice(self._pools), self._rng.random() < 0.7
            try:
                if self._rng.random() < 0.3:
                    self._write(pool, session, count * PARTIES + self._number, is_command)
                else:
                    self._read(pool, session, is_command)
            except (snakepit.SnakepitError, ray.exceptions.RayError):
                pass  # whoever died took it along; a write may have taken effect once
            except BaseException as error:
                self.failures.append(error)
                return

    def _read(self, pool: snakepit.Pool, session: str, is_command: bool) -> None:
        began = time.monotonic()
        if is_command:
            value, version = self._command(pool, session, "get_versioned", "x")
        else:
            value, version = pool.session(session).variables.get_versioned("x")
        self.seen.append(Seen(session, version, value, began, time.monotonic(), wrote=False))

    def _write(self, pool: snakepit.Pool, session: str, value: int, is_command: bool) -> None:
        self.asked[session].add(value)
        began = time.monotonic()
        if is_command:
            version = self._command(pool, session, "set", "x", value)
        else:
            version = pool.session(session).variables.set("x", value)
        self.seen.append(Seen(session, version, value, began, time.monotonic(), wrote=True))

    def _command(self, pool: snakepit.Pool, session: str, method: str, *args: Any) -> Any:
        strict = {"rebind": True} if pool is self._pools[1] else {}
        return pool.execute("call", {"method": method, "args": list(args)}, session=session, **strict)


@pytest.fixture
def pools(cluster: None) -> Iterator[list[snakepit.Pool]]:
    settings: dict[str, Any] = {"adapter": adapter("stateful.py:Stateful"), "size": 2}
    with (
        snakepit.start(name="storm-hint", **settings) as hint,
        snakepit.start(name="storm-strict", affinity="strict_queue", **settings) as strict,
    ):
        yield [hint, strict]
        for session in SESSIONS:
            hint.sessions.delete(session)
    spawn.end()


def kill_store(pools: list[snakepit.Pool], rng: random.Random) -> None:
    actor = ray.get_actor(STORE, NAMESPACE)
    os.kill(ray.get(actor.get_pid.options(max_task_retries=-1).remote()), signal.SIGKILL)


def kill_interpreter(pools: list[snakepit.Pool], rng: random.Random) -> None:
    _signal(rng.choice(rng.choice(pools).workers()).pid, signal.SIGKILL)


def kill_worker(pools: list[snakepit.Pool], rng: random.Random) -> None:
    _signal(rng.choice(rng.choice(pools).workers()).actor_pid, signal.SIGKILL)


def stop_worker(pools: list[snakepit.Pool], rng: random.Random) -> None:
    pid = rng.choice(rng.choice(pools).workers()).actor_pid
    _signal(pid, signal.SIGSTOP)
    time.sleep(STILL_SECONDS)  # the fault itself, and no wait for anything
    _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


FAULTS: list[Callable[[list[snakepit.Pool], random.Random], None]] = [
    kill_store,
    kill_interpreter,
    kill_worker,
    stop_worker,
]


def test_what_all_see_is_linearizable_whoever_dies(pools: list[snakepit.Pool]) -> None:
    for session in SESSIONS:
        pools[0].session(session).variables.register("x", "integer", 0)
    rng, over = random.Random(7), threading.Event()
    parties = [Party(number, pools, over) for number in range(PARTIES)]
    for party in parties:
        party.start()
    happened = 0
    while sum(len(party.seen) for party in parties) < OPERATIONS:
        assert not [party.failures for party in parties if party.failures]
        assert any(party.is_alive() for party in parties)
        FAULTS[happened % len(FAULTS)](pools, rng)
        happened += 1
        done = sum(len(party.seen) for party in parties) + BETWEEN
        wait_until(lambda done=done: sum(len(party.seen) for party in parties) >= done, 120, "they go on")
    over.set()
    for party in parties:
        party.join()
    print(f"{sum(len(party.seen) for party in parties)} operations, {happened} faults")
    for session in SESSIONS:
        check(session, parties, pools[0].session(session).variables)


def check(session: str, parties: list[Party], variables: Any) -> None:
    seen = [one for party in parties for one in party.seen if one.session == session]
    check_register(seen)
    asked = {0}.union(*(party.asked[session] for party in parties))
    assert {one.value for one in seen} <= asked, "a value that nobody has written"
    value, version = variables.get_versioned("x")
    assert version >= max(one.version for one in seen), "acknowledged and lost"
    assert version <= len(asked), "a write took effect twice"
    assert value in asked
