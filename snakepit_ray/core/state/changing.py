"""How the store answers questions that change something.

- A write of variables goes its own way (session.py): several of one session may be on their way.
- A change of a session itself is made one at a time: the questions behind it wait until it is durable. It is
  applied when it is durable, so that one that fails leaves nothing to undo.
- A session ends, and one begins in its place, when no write of it is on its way and no copy of it is out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from snakepit_ray.core.state.asked import (
    Creation,
    Fence,
    Join,
    Joining,
    Put,
    Remove,
    RemoveProgram,
    StoreProgram,
    Update,
    Wrote,
)
from snakepit_ray.core.state.desk import Desk
from snakepit_ray.core.state.orders import Program, Row
from snakepit_ray.core.state.registry import Session
from snakepit_ray.core.state.room import Change, Room, Writing, weight_of, weight_of_data
from snakepit_ray.core.state.session import Told
from snakepit_ray.core.state.writes import Outcome, Write
from snakepit_ray.errors import InvalidArguments, VersionConflict


class Later:
    """The question is answered when its change is durable: it stays where it is, or has left the queue."""


STAYS, LEFT = Later(), Later()


class Changing:
    """Handlers of one kind of question each. They give an answer, STAYS or LEFT."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    # ---- sessions -----------------------------------------------------------------------------------------

    def join(self, room: Room, question: Join, is_use: bool) -> Any:
        desk = self._desk
        found = desk.registry.find(room.id, desk.now)
        if found is not None:
            return Joining(desk.info(desk.used(found)), is_new=False)
        return self._create(room, question.creation, question.op)

    def _create(self, room: Room, creation: Creation, op: str = "") -> Later:
        """Makes the session. `op`: of a question that asks for no more than that."""
        desk = self._desk
        if not desk.is_quiet(room):
            return STAYS
        pool = creation.pool
        desk.registry.check_quota(pool, creation.limit, desk.coming[pool], desk.now)
        old = desk.registry.last(room.id)
        if old is not None and old.fences:
            desk.remember_fences(room.id, old.fences)
        made = self._new(room.id, creation)
        answer = Joining(desk.info(made), is_new=True) if op else None
        done = desk.remember(room, op, answer) if op else None
        desk.coming[pool] += 1

        def apply() -> None:
            desk.coming[pool] -= 1
            expired = desk.registry.add(made)
            if expired is not None:
                desk.counts["expired"] += 1
                desk.ended(expired, "expired")
            desk.empty(room)
            desk.variables[made.generation] = 0
            room.state = desk.make_state(room.id, made.generation)

        def undo() -> None:
            desk.coming[pool] -= 1

        desk.change(
            Change(room, apply, undo, done),
            session=self._row(made),
            ended=() if old is None else (old.generation,),
            op=done,
        )
        return STAYS

    def _new(self, session_id: str, creation: Creation) -> Session:
        """A session that begins now, behind the fences of those that had its id before."""
        desk = self._desk
        return Session(
            session_id,
            desk.registry.next_generation(),
            creation.pool,
            creation.ttl,
            desk.now,
            metadata=dict(creation.metadata),
            created_at=desk.at,
            fences=desk.fences.get(session_id, {}),
        )

    def update(self, room: Room, question: Update, is_use: bool) -> Any:
        desk = self._desk
        session = desk.session(room, 0, None, is_use)
        if question.expected not in (None, session.version):
            desk.counts["conflicts"] += 1
            raise VersionConflict.of(f"session {room.id}", question.expected or 0, session.version)
        changed = replace(
            session,
            version=session.version + 1,
            metadata=session.metadata if question.metadata is None else dict(question.metadata),
            ttl=session.ttl if question.ttl is None else question.ttl,
        )
        return self._replace(room, changed, desk.info(changed), question.op)

    def _replace(
        self,
        room: Room,
        changed: Session,
        answer: Any,
        op: str,
        then: Callable[[], None] = lambda: None,
        **facts: Any,
    ) -> Later:
        desk = self._desk
        done = desk.remember(room, op, answer) if op else None

        def apply() -> None:
            desk.registry.replace(changed)
            then()

        change = Change(room, apply, done=done)
        desk.change(change, session=self._row(changed), op=done, generation=changed.generation, **facts)
        return STAYS

    def _row(self, session: Session) -> Session:
        """As it is written down: the time of its use by the clock that outlives this process."""
        return replace(session, used_at=self._desk.at - (self._desk.now - session.used_at))

    def remove(self, room: Room, question: Remove, is_use: bool) -> Any:
        desk = self._desk
        session = desk.registry.find(room.id, desk.now)
        if session is None:
            return False
        if not desk.is_quiet(room):
            return STAYS
        done = desk.remember(room, question.op, True)

        def apply() -> None:
            desk.registry.drop(room.id)
            desk.counts["deleted"] += 1
            desk.empty(room)
            desk.ended(session, "deleted")

        desk.change(Change(room, apply, done=done), ended=(session.generation,), op=done)
        return STAYS

    def is_fenced(self, room: Room, fence: Fence | None) -> bool:
        """Whether the fence is a higher one than the store has seen: it is written down before the question
        is looked at, so that no lower one is taken any more, whatever dies."""
        if fence is None:
            return False
        session = self._desk.registry.find(room.id, self._desk.now)
        if session is None:
            self._desk.remember_fences(room.id, {fence.pool: fence.binding})
            return False
        if fence.binding <= session.fences.get(fence.pool, 0):
            return False
        changed = replace(session, fences={**session.fences, fence.pool: fence.binding})
        self._replace(room, changed, None, "")
        return True

    # ---- variables ----------------------------------------------------------------------------------------

    def put(self, room: Room, question: Put, is_use: bool) -> Any:
        desk = self._desk
        if question.op in room.askers:
            return LEFT
        is_there = desk.registry.find(room.id, desk.now) is not None
        if not is_there and question.creation is not None and not question.generation:
            return self._create(room, question.creation)
        session = desk.session(room, question.generation, question.fence, is_use)
        state = room.state
        assert state is not None
        write = Write(question.op, question.changes, question.is_atomic, question.generation)
        told = state.write(write, desk.now, desk.at)
        self._count(told.outcome if told.outcome is not None else told.accepted)
        if told.outcome is not None:
            return Wrote(session.generation, told.outcome)
        desk.orders.recalls += told.leases
        if told.rows:
            self._write(room, Writing(room, state, question.op), told)
        return LEFT

    def _write(self, room: Room, writing: Writing, told: Told) -> None:
        desk = self._desk
        answer = Wrote(writing.state.generation, told.accepted)
        rows = {name: Row(told.before[name], after) for name, after in told.rows.items()}
        desk.weigh(room, sum(weight_of(row.after) - weight_of(row.before) for row in rows.values()))
        room.last_write = desk.commit(
            writing,
            needs=room.last_write,
            generation=writing.state.generation,
            variables=rows,
            change=told.change,
            floor=told.floor,
            op=desk.remember(room, writing.op, answer),
        )

    def _count(self, outcome: Outcome) -> None:
        counts = self._desk.counts
        counts["writes"] += 1
        counts["conflicts"] += sum(isinstance(one.error, VersionConflict) for one in outcome)

    # ---- programs -----------------------------------------------------------------------------------------

    def store_program(self, room: Room, question: StoreProgram, is_use: bool) -> Any:
        if not room.id:
            _check_existence(question, self._global(room, question.id) is not None)
            program = Program(question.program, question.ttl, self._desk.at)
            return self._change_global(room, question.id, program, None, question.op)
        is_there = self._desk.registry.find(room.id, self._desk.now) is not None
        if not is_there and question.creation is not None:
            return self._create(room, question.creation)
        session = self._desk.session(room, 0, question.fence, is_use)
        _check_existence(question, question.id in room.programs)
        program = Program(question.program)
        programs = {**session.programs, question.id: None}
        return self._change_own(room, session, programs, question.id, program, None, question.op)

    def remove_program(self, room: Room, question: RemoveProgram, is_use: bool) -> Any:
        if not room.id:
            found = self._global(room, question.id)
            return found is not None and self._change_global(room, question.id, None, True, question.op)
        session = self._desk.session(room, 0, None, is_use)
        if question.id not in room.programs:
            return False
        programs = {key: None for key in session.programs if key != question.id}
        return self._change_own(room, session, programs, question.id, None, True, question.op)

    def _change_own(
        self,
        room: Room,
        session: Session,
        programs: dict[str, None],
        name: str,
        program: Program | None,
        answer: Any,
        op: str,
    ) -> Later:
        changed = replace(session, version=session.version + 1, programs=programs)

        def apply() -> None:
            self._keep(room, name, program)

        return self._replace(room, changed, answer, op, apply, programs={name: program})

    def _change_global(self, room: Room, name: str, program: Program | None, answer: Any, op: str) -> Later:
        desk = self._desk
        done = desk.remember(room, op, answer)

        def apply() -> None:
            before = len(room.programs)
            self._keep(room, name, program and replace(program, used_at=desk.now, saved_at=desk.now))
            desk.global_programs += len(room.programs) - before

        desk.change(Change(room, apply, done=done), programs={name: program}, op=done)
        return STAYS

    def _keep(self, room: Room, name: str, program: Program | None) -> None:
        old = room.programs.pop(name, None)
        for one, sign in ((old, -1), (program, 1)):
            if one is not None:
                self._desk.weigh(room, sign * weight_of_data(one.data))
        if program is not None:
            room.programs[name] = program

    def _global(self, room: Room, name: str) -> Program | None:
        found = room.programs.get(name)
        return found if found is not None and self._desk.now - found.used_at <= found.ttl else None


def _check_existence(question: StoreProgram, exists: bool) -> None:
    """Raises InvalidArguments where there must be such a program and is none, or the reverse."""
    if question.must_exist in (None, exists):
        return
    whose = f"session {question.session!r}" if question.session else "the store"
    raise InvalidArguments(
        f"{whose} has {'a' if exists else 'no'} program {question.id!r} "
        f"{'already; replace it with update_program' if exists else '; keep it with store_program'}",
        details={"program": question.id, "session": question.session},
    )
