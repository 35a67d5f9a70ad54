"""The rules of the store: questions and facts in, orders out. No clock, no disk, no loop.

- `ask` gives a question a number; its answer is among the orders, at once or after other calls.
- What is ordered is done by the store's owner in the order in which it is ordered, and what came of it is
  said by `durable`, `failed`, `loaded` and `released`. `tick` says that time has passed.
- Questions of one session are answered in their order. A read sees what is durable and visible, so that what
  somebody has seen is never lost.
- A change that comes again, by its op, is answered from what is remembered (housekeeping.py says how long).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from snakepit_ray.core.state.asked import (
    Cleanup,
    Get,
    GetProgram,
    History,
    Join,
    Look,
    Put,
    Question,
    Remove,
    RemoveProgram,
    Sessions,
    StoreProgram,
    Update,
    Usage,
    Variables,
    Watch,
    Wrote,
)
from snakepit_ray.core.state.changing import LEFT, STAYS, Changing
from snakepit_ray.core.state.constraints import Demand
from snakepit_ray.core.state.desk import Beginning, Desk
from snakepit_ray.core.state.housekeeping import Housekeeping
from snakepit_ray.core.state.leases import Lease
from snakepit_ray.core.state.orders import Content, Load, Orders
from snakepit_ray.core.state.reading import Reading
from snakepit_ray.core.state.room import Asked, Change, Room, Sweeping, Writing
from snakepit_ray.core.state.session import Accept
from snakepit_ray.errors import EncodingError, SessionNotFound, SnakepitError

Handler = Callable[[Room, Any, bool], Any]


class StoreCore:
    """One store. `now`: seconds of a monotonic clock; `at`: seconds since 1970."""

    def __init__(self, beginning: Beginning, accept: Accept = Demand.accepted) -> None:
        self._desk = Desk(beginning, accept)
        self.reading = Reading(self._desk)
        self._changing = Changing(self._desk)
        self._early: list[Asked] = []
        self._tick_at: float | None = None  # as it was said last
        self._count = 0
        self._held_up: dict[str, Room] = {}  # rooms that wait for the end of leases
        self._housekeeping = Housekeeping(self._desk, self._go_on)
        self._handlers: Mapping[type, Handler] = {
            Look: self.reading.look,
            Get: self.reading.get,
            Variables: self.reading.variables,
            History: self.reading.history,
            Watch: self.reading.watched,
            GetProgram: self.reading.program,
            Join: self._changing.join,
            Update: self._changing.update,
            Remove: self._changing.remove,
            Put: self._changing.put,
            StoreProgram: self._changing.store_program,
            RemoveProgram: self._changing.remove_program,
        }

    # ---- questions ----------------------------------------------------------------------------------------

    def ask(self, question: Question | Watch, now: float, at: float, is_use: bool = True) -> int:
        """Takes a question. Returns the number that its answer has. `is_use`: whether it may count as a use
        of its session; a watcher that looks again is none."""
        if (
            self._tick_at is not None and now >= self._tick_at
        ):  # the clock's owner may be told of another time
            self.tick(now, at)
        self._set_clocks(now, at)
        self._count += 1
        asked = Asked(self._count, question, is_use)
        if now < self._desk.open_at:
            self._early.append(asked)
        else:
            self._enter(asked)
        return self._count

    def take(self) -> Orders:
        """The orders since the last time."""
        orders, self._desk.orders = self._desk.orders, Orders()
        return orders

    def _enter(self, asked: Asked) -> None:
        question = asked.question
        if isinstance(question, Sessions):
            self._desk.answer(asked.number, self.reading.sessions(question))
        elif isinstance(question, Usage):
            self._desk.answer(asked.number, self.reading.usage(question))
        elif isinstance(question, Cleanup):
            self._desk.answer(asked.number, self._housekeeping.end_all())
        else:
            room = self._desk.room(question.session)
            room.queue.append(asked)
            if len(room.queue) == 1:
                self._go_on(room)

    def _go_on(self, room: Room) -> None:
        """Answers the questions that wait, up to one that must wait longer."""
        while room.queue and not room.is_busy:
            asked = room.queue[0]
            try:
                answer = self._handled(room, asked)
            except SnakepitError as error:
                answer = error
            except Exception as error:  # noqa: BLE001 - the questions behind it must not wait for ever
                what = f"{type(asked.question).__name__} cannot be answered: {type(error).__name__}: {error}"
                answer = EncodingError(f"the store was asked for what is no question: {what}")
            if answer is STAYS:
                if not room.is_busy:
                    self._held_up[room.id] = room
                return
            room.queue.popleft()
            if answer is not LEFT:
                self._desk.answer(asked.number, answer)
        if room.is_empty():
            self._desk.rooms.pop(room.id, None)

    def _handled(self, room: Room, asked: Asked) -> Any:
        question = asked.question
        op = getattr(question, "op", "")
        needs_content = not isinstance(question, Look)
        if needs_content and not room.is_loaded:
            self._desk.load(room)
            return STAYS
        if op and op in room.done:
            return room.done[op].answer
        if isinstance(question, Put) and question.released is not None:
            self._released(question.released)
        if self._changing.is_fenced(room, getattr(question, "fence", None)):
            return STAYS
        age = getattr(question, "age", 0.0)
        if age and self._desk.was_deleted(room.id, age):
            raise SessionNotFound.named(room.id)
        answer = self._handlers[type(question)](room, question, asked.is_use)
        if isinstance(question, Put) and answer is LEFT:
            room.askers.setdefault(question.op, []).append(asked.number)
            if room.state is not None and room.state.may_settle:
                self._settle(room)
        return answer

    # ---- what came of orders ------------------------------------------------------------------------------

    def durable(self, numbers: Sequence[int], now: float, at: float) -> None:
        """Transactions that will outlive this process."""
        self._set_clocks(now, at)
        for number in numbers:
            self.reading.durable(number, True)
            entry = self._desk.under_way.pop(number, None)
            if isinstance(entry, Writing):
                entry.state.durable(entry.op)
                self._settle(entry.room)
                self._go_on(entry.room)
            elif isinstance(entry, Change):
                entry.apply()
                self._end_of_change(entry, None)

    def failed(self, number: int, error: SnakepitError, now: float, at: float) -> None:
        """A transaction has had no effect, and those that need it will have none."""
        self._set_clocks(now, at)
        self.reading.durable(number, False)
        entry = self._desk.under_way.pop(number, None)
        if isinstance(entry, Writing):
            self._fail(entry, error)
        elif isinstance(entry, Change):
            entry.undo()
            self._end_of_change(entry, error)
        elif isinstance(entry, Sweeping):
            self._housekeeping.not_swept(entry)

    def _fail(self, entry: Writing, error: SnakepitError) -> None:
        """A write of variables, and those that were accepted after it. What comes of those no longer matters:
        the same op may be on its way again by then."""
        room = entry.room
        lost = entry.state.failed(entry.op, error)
        for number, other in list(self._desk.under_way.items()):
            if isinstance(other, Writing) and other.room is room and other.op in lost:
                del self._desk.under_way[number]
        room.last_write = 0
        for op in lost:
            self._answer_all(room.askers.pop(op, ()), error)
        self._go_on(room)

    def loaded(self, load: Load, content: Content | SnakepitError, now: float, at: float) -> None:
        """What is kept of a session has come, or why it cannot: then its questions fail, and the next one
        tries again."""
        self._set_clocks(now, at)
        room = self._desk.room(load.session)
        if isinstance(content, SnakepitError):
            room.is_busy = False
            self._answer_all([asked.number for asked in room.queue], content)
            room.queue.clear()
            return
        self._desk.fill(room, load.generation, content)
        self._housekeeping.remembered(room, content.ops)
        self._go_on(room)

    def released(self, leases: Sequence[Lease], now: float, at: float) -> None:
        """Their holders have no copies any more."""
        self._set_clocks(now, at)
        for room in map(self._released, leases):
            if room is not None:
                self._look_again(room)

    def tick(self, now: float, at: float) -> None:
        """Time has passed."""
        self._set_clocks(now, at)
        self._tick_at = None
        if now >= self._desk.open_at:
            early, self._early = self._early, []
            for asked in early:
                self._enter(asked)
        for room in list(self._held_up.values()):
            self._look_again(room)

    def next_tick(self) -> float | None:
        """When something is to be done if nothing happens before."""
        self._tick_at = self._next_tick()
        return self._tick_at

    def _next_tick(self) -> float | None:
        if self._early:
            return self._desk.open_at
        ends = (
            room.state.leases.free_from(self._desk.now)
            for room in self._held_up.values()
            if room.state is not None
        )
        return min((end for end in ends if end > self._desk.now), default=None)

    def is_free(self, now: float, at: float) -> bool:
        """No lease is out: a store that comes after this one need not wait."""
        self._set_clocks(now, at)
        self.reading.prune()
        return not self.reading.leases

    # ---- sweeping -----------------------------------------------------------------------------------------

    def sweep(self, most: int, now: float, at: float) -> bool:
        """Ends sessions that have expired, after at most `most` looks, and forgets what nobody asks for
        again. Returns: whether there may be more."""
        self._set_clocks(now, at)
        found = self._housekeeping.sweep(most)
        self.reading.prune()
        return found == most

    # ---- inside -------------------------------------------------------------------------------------------

    def _set_clocks(self, now: float, at: float) -> None:
        self._desk.now = max(self._desk.now, now)
        self._desk.at = at

    def _released(self, lease: Lease) -> Room | None:
        """The room of a lease that has ended; None where it is of another store, or has ended before."""
        return self.reading.released(lease) if lease.store == self._desk.store else None

    def _settle(self, room: Room) -> None:
        """Makes visible, and acknowledges, what may be."""
        state, desk = room.state, self._desk
        if state is None:
            return
        for op, outcome in state.settled(desk.now).items():
            answer = Wrote(state.generation, outcome)
            if state.forget(op):
                self._housekeeping.remember(room, desk.remember(room, op, answer))
                desk.orders.woken.add(room.id)
            self._answer_all(room.askers.pop(op, ()), answer)
        if state.generation in desk.variables:
            desk.variables[state.generation] = len(state.visible)
        elif room.is_quiet(desk.now):  # it has expired meanwhile
            desk.empty(room)
        if not state.is_idle:
            self._held_up[room.id] = room

    def _end_of_change(self, change: Change, error: SnakepitError | None) -> None:
        room = change.room
        room.is_busy = False
        if error is not None:
            self._desk.answer(room.queue.popleft().number, error)
        elif change.done is not None:
            self._housekeeping.remember(room, change.done)
            self._desk.answer(room.queue.popleft().number, change.done.answer)
        self._go_on(room)

    def _look_again(self, room: Room) -> None:
        self._held_up.pop(room.id, None)
        self._settle(room)
        self._go_on(room)

    def _answer_all(self, numbers: Sequence[int], value: Any) -> None:
        for number in numbers:
            self._desk.answer(number, value)
