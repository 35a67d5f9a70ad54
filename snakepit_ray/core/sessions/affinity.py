"""Which worker each session lives on: the router's side of affinity.

- A session has at most one owner.
- A claim is a compare-and-set that the present live owner wins.
- Versions strictly increase over all changes of all sessions.
- A binding that was not used for `ttl` seconds has ended, swept or not.
- A strict binding is never evicted to make room and never moves silently.
- `now` never goes back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# A rendezvous hash alone spreads n sessions with a deviation of sqrt(n): correct only what is clearly more.
CROWDED_FACTOR = 1.25
CROWDED_SLACK = 2


@dataclass(frozen=True, slots=True)
class Binding(Generic[K]):
    """One session's home. `life`: which life of its owner the session's state is in (an incarnation)."""

    owner: K
    version: int
    used_at: float
    strict: bool
    life: int = 0


@dataclass(frozen=True, slots=True)
class Claim(Generic[K]):
    """The answer to a claim.

    `owner` None: refused, `max_sessions` bindings are alive and none may be evicted. An owner that is not
    in `live` (strict claims only): the session's worker is lost, and only `rebind` moves the session.
    `evicted`: sessions whose bindings ended to make room or by age; end them before the claimed one is
    begun.
    """

    owner: K | None
    version: int
    evicted: list[str]
    created: bool
    life: int = 0

    @property
    def refused(self) -> bool:
        return self.owner is None


class Bindings(Generic[K]):
    """session -> worker, with a sliding `ttl` (seconds) and room for `max_sessions`.

    `version`: all that are given out are greater, so that those of an earlier table are older."""

    def __init__(self, ttl: float, max_sessions: int, version: int = 0) -> None:
        if ttl <= 0 or max_sessions < 1:
            raise ValueError(f"ttl must be > 0 and max_sessions >= 1, got {ttl} and {max_sessions}")
        self.ttl = ttl
        self.max_sessions = max_sessions
        # Both in order of last use, which is the order of expiry too: every binding has the same ttl.
        self._hint: OrderedDict[str, Binding[K]] = OrderedDict()
        self._strict: OrderedDict[str, Binding[K]] = OrderedDict()
        self._sessions: dict[K, dict[str, None]] = {}
        self._version = version

    def __len__(self) -> int:
        return len(self._hint) + len(self._strict)

    def __iter__(self) -> Iterator[str]:
        yield from self._hint
        yield from self._strict

    def __repr__(self) -> str:
        return f"<Bindings {len(self)}/{self.max_sessions} sessions on {len(self._sessions)} workers>"

    @property
    def version(self) -> int:
        """The highest version given out."""
        return self._version

    def counts(self) -> dict[K, int]:
        """Sessions per worker that has any: what `claim` takes as `loads`."""
        return {key: len(sessions) for key, sessions in self._sessions.items()}

    def sessions(self, key: K) -> list[str]:
        """The sessions bound to one worker, oldest binding first."""
        return list(self._sessions.get(key, ()))

    def claim(
        self,
        session: str,
        claimant: K,
        now: float,
        loads: Mapping[K, int],
        live: Set[K],
        *,
        strict: bool = False,
        life: int = 0,
    ) -> Claim[K]:
        """Ask for a session on behalf of `claimant`, the worker that received its request.

        `loads`: sessions per worker; `live`: workers that may own sessions. A new session goes to the
        claimant unless that is not live or holds clearly more than the average. A full table drops expired
        bindings, then, for a hint claim, the least recently used hint bindings; else the claim is refused.
        """
        ended = [session] if self._end_if_expired(session, now) else []
        binding = self._get(session)
        if binding is not None and (binding.owner in live or strict or binding.strict):
            binding = self._put(session, replace(binding, used_at=now, strict=binding.strict or strict))
            return Claim(binding.owner, binding.version, ended, False, binding.life)
        if binding is not None:
            self._drop(session)
        ended += self._make_room(now, strict)
        owner = _choose_owner(claimant, loads, live)
        if owner is None or len(self) >= self.max_sessions:
            return Claim(None, self._version, ended, False)
        life = life if owner == claimant else 0
        return Claim(owner, self._bind(session, owner, now, strict, life), ended, True, life)

    def rebind(self, session: str, key: K, now: float, life: int = 0) -> int:
        """Move (or bind) a session to `key`, whoever had it; returns the new version.

        The one way for a strict session to move. Never refused for room: the session exists already.
        """
        binding = self._drop(session)
        return self._bind(session, key, now, binding is not None and binding.strict, life)

    def restore(self, session: str, key: K, version: int, now: float, strict: bool, life: int = 0) -> bool:
        """Learn a binding from its worker, after the one who knew it was lost; False when one at least as
        new is known. Its ttl starts anew. Never refused for room: the session exists already."""
        known = self._get(session)
        if known is not None and known.version >= version:
            return False
        self._drop(session)
        self._version = max(self._version, version)
        self._put(session, Binding(key, version, now, strict, life))
        self._sessions.setdefault(key, {})[session] = None
        return True

    def enter(self, session: str, life: int) -> None:
        """The session's state is in this life of its owner from now on."""
        binding = self._get(session)
        if binding is not None:
            self._put(session, replace(binding, life=life))

    def touch(self, sessions: Iterable[str], now: float) -> None:
        """These sessions were used: their ttl starts anew. Unknown and expired ones are left alone."""
        for session in sessions:
            binding = self.binding(session, now)
            if binding is not None:
                self._put(session, replace(binding, used_at=now))

    def expire(self, now: float) -> list[str]:
        """End the bindings that were not used for `ttl`; each is returned once."""
        return [*self._expire_in(self._hint, now), *self._expire_in(self._strict, now)]

    def next_expiry(self) -> float | None:
        """When `expire` may have something to end; None when there are no bindings."""
        heads = [next(iter(kind.values())) for kind in (self._hint, self._strict) if kind]
        return min((binding.used_at for binding in heads), default=-self.ttl) + self.ttl if heads else None

    def release(self, session: str) -> bool:
        """The session was deleted; False when it had no binding."""
        return self._drop(session) is not None

    def release_worker(self, key: K) -> list[str]:
        """The worker is gone: drop its bindings and return their sessions."""
        sessions = self.sessions(key)
        for session in sessions:
            self._drop(session)
        return sessions

    def owner(self, session: str, now: float) -> K | None:
        """The session's worker; None when it has none or expired."""
        binding = self.binding(session, now)
        return None if binding is None else binding.owner

    def binding(self, session: str, now: float) -> Binding[K] | None:
        """As `owner`, with version, last use and strictness."""
        binding = self._get(session)
        return None if binding is None or self._is_over(binding, now) else binding

    def _get(self, session: str) -> Binding[K] | None:
        return self._strict.get(session) or self._hint.get(session)

    def _is_over(self, binding: Binding[K], now: float) -> bool:
        return binding.used_at + self.ttl <= now

    def _end_if_expired(self, session: str, now: float) -> bool:
        binding = self._get(session)
        if binding is None or not self._is_over(binding, now):
            return False
        self._drop(session)
        return True

    def _make_room(self, now: float, strict: bool) -> list[str]:
        """More than one may have to go: what is moved or restored is never refused for room."""
        ended = self.expire(now) if len(self) >= self.max_sessions else []
        while not strict and len(self._strict) < self.max_sessions <= len(self):
            oldest = next(iter(self._hint))
            self._drop(oldest)
            ended.append(oldest)
        return ended

    def _bind(self, session: str, key: K, now: float, strict: bool, life: int) -> int:
        self._version += 1
        self._put(session, Binding(key, self._version, now, strict, life))
        self._sessions.setdefault(key, {})[session] = None
        return self._version

    def _put(self, session: str, binding: Binding[K]) -> Binding[K]:
        kind, other = (self._strict, self._hint) if binding.strict else (self._hint, self._strict)
        other.pop(session, None)
        kind[session] = binding
        kind.move_to_end(session)
        return binding

    def _drop(self, session: str) -> Binding[K] | None:
        binding = self._strict.pop(session, None) or self._hint.pop(session, None)
        if binding is not None:
            held = self._sessions[binding.owner]
            del held[session]
            if not held:
                del self._sessions[binding.owner]
        return binding

    def _expire_in(self, kind: OrderedDict[str, Binding[K]], now: float) -> list[str]:
        ended = []
        while kind and self._is_over(next(iter(kind.values())), now):
            session = next(iter(kind))
            self._drop(session)
            ended.append(session)
        return ended


def _choose_owner(claimant: K, loads: Mapping[K, int], live: Set[K]) -> K | None:
    """The claimant, or the least loaded live worker when the claimant is crowded or not live."""
    if not live:
        return None
    average = sum(loads.get(key, 0) for key in live) / len(live)
    held = loads.get(claimant, 0)
    if claimant in live and held <= CROWDED_FACTOR * average + CROWDED_SLACK:
        return claimant
    return min(live, key=lambda key: (loads.get(key, 0), repr(key)))
