"""What all rules of the store share: the sessions, the rooms, the clocks, and the orders that gather."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from snakepit_ray.core.state.asked import Ended, Fence, SessionInfo
from snakepit_ray.core.state.constraints import Demand
from snakepit_ray.core.state.leases import LEASE_SECONDS
from snakepit_ray.core.state.orders import Answer, Content, Load, Op, Orders, Transaction
from snakepit_ray.core.state.registry import Registry, Session
from snakepit_ray.core.state.room import Change, Room, Sweeping, Writing, weight_of, weight_of_data
from snakepit_ray.core.state.session import Accept, SessionState
from snakepit_ray.errors import SessionNotFound, SessionWorkerLost

Entry = Change | Writing | Sweeping
KEPT_FENCES = 10_000
MOST_DELETED = 10_000  # sessions, of which it is remembered when they were deleted
SAVED_SHARE = 0.1  # of a ttl: so much later at most a use is written down


@dataclass(frozen=True)
class Beginning:
    """What a store finds when it begins.

    `store`: which one it is, of all that there were; `generation`: the highest that was given out. `open_at`:
    it answers nothing before, because leases of the store before it may be out. `is_durable`: there is more
    than what is in memory, and it is loaded when it is asked for. `sessions`: with `used_at` by the monotonic
    clock; `variables`: how many each generation has."""

    store: int = 1
    generation: int = 0
    open_at: float = 0.0
    is_durable: bool = False
    sessions: tuple[Session, ...] = ()
    variables: Mapping[int, int] = field(default_factory=dict)
    global_programs: int = 0


class Desk:
    """The state that the rules work on. `now`: of the monotonic clock; `at`: seconds since 1970."""

    def __init__(self, beginning: Beginning, accept: Accept = Demand.accepted) -> None:
        self.store = beginning.store
        self.open_at = beginning.open_at
        self.is_durable = beginning.is_durable
        self.registry = Registry(beginning.generation)
        for session in beginning.sessions:
            self.registry.restore(session)
        self.variables = dict(beginning.variables)
        self.global_programs = beginning.global_programs
        self.rooms: OrderedDict[str, Room] = OrderedDict()  # the last one that was used at the end
        self.weight = 0
        self.counts: Counter[str] = Counter()
        self.coming: Counter[str] = Counter()  # sessions that are being made, by pool
        self.orders = Orders()
        self.now = 0.0
        self.at = 0.0
        self.fences: OrderedDict[str, dict[str, int]] = OrderedDict()  # of sessions that there are not
        self.under_way: dict[int, Entry] = {}  # by the number of its transaction
        self._accept = accept
        self._numbers = count(1)
        self._leases = count(1)
        self._saved: dict[str, tuple[int, float]] = {}  # which use of a session was written down last
        self._deleted: OrderedDict[str, float] = OrderedDict()  # when, the last ones

    # ---- orders -------------------------------------------------------------------------------------------

    def answer(self, number: int, value: Any) -> None:
        """What a question comes to."""
        self.orders.answers.append(Answer(number, value))

    def commit(self, entry: Entry, **facts: Any) -> int:
        """Orders a transaction. Returns its number."""
        number = next(self._numbers)
        self.under_way[number] = entry
        self.orders.transactions.append(Transaction(number, at=self.at, **facts))
        return number

    def change(self, change: Change, **facts: Any) -> None:
        """A change of a session itself: its room waits for it."""
        change.room.is_busy = True
        self.commit(change, **facts)

    def remember_fences(self, session_id: str, fences: Mapping[str, int]) -> None:
        """The highest bindings that were seen where there is no session: the next one of that id begins with
        them, so that who was its owner before that is not taken for it."""
        known = self.fences.pop(session_id, {})
        self.fences[session_id] = {
            **known,
            **{pool: max(n, known.get(pool, 0)) for pool, n in fences.items()},
        }
        while len(self.fences) > KEPT_FENCES:
            self.fences.popitem(last=False)

    def ended(self, session: Session, reason: str) -> None:
        """A session is no more."""
        if session.fences:
            self.remember_fences(session.id, session.fences)
        self.orders.ended.append(Ended(session.id, session.generation, reason))
        self.orders.woken.add(session.id)
        self.variables.pop(session.generation, None)
        self._saved.pop(session.id, None)
        if reason == "deleted":
            self._deleted[session.id] = self.now
            self._deleted.move_to_end(session.id)
            if len(self._deleted) > MOST_DELETED:
                self._deleted.popitem(last=False)

    def was_deleted(self, session_id: str, seconds: float) -> bool:
        """Whether a session of that id was deleted within the last seconds, as far as is remembered."""
        return self._deleted.get(session_id, -math.inf) > self.now - seconds

    # ---- rooms --------------------------------------------------------------------------------------------

    def room(self, session_id: str) -> Room:
        """The room of that session id."""
        found = self.rooms.get(session_id)
        if found is None:
            found = self.rooms[session_id] = Room(session_id, is_loaded=not self.is_durable)
        else:
            self.rooms.move_to_end(session_id)
        return found

    def load(self, room: Room) -> None:
        """Orders what is kept of the session."""
        session = self.registry.find(room.id, self.now)
        room.is_busy = True
        self.orders.loads.append(Load(room.id, 0 if session is None else session.generation))

    def fill(self, room: Room, generation: int, content: Content) -> None:
        """What was ordered has come."""
        room.is_loaded, room.is_busy = True, False
        for name, program in content.programs.items():
            idle = max(0.0, self.at - program.used_at)
            used_at = self.now - max(0.0, idle - program.ttl * SAVED_SHARE)  # uses are written down so late
            room.programs[name] = replace(program, used_at=used_at, saved_at=self.now - idle)
        room.done.update(content.ops)
        self.weigh(room, sum(weight_of_data(program.data) for program in content.programs.values()))
        if generation:
            room.state = self.make_state(room.id, generation, content)
            self.weigh(room, sum(map(weight_of, content.variables.values())))

    def make_state(self, session_id: str, generation: int, content: Content | None = None) -> SessionState:
        """The variables of a session, of a new one where there is no content."""
        content = content or Content()
        return SessionState(
            session_id,
            generation,
            content.variables,
            content.floor,
            store=self.store,
            gone=content.gone,
            accept=self._accept,
            numbers=self._leases,
        )

    def weigh(self, room: Room, more: int) -> None:
        """So much more memory is in use for it."""
        room.weight += more
        self.weight += more

    def empty(self, room: Room) -> None:
        """Its session has ended."""
        self.weight -= room.weight
        room.leave()

    def is_quiet(self, room: Room) -> bool:
        """Whether the session can end, or another one begin in its place. Else the copies are called back."""
        if room.is_quiet(self.now):
            return True
        if room.state is not None:
            self.orders.recalls += room.state.leases.standing(self.now)
        return False

    def remember(self, room: Room, op: str, answer: Any) -> Op:
        """What is to be answered when that change comes again."""
        return Op(room.id, op, answer, self.at)

    # ---- sessions -----------------------------------------------------------------------------------------

    def session(self, room: Room, generation: int, fence: Fence | None, is_use: bool) -> Session:
        """The session, which is used thereby. Raises SessionNotFound, SessionExpired, SessionWorkerLost."""
        found = self.registry.look(room.id, self.now)
        if generation not in (0, found.generation):
            raise SessionNotFound.named(room.id)
        if fence is not None and fence.binding < found.fences.get(fence.pool, 0):
            raise SessionWorkerLost.of(room.id, "moved")
        return self.used(found) if is_use else found

    def used(self, session: Session) -> Session:
        """The session, after a use of it, which is written down when the last one was long ago."""
        generation, saved = self._saved.get(session.id, (0, 0.0))
        if generation != session.generation:
            self._saved[session.id] = session.generation, session.used_at
        elif self.now - saved > session.ttl * SAVED_SHARE:
            self.save_use(session)
        return self.registry.use(session.id, self.now)

    def save_use(self, session: Session) -> None:
        """Orders that the use is written down. Nobody waits for it."""
        self._saved[session.id] = session.generation, self.now
        if self.is_durable:
            self.commit(Sweeping(used=session.id), uses={session.generation: self.at})

    def not_saved(self, session_id: str) -> None:
        """A use could not be written down: the next one is to be."""
        if session_id in self._saved:
            self._saved[session_id] = self._saved[session_id][0], -math.inf

    def info(self, session: Session) -> SessionInfo:
        """The session as its users see it."""
        used_at = self.at - (self.now - session.used_at)
        return SessionInfo(
            session.id,
            session.generation,
            session.pool,
            session.ttl,
            session.version,
            session.metadata,
            session.created_at,
            used_at,
            used_at + session.ttl,
            tuple(session.programs),
            self.variables.get(session.generation, 0),
        )

    def may_lease(self, session: Session) -> bool:
        """A copy may answer for LEASE_SECONDS: not of a session that may have expired before."""
        return session.ttl >= 2 * LEASE_SECONDS
