"""How a storm's strikes fall: at their time, on what is alive then.

- Victims are known from the witness's log, so that killing needs no router.
- A strike that finds nobody alive waits for somebody, then counts as missed.
- Nothing is killed after `stop`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

from snakepit_ray.errors import SnakepitError
from snakepit_ray.port import ray_port
from snakepit_ray.testing import machine
from snakepit_ray.testing.accounting import Killed
from snakepit_ray.testing.plan import Strike, Target
from snakepit_ray.testing.witness import Incarnation, Witnessed

PATIENCE_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 0.05
ROUTER_SECONDS = 2.0


class Killer:
    """A thread that carries out `strikes` against the pool of that name. `look` reads the witness's log."""

    def __init__(self, pool: str, strikes: Sequence[Strike], look: Callable[[], Witnessed]) -> None:
        self.killed: list[Killed] = []
        self.missed = 0
        self._pool = pool
        self._strikes = strikes
        self._look = look
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="storm-killer", daemon=True)

    def start(self, began: float) -> None:
        """Begins; strikes fall at `began` (monotonic) and their own time after it."""
        self._began = began
        self._thread.start()

    def stop(self) -> None:
        """Waits until every strike has fallen or was missed. Raises what broke the killer, if anything
        did."""
        self._thread.join((self._strikes[-1].at if self._strikes else 0.0) + PATIENCE_SECONDS * 2)
        self._over.set()
        self._thread.join()
        if self._failed:
            raise self._failed[0]

    def _run(self) -> None:
        try:
            self._strike_all()
        except BaseException as error:  # noqa: BLE001 - raised again where the storm waits for us
            self._failed.append(error)

    def _strike_all(self) -> None:
        for number, strike in enumerate(self._strikes):
            if self._over.wait(max(0.0, self._began + strike.at - time.monotonic())):
                self.missed += len(self._strikes) - number
                return
            killed = self._strike(strike)
            if killed is None:
                self.missed += 1
            else:
                self.killed.append(killed)

    def _strike(self, strike: Strike) -> Killed | None:
        hit = {
            Target.INTERPRETER: self._interpreter,
            Target.ACTOR: self._actor,
            Target.ROUTER: self._router,
        }[strike.target]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            killed = hit(strike)
            if killed is not None:
                return killed
            if time.monotonic() > deadline or self._over.wait(LOOK_AGAIN_SECONDS):
                return None

    def _interpreter(self, strike: Strike) -> Killed | None:
        victim = self._victim(strike)
        if victim is None:
            return None
        return self._kill(strike.target, victim.pid, victim.token, lambda: machine.serves(victim))

    def _actor(self, strike: Strike) -> Killed | None:
        victim = self._victim(strike)
        if victim is None:
            return None
        return self._kill(strike.target, victim.parent, victim.token, lambda: machine.supervised(victim))

    def _router(self, strike: Strike) -> Killed | None:
        with contextlib.suppress(SnakepitError, ray_port.RayError):  # it is down: it is asked again
            router = ray_port.find_router(self._pool)
            pid: int = ray_port.get(router.get_pid.remote(), ROUTER_SECONDS, self._pool)
            return self._kill(strike.target, pid, "", lambda: machine.is_rays(pid))
        return None

    def _victim(self, strike: Strike) -> Incarnation | None:
        alive = [one for one in self._look().incarnations.values() if machine.supervised(one)]
        return strike.victim(alive) if alive else None

    def _kill(self, target: Target, pid: int, token: str, is_it: Callable[[], bool]) -> Killed | None:
        at = time.monotonic() - self._began
        return Killed(target, pid, token, at) if machine.kill(pid, is_it) else None
