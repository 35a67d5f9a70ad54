"""Which worker each session lives on, as the router answers it: claims, and what workers say of their own
sessions after the router was restarted.

- core/sessions/affinity.py decides.
- Handles learn each new binding.
- A worker that believes a session to be its own that lives elsewhere is told so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from snakepit_ray import telemetry
from snakepit_ray.config import PoolConfig
from snakepit_ray.core.sessions.affinity import Bindings
from snakepit_ray.port.messages import Claimed, Owned
from snakepit_ray.router.members import Members
from snakepit_ray.router.updates import Updates


class Claims:
    """The sessions of one pool. `generation`: versions that are given out are greater."""

    def __init__(
        self,
        config: PoolConfig,
        generation: int,
        members: Members,
        updates: Updates,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._bindings: Bindings[str] = Bindings(config.session_ttl, config.max_sessions, generation)
        self._pool = config.name
        self._members = members
        self._updates = updates

    def __len__(self) -> int:
        return len(self._bindings)

    def knows(self, session: str) -> bool:
        """Whether it has an owner."""
        return self._bindings.owner(session, self._clock()) is not None

    def claim(self, session: str, claimant: str, strict: bool, rebind: bool, life: int) -> Claimed | None:
        """Who owns `session`: its present owner, or from now on `claimant`, which is in that `life` (its
        actor's incarnation). None: no room for another session."""
        bindings, now = self._bindings, self._clock()
        ready = {member.worker_id for member in self._members.ready()}
        claim = bindings.claim(session, claimant, now, bindings.counts(), ready, strict=strict, life=life)
        if claim.owner is None:
            return None
        owner, version = claim.owner, claim.version
        if owner not in ready and rebind:
            owner, version = claimant, bindings.rebind(session, claimant, now, life)
        elif owner == claimant and (rebind or not claim.life):
            bindings.enter(session, life)
        if claim.created or owner != claim.owner:
            self._updates.bound(session, owner, version)
            self._tell(session, owner, None if claim.created else claim.owner)
        member = self._members.by_id.get(owner)
        if member is None:
            return Claimed(owner, None, version, claim.life)
        return Claimed(owner, member.actor, version, claim.life, member.lane)

    def _tell(self, session: str, owner: str, before: str | None) -> None:
        about = {"session": session, "pool": self._pool}
        if before is not None:
            telemetry.emit("affinity.broken", {}, {**about, "worker_id": before, "reason": "rebind"})
        telemetry.emit("affinity.assigned", {}, {**about, "worker_id": owner})

    def learn(self, worker_id: str, sessions: Iterable[Owned]) -> None:
        """A worker says which sessions are its own."""
        now = self._clock()
        stale = [owned.session for owned in sessions if not self._is_of(owned, worker_id, now)]
        if stale:
            self._members.by_id[worker_id].actor.disown.remote(stale)

    def _is_of(self, owned: Owned, worker_id: str, now: float) -> bool:
        restored = self._bindings.restore(
            owned.session, worker_id, owned.version, now, owned.strict, owned.life
        )
        return restored or self._bindings.owner(owned.session, now) == worker_id
