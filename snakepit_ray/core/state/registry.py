"""Which sessions there are: made and joined, used, expired, deleted, counted.

- A session that was not used for its `ttl` has expired, swept or not: it was used last at `used_at`, and is
  alive until `used_at + ttl`, that moment included.
- A session that is made again has another generation, so that nobody takes it for the one that was.
- `ttl` is the session's, of whoever made it. A quota is a pool's, and counts the sessions that it made.
- `now` never goes back: seconds of a monotonic clock. What lasts longer than the clock is the store's matter.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from snakepit_ray.errors import SessionExpired, SessionNotFound, SessionQuotaExceeded, VersionConflict

REMEMBERED = 1_000  # sessions that have expired, so that who comes late is told so
WARN_SHARE = 0.8  # of a pool's quota


@dataclass(frozen=True)
class Session:
    """One session. `version`: of its metadata and programs, 1 at first. `pool`: of whoever made it.
    `created_at`: seconds since 1970. `fences`: the highest binding that was seen of each pool."""

    id: str
    generation: int
    pool: str
    ttl: float
    used_at: float
    version: int = 1
    metadata: Mapping[str, Any] = field(default_factory=dict)
    programs: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    fences: Mapping[str, int] = field(default_factory=dict)

    @property
    def ends_at(self) -> float:
        """The last moment at which it is alive, unless it is used before."""
        return self.used_at + self.ttl


class Joined(NamedTuple):
    """A session, and whether it was made now. `ended`: sessions that have expired and were removed for it."""

    session: Session
    is_new: bool
    ended: tuple[Session, ...] = ()


class Usage(NamedTuple):
    """How much of its quota a pool uses. `is_crowded`: WARN_SHARE of it or more."""

    sessions: int
    limit: int

    @property
    def is_crowded(self) -> bool:
        return self.sessions >= WARN_SHARE * self.limit


class Registry:
    """The sessions of one store. `generation`: all that are given out are greater."""

    def __init__(self, generation: int = 0) -> None:
        self._sessions: dict[str, Session] = {}
        self._generation = generation
        self._made: Counter[str] = Counter()
        self._ends: list[tuple[float, str, int]] = []  # a heap; of each session an entry that is not too late
        self._expired: OrderedDict[str, Session] = OrderedDict()
        self._swept: list[Session] = []  # nobody has heard of them yet

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def generation(self) -> int:
        """The highest that was given out."""
        return self._generation

    # ---- one session --------------------------------------------------------------------------------------

    def restore(self, session: Session) -> None:
        """Puts back a session that an earlier registry had."""
        self._generation = max(self._generation, session.generation)
        self._put(session)

    def join(
        self, session_id: str, pool: str, ttl: float, limit: int, metadata: Mapping[str, Any], now: float
    ) -> Joined:
        """The session of this id, which `pool` makes if there is none; it may have `limit` of them.

        Raises SessionQuotaExceeded, which changes nothing."""
        found = self._alive(session_id, now)
        if found is not None:
            return Joined(self._used(found, now), is_new=False)
        self.check_quota(pool, limit, 0, now)
        made = Session(session_id, self.next_generation(), pool, ttl, now, metadata=dict(metadata))
        old = self.add(made)
        return Joined(made, is_new=True, ended=() if old is None else (old,))

    def check_quota(self, pool: str, limit: int, coming: int, now: float) -> None:
        """Raises SessionQuotaExceeded where `pool` has `limit` sessions, `coming` ones counted."""
        if self._made[pool] + coming >= limit:
            self._swept = self.sweep(now, len(self._ends))
        if self._made[pool] + coming >= limit:
            raise SessionQuotaExceeded.of("max_sessions", self._made[pool] + coming, limit)

    def next_generation(self) -> int:
        """Greater than all that were given out."""
        self._generation += 1
        return self._generation

    def add(self, session: Session) -> Session | None:
        """Puts in a session that was made. Returns: the one of its id that was there, which had expired."""
        old = self._remove(session.id)
        self._expired.pop(session.id, None)
        self._put(session)
        return old

    def replace(self, session: Session) -> None:
        """Puts in a session that was changed, where that generation is still there."""
        found = self._sessions.get(session.id)
        if found is None or found.generation != session.generation:
            return
        self._sessions[session.id] = session = replace(session, used_at=max(session.used_at, found.used_at))
        if session.ends_at < found.ends_at:
            heapq.heappush(self._ends, (session.ends_at, session.id, session.generation))

    def use(self, session_id: str, now: float) -> Session:
        """The session, which lives `ttl` longer from now on. Raises SessionNotFound, SessionExpired."""
        return self._used(self.look(session_id, now), now)

    def look(self, session_id: str, now: float) -> Session:
        """The session, which nobody uses thereby. Raises SessionNotFound, SessionExpired."""
        found = self._alive(session_id, now)
        if found is not None:
            return found
        ended = self._sessions.get(session_id) or self._expired.get(session_id)
        if ended is None:
            raise SessionNotFound.named(session_id)
        raise SessionExpired.after(session_id, now - ended.used_at, ended.ttl)

    def update(
        self,
        session_id: str,
        expected: int,
        now: float,
        metadata: Mapping[str, Any] | None = None,
        programs: Mapping[str, Any] | None = None,
    ) -> Session:
        """Replaces what is given, where the session still has the version `expected`, and counts as a use.

        Raises VersionConflict, SessionNotFound, SessionExpired."""
        found = self.look(session_id, now)
        if found.version != expected:
            raise VersionConflict.of(f"session {session_id}", expected, found.version)
        changed = replace(
            found,
            used_at=max(now, found.used_at),
            version=found.version + 1,
            metadata=found.metadata if metadata is None else dict(metadata),
            programs=found.programs if programs is None else dict(programs),
        )
        self._sessions[session_id] = changed
        return changed

    def find(self, session_id: str, now: float) -> Session | None:
        """The session, None where there is none that is alive."""
        return self._alive(session_id, now)

    def last(self, session_id: str) -> Session | None:
        """The session, also one that has expired and was not swept yet."""
        return self._sessions.get(session_id)

    def drop(self, session_id: str) -> Session | None:
        """Removes a session, alive or not."""
        return self._remove(session_id)

    def delete(self, session_id: str, now: float) -> bool:
        """Whether there was one that was alive."""
        found = self._alive(session_id, now)
        if found is not None:
            self._remove(session_id)
        return found is not None

    # ---- all of them --------------------------------------------------------------------------------------

    def alive(self, now: float) -> Iterator[Session]:
        """Those that have not expired, in the order in which they were made."""
        return (session for session in self._sessions.values() if session.ends_at >= now)

    def pools(self, now: float) -> Counter[str]:
        """How many sessions are alive of each pool that has made some."""
        return Counter(session.pool for session in self.alive(now))

    def usage(self, pool: str, limit: int, now: float) -> Usage:
        """How much of its quota `pool` uses. Sessions that have expired count no more, swept or not."""
        return Usage(sum(session.pool == pool for session in self.alive(now)), limit)

    def sweep(self, now: float, most: int) -> list[Session]:
        """Removes expired sessions, after at most `most` looks. Returns: them, and those that were removed to
        make room since the last sweep."""
        found, self._swept = self._swept, []
        while self._ends and self._ends[0][0] < now and most > 0:
            most -= 1
            _, session_id, generation = heapq.heappop(self._ends)
            session = self._sessions.get(session_id)
            if session is None or session.generation != generation:
                continue
            if session.ends_at >= now:  # it was used since
                heapq.heappush(self._ends, (session.ends_at, session_id, generation))
                continue
            self._remove(session_id)
            self._remember(session)
            found.append(session)
        return found

    def next_end(self) -> float | None:
        """When a sweep may find something, None where there is nothing."""
        return self._ends[0][0] if self._ends else None

    # ---- their table --------------------------------------------------------------------------------------

    def _alive(self, session_id: str, now: float) -> Session | None:
        found = self._sessions.get(session_id)
        return found if found is not None and found.ends_at >= now else None

    def _used(self, session: Session, now: float) -> Session:
        if now <= session.used_at:
            return session
        used = object.__new__(Session)  # a tenth of what `replace` costs, with every question
        used.__dict__.update(session.__dict__, used_at=now)
        self._sessions[session.id] = used
        return used

    def _put(self, session: Session) -> None:
        self._remove(session.id)
        self._sessions[session.id] = session
        self._made[session.pool] += 1
        heapq.heappush(self._ends, (session.ends_at, session.id, session.generation))

    def _remove(self, session_id: str) -> Session | None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._made[session.pool] -= 1
        return session

    def _remember(self, session: Session) -> None:
        self._expired[session.id] = replace(session, metadata={}, programs={})
        while len(self._expired) > REMEMBERED:
            self._expired.popitem(last=False)
