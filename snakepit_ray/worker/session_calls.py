"""What a command asks about its session: the host methods `session.*` (bridge/README.md section 6).

- A call becomes a question to the store of sessions, or is answered from a copy (core/state/copies.py).
- Values stay encoded. What is around them is JSON, which is read here, so it has a bound.
- The session is that of the call's request. Which life of it, and by which binding: session_pins.py.
- A session that there is not has no variables, for reads. The first write makes it.
- Each write has an id of its own. The id is of this process of the worker, and not of the request: it is the
  same where the question is sent again, because the store did not answer, and that is what it is for. A
  request that runs again writes again. It is idempotent, or it would not run again, and may take another way:
  its first write need not be the first one of the execution before.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from snakepit_ray.core.state import naming
from snakepit_ray.core.state.asked import (
    Creation,
    Found,
    Get,
    History,
    Put,
    Question,
    Variables,
    Watch,
    Wrote,
)
from snakepit_ray.core.state.constraints import demanded
from snakepit_ray.core.state.copies import Copies, Terms
from snakepit_ray.core.state.writes import Change, Delete, Register, Set, Written
from snakepit_ray.errors import (
    InvalidArguments,
    SessionExpired,
    SessionNotFound,
    VariableNotFound,
)
from snakepit_ray.wire.codec import Encoded, encode_value, write_json
from snakepit_ray.wire.host_call import HostCall, HostHandler
from snakepit_ray.worker.host_calls import read_json
from snakepit_ray.worker.session_pins import Pin, Pins
from snakepit_ray.worker.session_programs import AsksStore, ProgramCalls, asked_of
from snakepit_ray.worker.session_values import (
    Answer,
    data_of,
    field,
    joined,
    listed,
    said,
    type_of,
)

WATCH_SECONDS = 30.0  # a question that waits for changes: a store that is gone for good is noticed after it
_NUMBER = (int, type(None))


class _Asked(NamedTuple):
    """A call that is being answered."""

    call: HostCall
    args: dict[str, Any]
    pin: Pin
    began: float
    age: float  # seconds since the request began, 0: not known

    @property
    def session(self) -> str:
        return self.call.session

    def name(self) -> str:
        """The argument `name`."""
        return naming.variable_name(field(self.args, "name", object))

    def expected(self) -> int | None:
        """The version that the variable must have."""
        version: int | None = field(self.args, "expected_version", _NUMBER, None)
        return version


class SessionCalls:
    """The handlers of one worker.

    Args:
        store: whom to ask.
        copies: what the worker keeps; their holder is who asks.
        pins: of its requests.
        creation: how a session is made that a command writes to.
        op_prefix: what the ids of this process's writes begin with, and nobody else's.
        first_word: the number, in the memory that interpreters read, of the first of the copies' words; None
            where they read none.
    """

    def __init__(
        self,
        store: AsksStore,
        copies: Copies,
        pins: Pins,
        creation: Creation,
        op_prefix: str,
        first_word: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._copies = copies
        self._pins = pins
        self._creation = creation
        self._op_prefix = op_prefix
        self._first_word = first_word
        self._clock = clock
        self._ops = itertools.count(1)
        self._programs = ProgramCalls(store, pins, creation, self._op)

    def handlers(self) -> dict[str, HostHandler]:
        """The handlers by method."""
        return {
            "session.get": self._get,
            "session.get_many": self._get_many,
            "session.exists": self._exists,
            "session.list": self._list,
            "session.history": self._history,
            "session.set": self._set,
            "session.set_many": self._set_many,
            "session.register": self._register,
            "session.delete": self._delete,
            "session.watch": self._watch,
            **self._programs.handlers(),
        }

    # ---- reads --------------------------------------------------------------------------------------------

    async def _get(self, call: HostCall) -> Encoded:
        asked = await self._opened(call)
        name = asked.name()
        found, lease = await self._found(asked, (name,))
        value = found.values.get(name)
        if value is None:
            raise VariableNotFound.named(name, asked.session, found.known)
        answer = Answer()
        return answer.encoded(answer.versioned(value, generation=found.generation, lease=lease))

    async def _get_many(self, call: HostCall) -> Encoded:
        asked = await self._opened(call)
        found, lease = await self._found(asked, naming.variable_names(field(asked.args, "names", list)))
        answer = Answer()
        values = joined({name: answer.versioned(value) for name, value in found.values.items()})
        about = {"generation": found.generation, "lease": lease, "missing": list(found.missing)}
        return answer.encoded(joined({**{k: write_json(v) for k, v in about.items()}, "values": values}))

    async def _exists(self, call: HostCall) -> Encoded:
        asked = await self._opened(call)
        found, _ = await self._found(asked, (asked.name(),))
        return encode_value(bool(found.values))

    async def _found(self, asked: _Asked, names: Sequence[str]) -> tuple[Found, dict[str, Any] | None]:
        """What there is of these names, and by which lease the interpreter may answer for itself."""
        pin, session, names = asked.pin, asked.session, tuple(names)
        copy = self._copies.read(session, names, pin.generation, asked.began, pin.since)
        if copy is not None:
            pin.generation = copy.found.generation
            return copy.found, self._lease(copy.terms, asked.began)
        terms = self._copies.asks(session, self._clock())
        age = 0.0 if pin.generation else asked.age
        question = Get(session, names, pin.fence, pin.generation, self._copies.holder, age)
        found = await self._read(asked, question, Found(0, {}, names))
        pin.generation = pin.generation or found.generation
        is_kept = self._copies.keep(session, found, terms)
        return found, self._lease(terms, asked.began) if is_kept else None

    def _lease(self, terms: Terms, began: float) -> dict[str, Any] | None:
        """Seconds since the interpreter has asked: it did so before the call came."""
        if self._first_word is None:
            return None
        word = self._first_word + terms.word
        return {"word": word, "stamp": terms.stamp, "seconds": terms.ends - began}

    async def _list(self, call: HostCall) -> Encoded:
        asked = await self._opened(call)
        pattern = naming.pattern(field(asked.args, "pattern", str, "*"))
        question = Variables(asked.session, pattern, asked.pin.fence, asked.pin.generation)
        answer = Answer()
        return answer.encoded(listed(map(answer.variable, await self._read(asked, question, ()))))

    async def _history(self, call: HostCall) -> Encoded:
        asked = await self._opened(call)
        name, pin = asked.name(), asked.pin
        versions = await self._read(asked, History(asked.session, name, pin.fence, pin.generation), None)
        if versions is None:
            raise VariableNotFound.named(name, asked.session)
        answer = Answer()
        return answer.encoded(listed(map(answer.versioned, versions)))

    async def _watch(self, call: HostCall) -> AsyncIterator[Encoded]:
        asked = await self._opened(call)
        names, cursor = naming.patterns(field(asked.args, "names", (list, str), "*")), 0
        while True:
            watch = Watch(asked.session, names, cursor, WATCH_SECONDS, asked.pin.generation)
            changes = await self._store.watch(watch)
            asked.pin.generation, cursor = changes.generation, changes.cursor
            for change in changes.changes:
                answer = Answer()
                yield answer.encoded(answer.change(change))

    # ---- writes -------------------------------------------------------------------------------------------

    async def _set(self, call: HostCall) -> Encoded:
        asked = await self._opened(call)
        change = await self._assignment(
            asked, asked.name(), field(asked.args, "value", object), asked.expected()
        )
        return await self._wrote_one(asked, change)

    async def _set_many(self, call: HostCall) -> Encoded:
        asked = await self._opened(call)
        values = field(asked.args, "values", dict)
        expected = field(asked.args, "expected_versions", dict, {})
        is_atomic = field(asked.args, "atomic", bool, True)
        changes = [
            await self._assignment(asked, name, value, expected.get(name)) for name, value in values.items()
        ]
        wrote = await self._put(asked, changes, is_atomic) if changes else Wrote(asked.pin.generation, ())
        failed = {one.name: one.error for one in wrote.outcome if one.error is not None}
        if is_atomic and failed:
            raise next(iter(failed.values()))
        versions = {one.name: one.version for one in wrote.outcome if one.error is None}
        errors = {name: said(error) for name, error in failed.items()}
        return encode_value({"versions": versions, "errors": errors, "generation": wrote.generation})

    async def _register(self, call: HostCall) -> Encoded:
        asked = await self._opened(call)
        name, args = asked.name(), asked.args
        constraints = field(args, "constraints", (dict, type(None)), None)
        demand = demanded(field(args, "type", str), constraints, name)
        metadata = naming.metadata(field(args, "metadata", (dict, type(None)), None) or {})
        value = await data_of(field(args, "value", object), call.payload.buffers)
        return await self._wrote_one(asked, Register(name, value, demand, metadata))

    async def _delete(self, call: HostCall) -> Encoded:
        asked = await self._opened(call)
        try:
            (written,) = (await self._put(asked, [Delete(asked.name(), asked.expected())])).outcome
        except (SessionNotFound, SessionExpired):
            if asked.pin.generation:
                raise
            return encode_value(False)
        if written.error is not None and not isinstance(written.error, VariableNotFound):
            raise written.error
        return encode_value(written.error is None)

    async def _assignment(self, asked: _Asked, name: str, value: Any, expected: Any) -> Set:
        if not isinstance(expected, _NUMBER):
            raise InvalidArguments(f"the version that is expected must be an integer, got {expected!r:.80}")
        demand = demanded(type_of(value), None, naming.variable_name(name))
        data = await data_of(value, asked.call.payload.buffers)
        return Set(name, data, expected, demand)

    async def _wrote_one(self, asked: _Asked, change: Change) -> Encoded:
        wrote = await self._put(asked, [change])
        (written,) = wrote.outcome
        return encode_value({"version": _version(written), "generation": wrote.generation})

    async def _put(self, asked: _Asked, changes: Sequence[Change], is_atomic: bool = True) -> Wrote:
        pin, session = asked.pin, asked.session
        makes = not pin.generation and not all(isinstance(change, Delete) for change in changes)
        put = Put(
            session=session,
            op=self._op(),
            changes=tuple(changes),
            is_atomic=is_atomic,
            fence=pin.fence,
            generation=pin.generation,
            creation=self._creation if makes else None,
            released=self._copies.gives_up(session),
            age=0.0 if pin.generation else asked.age,
        )
        wrote: Wrote = await asked_of(self._store, asked.call, put)
        pin.generation = pin.generation or wrote.generation
        return wrote

    # ---- what all do --------------------------------------------------------------------------------------

    async def _opened(self, call: HostCall) -> _Asked:
        began, args = self._clock(), read_json(call)
        pin = await self._pins.of(call)
        known = field(args, "generation", int, 0)  # from a copy, of which this worker has not heard
        pin.generation = pin.generation or known
        age = float(field(args, "age", (int, float), 0.0))
        return _Asked(call, args, pin, began, age)

    async def _read(self, asked: _Asked, question: Question, nothing: Any) -> Any:
        """The answer, or `nothing` where there is no session, and the request has met none."""
        try:
            return await asked_of(self._store, asked.call, question)
        except (SessionNotFound, SessionExpired):
            if asked.pin.generation:
                raise
            return nothing

    def _op(self) -> str:
        return f"{self._op_prefix}:{next(self._ops)}"


def _version(written: Written) -> int:
    if written.error is not None:
        raise written.error
    return written.version
