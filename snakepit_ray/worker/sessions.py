"""Which sessions are this worker's own, and which of its interpreters has the state of each, also after its
process was killed.

- A session that is known to be its own costs no message.
- A strict session whose state is in an interpreter that is gone is lost until its caller says `rebind`,
  whoever died along with that.
- What a process before this one knew holds once the router has confirmed it. Hints are not written down:
  their state went with the interpreter, and without it one worker is as good as another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from snakepit_ray import telemetry
from snakepit_ray.config import PoolConfig
from snakepit_ray.errors import PoolNotFound, SessionQuotaExceeded, SessionWorkerLost
from snakepit_ray.port import ray_port
from snakepit_ray.port.messages import Claimed, Owned
from snakepit_ray.process.session_log import Home, SessionLog
from snakepit_ray.supervisor import OnSlot, Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb

CLAIM_AGAIN = 0.5  # of session_ttl: a session is claimed anew long before the router may have let it expire
Ask = Callable[[str, bool, bool, int], Awaitable[Claimed | None]]


class Ownership(NamedTuple):
    """A session of this worker: when the router last confirmed it (monotonic) and under which version, and
    which interpreter has its state (None: none). `recalled`: an earlier process knew it, and the router was
    not asked since."""

    claimed_at: float
    epoch: tuple[int, int] | None
    version: int = 0
    strict: bool = False
    recalled: bool = False


class OwnSessions:
    """The sessions of one worker. `ask(session, strict, rebind, life)` claims one at the router; a strict one
    waits for a router that is being restarted, another gets RayError."""

    def __init__(
        self,
        supervisor: Supervisor,
        config: PoolConfig,
        worker_id: str,
        log: SessionLog,
        ask: Ask,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock  # what is written down is of it: an earlier process had another clock
        self._supervisor = supervisor
        self._first: set[str] = set()  # strict sessions of whom one request has entered this interpreter
        self._config = config
        self._worker_id = worker_id
        self._log = log
        self._ask = ask
        self._claims: dict[str, asyncio.Future[Claimed]] = {}
        # Told of a strict session that has come from another worker, before its first request runs here.
        self.moved_here: Callable[[str, int], Awaitable[None]] = _nobody_is_told
        self._mine: dict[str, Ownership] = {}
        self._recall()

    async def claim(self, session: str, strict: bool, rebind: bool) -> Claimed | None:
        """None: the session is this worker's. Otherwise who owns it.

        Raises SessionQuotaExceeded."""
        now = self._clock()
        mine = self._mine.get(session)
        if mine is None or mine.recalled or self._is_due(mine, now):
            claimed = await self._claim_once(session, strict, rebind)
            if claimed.owner != self._worker_id:
                self._forget(session)
                return claimed
            if strict and rebind and claimed.version != (mine.version if mine else 0):
                await self.moved_here(session, claimed.version)
            epoch = mine.epoch if mine else self._earlier(claimed, rebind)
            self._keep(session, Ownership(now, epoch, claimed.version, strict or bool(mine and mine.strict)))
        return None

    def check(self, session: str) -> None:
        """Raises SessionWorkerLost when the interpreter that holds a strict session's state is not the one
        that serves now."""
        mine, epoch = self._mine.get(session), self._epoch()
        if mine is not None and mine.epoch not in (None, epoch):
            why = self._supervisor.why_ended(mine.epoch[1]) if mine.epoch[0] == epoch[0] else "crashed"
            about = {"session": session, "pool": self._config.name, "worker_id": self._worker_id}
            telemetry.emit("session.lost", {}, {**about, "reason": why})
            raise SessionWorkerLost.of(session, why, mine.epoch, epoch)

    async def binding(self, session: str) -> int | None:
        """Under which version a strict session is this worker's; None where it is another's."""
        mine = self._mine.get(session)
        if mine is None or not mine.version:  # it came from another worker, which had asked the router
            claimed = await self._claim_once(session, True, False)
            if claimed.owner != self._worker_id:
                return None
            mine = self._mine.get(session, Ownership(self._clock(), None))
            self._keep(session, mine._replace(version=claimed.version))
            return claimed.version
        return mine.version

    def on_slot(self, request: pb.Request) -> OnSlot | None:
        """What is to be called when a strict session's request has its slot; None for any other request.

        Raises SessionWorkerLost at once, not after a wait for the next interpreter."""
        options = request.options
        if not (request.session and options.affinity):
            return None
        if not options.rebind:
            self.check(request.session)
        return partial(self.enter, request.session, options.rebind)

    def enter(self, session: str, rebind: bool) -> Callable[[], None] | None:
        """A strict session's request is about to run: `check`, unless the caller accepts another interpreter
        with `rebind`; from now on the state is in the one that serves. What takes that back, for a request
        that is the session's first there and never begins; None where another was there before."""
        if not rebind:
            self.check(session)
        now = self._clock()
        before = self._mine.get(session)
        mine = before or Ownership(now, None)
        # One that another worker has sent here was confirmed by the router just now.
        claimed_at = now if self._is_due(mine, now) else mine.claimed_at
        entered = mine._replace(claimed_at=claimed_at, epoch=self._epoch(), strict=True)
        if mine.epoch == entered.epoch:
            self._first.discard(session)
        else:
            self._first.add(session)
        if entered != mine:
            self._keep(session, entered)
        return partial(self._leave, session, before, entered) if session in self._first else None

    def _leave(self, session: str, before: Ownership | None, entered: Ownership) -> None:
        if session not in self._first or self._mine.get(session) != entered:
            return
        self._first.discard(session)
        self._forget(session)
        if before is not None:
            self._keep(session, before)

    def disown(self, sessions: list[str]) -> None:
        """The router says that these sessions live elsewhere, or not at all."""
        for session in sessions:
            self._forget(session)

    def owned(self) -> list[Owned]:
        """What a router that was restarted learns."""
        now, ttl = self._clock(), self._config.session_ttl
        return [
            Owned(session, mine.version, mine.strict, (mine.epoch or self._epoch())[0])
            for session, mine in self._mine.items()
            if now - mine.claimed_at < ttl
        ]

    # ---- what is known ------------------------------------------------------------------------------------

    def _recall(self) -> None:
        for session, home in list(self._log.homes.items()):
            age = max(0.0, self._wall_clock() - home.confirmed_at)
            if age < self._config.session_ttl:
                claimed_at = self._clock() - age
                self._mine[session] = Ownership(claimed_at, home.epoch, home.version, True, recalled=True)
            else:
                self._log.drop(session)

    def _keep(self, session: str, mine: Ownership) -> None:
        self._mine.pop(session, None)  # the least recently claimed are the first, and first to be forgotten
        self._mine[session] = mine
        if mine.strict and mine.epoch is not None:
            confirmed_at = self._wall_clock() - (self._clock() - mine.claimed_at)
            self._log.keep(session, Home(confirmed_at, mine.epoch, mine.version))
        while len(self._mine) > self._config.max_sessions:
            self._forget(next(iter(self._mine)))

    def _forget(self, session: str) -> None:
        self._mine.pop(session, None)
        self._first.discard(session)
        self._log.drop(session)

    def _is_due(self, mine: Ownership, now: float) -> bool:
        return now - mine.claimed_at > self._config.session_ttl * CLAIM_AGAIN

    def _epoch(self) -> tuple[int, int]:
        incarnation, number = self._supervisor.epoch
        return incarnation, number

    # ---- claims -------------------------------------------------------------------------------------------

    def _earlier(self, claimed: Claimed, rebind: bool) -> tuple[int, int] | None:
        """Where the state of a session is that this process has never seen: in a life before this one, or
        nowhere yet."""
        lost = claimed.life not in (0, self._epoch()[0]) and not rebind
        return (claimed.life, 0) if lost else None

    async def _claim_once(self, session: str, strict: bool, rebind: bool) -> Claimed:
        """One claim at the router for all requests of a session that arrive together."""
        pending = self._claims.get(session)
        if pending is None:
            pending = self._claims[session] = asyncio.ensure_future(self._claim(session, strict, rebind))
            pending.add_done_callback(lambda _: self._claims.pop(session, None))
        return await asyncio.shield(pending)

    async def _claim(self, session: str, strict: bool, rebind: bool) -> Claimed:
        try:
            claimed = await self._ask(session, strict, rebind, self._epoch()[0])
        except (ray_port.RayError, PoolNotFound):
            # Without a router nobody can move the session either: it lives where its caller sent it. A strict
            # one gets here only when the router is gone for good.
            return Claimed(self._worker_id, None, 0)
        if claimed is None:
            limit = self._config.max_sessions
            raise SessionQuotaExceeded.of("max_sessions", limit, limit)
        return claimed


async def _nobody_is_told(session: str, version: int) -> None:
    pass
