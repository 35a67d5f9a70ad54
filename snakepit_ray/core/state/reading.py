"""How the store answers questions that change nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from snakepit_ray.core.state.asked import (
    Changes,
    Data,
    Found,
    Get,
    GetProgram,
    History,
    Look,
    SessionInfo,
    Sessions,
    StoreStats,
    Usage,
    VariableChange,
    VariableInfo,
    Variables,
    Versioned,
    Watch,
)
from snakepit_ray.core.state.desk import SAVED_SHARE, Desk
from snakepit_ray.core.state.leases import Lease
from snakepit_ray.core.state.patterns import matching, matching_any
from snakepit_ray.core.state.records import Version
from snakepit_ray.core.state.registry import WARN_SHARE, Session
from snakepit_ray.core.state.room import Room, Sweeping
from snakepit_ray.core.state.session import SessionState
from snakepit_ray.errors import VariableNotFound


class Reading:
    """Reads see what is visible, and what is visible is durable.

    `holders`: who may have leases. None is granted before it is durable that there may be some: a store that
    comes after this one has to know whether it must wait for their end."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.holders: set[str] = set()
        self._granting: OrderedDict[int, str] = OrderedDict()  # by the lease's number: the session
        self._grants = not desk.is_durable
        self._grants_from = 0  # the number of the transaction that says so

    # ---- one session --------------------------------------------------------------------------------------

    def look(self, room: Room, question: Look, is_use: bool) -> SessionInfo:
        desk = self._desk
        return desk.info(desk.session(room, 0, None, is_use=question.is_use))

    def get(self, room: Room, question: Get, is_use: bool) -> Found:
        session, state = self._state(room, question, is_use)
        self._desk.counts["reads"] += 1
        visible = state.visible
        values = {name: versioned(visible[name].newest) for name in question.names if name in visible}
        missing = tuple(name for name in question.names if name not in visible)
        known = tuple(state.names()) if missing else ()
        lease = self._lease(room, session, state, question.holder)
        return Found(session.generation, values, missing, known, lease)

    def variables(self, room: Room, question: Variables, is_use: bool) -> tuple[VariableInfo, ...]:
        _, state = self._state(room, question, is_use)
        self._desk.counts["reads"] += 1
        means = matching(question.pattern)
        return tuple(
            VariableInfo(
                name,
                str(one.demand.type),
                one.demand.constraints,
                one.metadata,
                versioned(one.newest),
            )
            for name, one in sorted(state.visible.items())
            if means(name)
        )

    def history(self, room: Room, question: History, is_use: bool) -> tuple[Versioned, ...]:
        _, state = self._state(room, question, is_use)
        self._desk.counts["reads"] += 1
        variable = state.visible.get(question.name)
        if variable is None:
            raise VariableNotFound.named(question.name, room.id, state.names())
        return tuple(map(versioned, variable.versions))

    def watched(self, room: Room, question: Watch, is_use: bool) -> Changes:
        """The changes that there are now, perhaps none."""
        session = self._desk.session(room, question.generation, None, is_use)
        assert room.state is not None
        story = room.state.story
        found = story.since(question.cursor, matching_any(question.names))
        changes = tuple(
            VariableChange(
                one.name, versioned(one.variable.newest) if one.variable is not None else None, one.skipped
            )
            for one in found
        )
        return Changes(session.generation, story.cursor, changes)

    def program(self, room: Room, question: GetProgram, is_use: bool) -> Data | None:
        if room.id:
            self._desk.session(room, 0, question.fence, is_use)
        found = room.programs.get(question.id)
        if found is None or room.id:
            return None if found is None else found.data
        now, saved_at = self._desk.now, found.saved_at
        if now - found.used_at > found.ttl:
            return None
        if now - saved_at > found.ttl * SAVED_SHARE:
            saved_at = now
            self._desk.commit(Sweeping(), program_uses={question.id: self._desk.at})
        room.programs[question.id] = replace(found, used_at=now, saved_at=saved_at)
        return found.data

    def _state(
        self, room: Room, question: Get | Variables | History, is_use: bool
    ) -> tuple[Session, SessionState]:
        session = self._desk.session(room, question.generation, question.fence, is_use)
        assert room.state is not None
        return session, room.state

    # ---- leases -------------------------------------------------------------------------------------------

    def _lease(self, room: Room, session: Session, state: SessionState, holder: str) -> Lease | None:
        if holder not in self.holders or not self._desk.may_lease(session):
            return None
        if not self._grants:
            if not self._grants_from:
                self._grants_from = self._desk.commit(Sweeping(), grants=True)
            return None
        lease = state.lease(holder, self._desk.now)
        if lease is not None:
            self._granting[lease.number] = room.id
        return lease

    def durable(self, number: int, is_durable: bool) -> None:
        """What became of a transaction."""
        if number == self._grants_from:
            self._grants, self._grants_from = is_durable, 0

    def released(self, lease: Lease) -> Room | None:
        """The room whose lease has ended; None where it is none of ours."""
        room = self._desk.rooms.get(self._granting.pop(lease.number, ""))
        if room is None or room.state is None:
            return None
        room.state.leases.release(lease)
        return room

    @property
    def leases(self) -> int:
        """How many are out, those that have ended since the last `prune` included."""
        return len(self._granting)

    def prune(self) -> None:
        """Forgets leases that have ended."""
        standing = {
            lease.number: room.id
            for room in self._desk.rooms.values()
            if room.state is not None
            for lease in room.state.leases.standing(self._desk.now)
        }
        self._granting = OrderedDict(standing)

    # ---- all sessions -------------------------------------------------------------------------------------

    def sessions(self, question: Sessions) -> tuple[SessionInfo, ...]:
        """Those that are alive, a page of them."""
        means = matching(question.pattern)
        found: Iterator[Session] = (
            session
            for session in self._desk.registry.alive(self._desk.now)
            if session.generation > question.after
            and question.pool in (None, session.pool)
            and means(session.id)
        )
        return tuple(self._desk.info(session) for session in islice(found, question.most))

    def usage(self, question: Usage) -> StoreStats:
        """What there is, without what only its owner knows: the watchers and the disk."""
        desk = self._desk
        by_pool = desk.registry.pools(desk.now)
        self.prune()
        return StoreStats(
            sessions=sum(by_pool.values()),
            variables=sum(desk.variables.values()),
            programs=sum(len(session.programs) for session in desk.registry.alive(desk.now)),
            global_programs=desk.global_programs,
            by_pool=dict(by_pool),
            crowded=tuple(
                sorted(pool for pool, limit in question.limits.items() if by_pool[pool] >= WARN_SHARE * limit)
            ),
            watchers=0,
            leases=self.leases,
            reads=desk.counts["reads"],
            writes=desk.counts["writes"],
            conflicts=desk.counts["conflicts"],
            expired=desk.counts["expired"],
            deleted=desk.counts["deleted"],
            bytes=0,
            kind="memory",
        )


def versioned(version: Version) -> Versioned:
    """A version as its readers see it."""
    return Versioned(version.number, version.value, version.at)
