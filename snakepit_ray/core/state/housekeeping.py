"""What the store forgets: sessions that have expired, programs that nobody uses, answers that nobody asks for
again, and rooms that were not used for long.

- An op is remembered for KEPT_SECONDS, and KEPT_OPS of them in any case, but never more than MOST_OPS.
- Where the rows of a session cannot be removed, as on a full disk, the next sweep tries again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from snakepit_ray.core.state.desk import Desk
from snakepit_ray.core.state.orders import Op
from snakepit_ray.core.state.registry import Session
from snakepit_ray.core.state.room import Room, Sweeping, weight_of_data

KEPT_SECONDS = 600.0
KEPT_OPS = 100_000
MOST_OPS = 1_000_000
MEMORY = 256 * 1024 * 1024  # bytes of sessions in memory, about, where they can be loaded again


class Housekeeping:
    """Of one store. `go_on`: answers the questions that wait in a room."""

    def __init__(self, desk: Desk, go_on: Callable[[Room], None]) -> None:
        self._desk = desk
        self._go_on = go_on
        self._ops: OrderedDict[tuple[str, str], float] = OrderedDict()  # since when they are remembered
        self._unswept: list[int] = []  # generations whose rows could not be removed

    # ---- answers ------------------------------------------------------------------------------------------

    def remember(self, room: Room, op: Op) -> None:
        """A change has taken effect."""
        room.done[op.id] = op
        self._ops[room.id, op.id] = self._desk.now

    def remembered(self, room: Room, ops: Iterable[str]) -> None:
        """Changes that an earlier store has made."""
        self._ops.update(((room.id, op), self._desk.now) for op in ops)

    def _forget_ops(self) -> None:
        while len(self._ops) > KEPT_OPS:
            (session, op), since = next(iter(self._ops.items()))
            if len(self._ops) <= MOST_OPS and self._desk.now - since < KEPT_SECONDS:
                return
            del self._ops[session, op]
            room = self._desk.rooms.get(session)
            if room is not None:
                room.done.pop(op, None)

    # ---- sessions -----------------------------------------------------------------------------------------

    def sweep(self, most: int) -> int:
        """Forgets what there is to forget, after at most `most` looks at sessions. Returns: how many sessions
        have ended."""
        found = self._end_sessions(most)
        self._forget_programs()
        self._forget_ops()
        self._forget_rooms()
        return found

    def end_all(self) -> int:
        """Ends all sessions that have expired. Returns: how many."""
        return self._end_sessions(len(self._desk.registry) + 1)

    def not_swept(self, sweeping: Sweeping) -> None:
        """These rows are as they were."""
        self._unswept += sweeping.generations
        self._desk.not_saved(sweeping.used)

    def _end_sessions(self, most: int) -> int:
        desk = self._desk
        ended = desk.registry.sweep(desk.now, most)
        for session in ended:
            desk.counts["expired"] += 1
            desk.ended(session, "expired")
            self._vacate(session)
        generations = (*self._unswept, *(session.generation for session in ended))
        self._unswept.clear()
        if generations:
            desk.commit(Sweeping(generations), ended=generations)
        return len(ended)

    def _vacate(self, session: Session) -> None:
        """The memory of a session that has ended; where something is on its way there, it stays so long."""
        room = self._desk.rooms.get(session.id)
        if room is None or room.state is None or room.state.generation != session.generation:
            return
        if room.is_quiet(self._desk.now):
            self._desk.empty(room)
            self._go_on(room)

    # ---- the rest -----------------------------------------------------------------------------------------

    def _forget_programs(self) -> None:
        """Global programs that were not used for their time, where they are in memory."""
        desk = self._desk
        room = desk.rooms.get("")
        if room is None or room.is_busy:
            return
        old = [name for name, one in room.programs.items() if desk.now - one.used_at > one.ttl]
        for name in old:
            desk.weigh(room, -weight_of_data(room.programs.pop(name).data))
        if old:
            desk.global_programs -= len(old)
            desk.commit(Sweeping(), programs=dict.fromkeys(old))

    def _forget_rooms(self) -> None:
        """Those that were not used for the longest time, while too much is in memory."""
        desk = self._desk
        for room in list(desk.rooms.values()):
            if not desk.is_durable or desk.weight <= MEMORY:
                return
            if room.is_unused(desk.now):
                desk.empty(room)
                del desk.rooms[room.id]
