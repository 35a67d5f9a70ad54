"""A storm from its first request to what it left: sends at a rate, kills to a plan, accounts for all.

- The pool's adapter is the witness, whose log this process can read.
- The pool is one of this machine as far as it is killed.
- What is counted is decided in accounting.py and plan.py, without Ray.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakepit_ray.client.pool import Pool
from snakepit_ray.errors import ConfigError, SnakepitError
from snakepit_ray.port import ray_port
from snakepit_ray.testing import ADAPTERS, WITNESS, machine
from snakepit_ray.testing.accounting import Aftermath, Storming, StormResult, account
from snakepit_ray.testing.killing import Killer
from snakepit_ray.testing.plan import plan_strikes
from snakepit_ray.testing.sending import Callers, Load
from snakepit_ray.testing.witness import Witnessed, read

RECOVERY_SECONDS = 60.0
GONE_SECONDS = 10.0
LOOK_SECONDS = 0.05


def witness_settings(log: str | Path) -> dict[str, Any]:
    """Pool settings that make a pool fit for storms: the witness as its adapter, writing to `log`."""
    return {"adapter": WITNESS, "adapter_args": {"path": str(log)}}


@dataclass(frozen=True, kw_only=True)
class Storm:
    """What is to happen: `kills` strikes on interpreters, actors, router or everything within `seconds`,
    while requests of `request_seconds` each come at `rate` a second (None: half of what the pool can do).

    `timeout` is the whole budget of each request; `end_pool` shuts the pool down afterwards and looks for
    what it left behind."""

    kill: str = "interpreters"
    kills: int = 60
    seconds: float = 60.0
    rate: float | None = None
    idempotent: bool = True
    seed: int = 0
    request_seconds: float = 0.1
    timeout: float = 30.0
    callers: int = 4
    end_pool: bool = False

    def run(self, pool: Pool) -> StormResult:
        """The storm. Blocks until every request has its outcome and the pool is whole again or has had
        RECOVERY_SECONDS for it. Raises ConfigError when the pool's adapter is no witness."""
        log = witness_log(pool)
        strikes = plan_strikes(self.kill, self.kills, self.seconds, random.Random(self.seed))
        scene = _Scene(pool, log)
        callers = Callers(pool, self._load(pool.name, scene.size * pool.config.capacity))
        killer = Killer(pool.name, strikes, scene.look)
        began = time.monotonic()
        callers.start(began)
        killer.start(began)
        outcomes = callers.join()
        killer.stop()
        seconds = time.monotonic() - began
        after = scene.aftermath(self.end_pool)
        storming = Storming(
            self.seed, self.idempotent, seconds, outcomes, killer.killed, killer.missed, began
        )
        return account(storming, scene.look(), after)

    def _load(self, pool: str, slots: int) -> Load:
        rate = self.rate or slots / max(self.request_seconds, 0.001) / 2
        options = {"timeout": self.timeout, "idempotent": self.idempotent}
        name = f"{pool}-{self.seed}-{secrets.token_hex(3)}"
        return Load(name, rate, self.seconds, self.request_seconds, self.callers, options)


def witness_log(pool: Pool) -> Path:
    """Where the pool's witness writes. Raises ConfigError when its adapter is none, or writes elsewhere."""
    path, _, name = pool.config.adapter.partition(":")
    log = pool.config.adapter_args.get("path")
    ours = os.path.basename(path) == os.path.basename(ADAPTERS) and name in ("Witness", "Misbehaving")
    if not ours or not log:
        raise ConfigError(
            f"pool {pool.name!r}: a storm needs the witness as its adapter, to know what ran; got "
            f"{pool.config.adapter!r}; start one with adapter={WITNESS!r}, "
            'adapter_args={"path": LOG_FILE}, or let the storm start its own (snakepit-ray chaos --start)',
            key="adapter",
        )
    if not os.access(log, os.R_OK):
        raise ConfigError(
            f"pool {pool.name!r}: its witness writes to {log}, which cannot be read here; run the storm on "
            "the machine of the pool",
            key="adapter_args",
        )
    return Path(log)


class _Scene:
    """Where a storm happens: the pool, the witness's log, and what was on the machine before."""

    def __init__(self, pool: Pool, log: Path) -> None:
        self._pool = pool
        self._log = log
        workers = pool.workers()
        self.size = len(workers)
        self._node = ray_port.node_id()
        self._workers = {worker.worker_id for worker in workers}
        self._places = machine.directories(worker.actor_pid for worker in workers)
        self._files = machine.files(self._places)
        self._pids = {worker.pid for worker in workers}

    def look(self) -> Witnessed:
        """The witness's log as it is."""
        return read(self._log.read_text(errors="replace").splitlines())

    def aftermath(self, end_pool: bool) -> Aftermath:
        """What there is when all is over."""
        size, began = self.size, time.monotonic()
        _wait(lambda: self._ready() >= size, RECOVERY_SECONDS)
        ready, recovered = self._ready(), time.monotonic() - began
        if end_pool:
            self._pool.shutdown()
        _wait(lambda: not self._left(end_pool), GONE_SECONDS)
        return Aftermath(size, ready, recovered, tuple(self._left(end_pool)))

    def _ready(self) -> int:
        try:
            workers = self._pool.workers()
        except (SnakepitError, ray_port.RayError):  # its router is coming back
            return 0
        self._workers |= {worker.worker_id for worker in workers}
        ready = [worker for worker in workers if worker.state == "ready" and worker.pid]
        here = {worker.pid for worker in ready if worker.node_id == self._node}
        # The router tells what a worker said last: one whose interpreter has just gone may still say ready.
        gone = {pid for pid in here if not machine.is_alive(pid)}
        self._pids = here - gone
        return len(ready) - len(gone)

    def _left(self, ended: bool) -> list[str]:
        """In words, what should not be there any more."""
        seen = self.look().incarnations
        present = set() if ended else {machine.token_of(pid) for pid in self._pids}
        gone = set(seen) - present
        left = [f"process {pid} of interpreter {token}" for pid, token in machine.carriers(gone).items()]
        names = {*gone, *(self._workers if ended else ())}
        new = machine.files(self._places) - self._files
        return [*left, *(self._actors_left() if ended else ()), *machine.stale_files(new, names)]

    def _actors_left(self) -> list[str]:
        parents = {one.parent for one in self.look().incarnations.values()}
        left = [f"actor process {pid}" for pid in sorted(parents) if machine.is_rays(pid)]
        left += [f"actor {worker}" for worker in sorted(self._workers) if _exists(worker)]
        return left + [f"router {name}" for name in ray_port.pool_names() if name == self._pool.name]


def _exists(worker_id: str) -> bool:
    try:
        ray_port.find_worker(worker_id)
    except ValueError:
        return False
    return True


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    """Until it is so, or the time is up."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        threading.Event().wait(LOOK_SECONDS)
