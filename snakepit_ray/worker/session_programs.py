"""What a command keeps as programs, of its session or of none: the host methods `session.*_program`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from snakepit_ray.core.state import naming
from snakepit_ray.core.state.asked import (
    Changes,
    Creation,
    GetProgram,
    Question,
    RemoveProgram,
    StoreProgram,
    Watch,
)
from snakepit_ray.errors import SessionExpired, SessionNotFound
from snakepit_ray.wire.codec import Encoded, encode_value
from snakepit_ray.wire.host_call import HostCall, HostHandler
from snakepit_ray.worker.host_calls import read_json
from snakepit_ray.worker.session_pins import Pin, Pins
from snakepit_ray.worker.session_values import Answer, data_of, field, joined

GLOBAL_SECONDS = 3600.0


class AsksStore(Protocol):
    """A link to the store. Both raise what the store answers as an error, and DeadlineExceeded after
    `seconds`."""

    async def ask(self, question: Question, seconds: float | None = None) -> Any:
        """The answer."""

    async def watch(self, watch: Watch, seconds: float | None = None) -> Changes:
        """The changes since then."""


async def asked_of(store: AsksStore, call: HostCall, question: Question) -> Any:
    """The answer, within what is left of the call's budget."""
    left = None if call.deadline is None else max(0.0, call.deadline - time.monotonic())
    return await store.ask(question, left)


class ProgramCalls:
    """The handlers of one worker; `op` gives the id of a write."""

    def __init__(self, store: AsksStore, pins: Pins, creation: Creation, op: Callable[[], str]) -> None:
        self._store = store
        self._pins = pins
        self._creation = creation
        self._op = op

    def handlers(self) -> dict[str, HostHandler]:
        """The handlers by method."""
        return {
            "session.get_program": self._get,
            "session.store_program": self._keep,
            "session.update_program": self._update,
            "session.delete_program": self._delete,
        }

    async def _get(self, call: HostCall) -> Encoded:
        args, session, pin = await self._opened(call)
        try:
            program = await asked_of(self._store, call, GetProgram(session, _id(args), pin.fence))
        except (SessionNotFound, SessionExpired):
            program = None
        if program is None:
            return encode_value(None)
        answer = Answer()
        return answer.encoded(joined({"program": answer.value(program)}))

    async def _keep(self, call: HostCall) -> Encoded:
        return await self._put(call, None)

    async def _update(self, call: HostCall) -> Encoded:
        return await self._put(call, True)

    async def _put(self, call: HostCall, must_exist: bool | None) -> Encoded:
        args, session, pin = await self._opened(call)
        question = StoreProgram(
            session,
            _id(args),
            await data_of(field(args, "program", object), call.payload.buffers),
            self._op(),
            must_exist,
            float(field(args, "ttl", (int, float), GLOBAL_SECONDS)),
            pin.fence,
            self._creation if session and not must_exist and not pin.generation else None,
        )
        await asked_of(self._store, call, question)
        return encode_value(None)

    async def _delete(self, call: HostCall) -> Encoded:
        args, session, _ = await self._opened(call)
        try:
            was_there = await asked_of(self._store, call, RemoveProgram(session, _id(args), self._op()))
        except (SessionNotFound, SessionExpired):
            was_there = False
        return encode_value(was_there)

    async def _opened(self, call: HostCall) -> tuple[dict[str, Any], str, Pin]:
        """The arguments, the session ("" for a global program) and the pin."""
        args = read_json(call)
        if field(args, "global", bool, False):
            return args, "", Pin()
        return args, call.session, await self._pins.of(call)


def _id(args: dict[str, Any]) -> str:
    return naming.program_id(field(args, "id", object))
