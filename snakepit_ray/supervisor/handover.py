"""How sessions move into the next interpreter when theirs is replaced on purpose: the adapter saves each of
them there, and restores it here.

Rules:
- A session is on its way from the moment at which its interpreter takes no more requests. Its requests wait
  until it is restored.
- It is saved when nothing of it runs in the old interpreter. An interpreter with one slot saves when it runs
  nothing at all, because its one thread is what saves. Sessions whose requests wait go first.
- What was saved stays in this process until it is restored, also when the next interpreter dies meanwhile.
- A session that cannot be saved or restored, too late or too large, goes on as one of an adapter without
  these hooks. `why_not` says what went wrong.
- A restore that does not end costs the new interpreter its life, as a command that does not stop.
- The hooks of the end are called for all sessions of the old interpreter, and nobody waits for long."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

from snakepit_ray.errors import SnakepitError
from snakepit_ray.process.awaiting import within
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.supervisor.running import Running
from snakepit_ray.supervisor.story import Story
from snakepit_ray.telemetry import Why
from snakepit_ray.wire._pb import interpreter_pb2 as pb

SESSION_SECONDS = 5.0  # for one hook of one session
ALL_SECONDS = 30.0  # for all sessions of an interpreter
LARGEST = 16 << 20  # bytes of one session
REMEMBERED = 1_000  # sessions of which is known why they did not move
SAVE, RESTORE, END = "snakepit.session_save", "snakepit.session_restore", "snakepit.session_end"


class _Saved(NamedTuple):
    """What a session's adapter wants back."""

    json: bytes
    buffers: Sequence[bytes]


class _Lost(Exception):
    """A session cannot move, in words for its user."""


class Handover:
    """The sessions of one worker that are on their way. `moved(session, epoch)`: one is in the interpreter of
    that epoch number now. `look_again`: what kept its requests from starting is over."""

    def __init__(
        self,
        running: Running,
        story: Story,
        moved: Callable[[str, int], None],
        look_again: Callable[[], None],
        cancel_grace: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._running = running
        self._story = story
        self._moved = moved
        self._look_again = look_again
        self._cancel_grace = cancel_grace
        self._from: dict[str, Interpreter] = {}  # sessions on their way
        self._saved: dict[str, _Saved] = {}  # those that wait for the next interpreter
        self._urgent: dict[str, None] = {}  # those whose requests wait
        self._why_not: OrderedDict[str, str] = OrderedDict()
        self._next: tuple[Interpreter, int] | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._ids = (f"snakepit-{number}" for number in itertools.count())

    def holds(self, session: str) -> bool:
        """Whether a session is on its way, which is urgent from now on."""
        if session not in self._from:
            return False
        self._urgent[session] = None
        return True

    def why_not(self, session: str) -> str:
        """Why a session did not move, "" where nothing is known."""
        return self._why_not.get(session, "")

    # ---- what the keeper says -----------------------------------------------------------------------------

    def leaves(self, old: Interpreter) -> None:
        """`old` takes no more requests, and will be ended."""
        self._next = None
        if old.moves_sessions:
            self._from.update(dict.fromkeys(old.sessions, old))

    def serving(self, fresh: Interpreter, number: int) -> None:
        """`fresh`, of that epoch number, takes the requests from now on."""
        self._next = (fresh, number)
        if self._saved:
            self._restoring = asyncio.ensure_future(self._restore_all())

    async def out_of(self, old: Interpreter) -> None:
        """Saves the sessions of `old`; what has an interpreter to go to is restored there. Returns when `old`
        is not needed any more."""
        try:
            if old.moves_sessions:
                await self._save_all(old)
            await self._running.drained(old)
            await self.end(old, list(old.sessions), "recycled")
        finally:
            late = "there was no time left to save it"
            for session in [one for one, where in self._from.items() if where is old]:
                if session not in self._saved:
                    self._give_up(session, "its interpreter has died" if old.gone else late)

    async def end(self, one: Interpreter, sessions: Sequence[str], reason: str) -> None:
        """Tells the adapter that sessions have ended in `one`, which had seen them, and why."""
        ended = [session for session in sessions if session in one.sessions]
        if not ended or not one.ends_sessions or one.gone:
            return
        about = _json({"sessions": ended, "reason": reason})
        for session in ended:
            del one.sessions[session]
        try:
            await self._ask(one, END, pb.Payload(json=about), SESSION_SECONDS)
        except (_Lost, SnakepitError) as error:
            self._story.tell(f"on_session_end {error}")

    # ---- saving -------------------------------------------------------------------------------------------

    async def _save_all(self, old: Interpreter) -> None:
        ends_at = self._clock() + ALL_SECONDS
        left = dict.fromkeys(one for one, where in self._from.items() if where is old)
        while left and not old.gone and (seconds := ends_at - self._clock()) > 0:
            session = self._next_free(left, old)
            if session is None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(seconds, self._running.fewer())
                continue
            del left[session]
            await self._save(session, old, min(seconds, SESSION_SECONDS))

    def _next_free(self, left: dict[str, None], old: Interpreter) -> str | None:
        """A session of which nothing runs in `old`, which has a thread for it; None: not now."""
        runs = self._running.of(old)
        if old.ready.capacity == 1:
            busy = set(left) if runs else set()
        else:
            busy = {run.request.session for run in runs}
        urgent = (session for session in self._urgent if session in left)
        return next((session for session in itertools.chain(urgent, left) if session not in busy), None)

    async def _save(self, session: str, old: Interpreter, seconds: float) -> None:
        try:
            payload = await self._ask(old, SAVE, pb.Payload(json=_json({"session": session})), seconds)
            self._saved[session] = _copied(payload, old)
        except (_Lost, SnakepitError) as error:
            self._give_up(session, f"on_session_save {error}")
            return
        if self._next is not None and self._restoring is None:
            await self._restore(session, *self._next)

    # ---- restoring ----------------------------------------------------------------------------------------

    async def _restore_all(self) -> None:
        """Into an interpreter that came after the sessions had been saved."""
        try:
            while self._saved and self._next is not None:
                urgent = (session for session in self._urgent if session in self._saved)
                await self._restore(next(itertools.chain(urgent, self._saved)), *self._next)
        finally:
            self._restoring = None

    async def _restore(self, session: str, fresh: Interpreter, number: int) -> None:
        if fresh.gone:  # the session waits for the one after it
            self._next = None
            return
        saved = self._saved.pop(session)
        text = b'{"session":%b,"state":%b}' % (_json(session), saved.json)
        try:
            payload = await fresh.arena.place(text, saved.buffers)
            await self._ask(fresh, RESTORE, payload, SESSION_SECONDS, condemns=True)
        except (_Lost, SnakepitError) as error:
            self._give_up(session, f"on_session_restore {error}")
            return
        self._leave(session)
        self._why_not.pop(session, None)
        self._moved(session, number)
        self._look_again()

    def _give_up(self, session: str, why: str) -> None:
        self._saved.pop(session, None)
        self._leave(session)
        self._why_not[session] = why
        while len(self._why_not) > REMEMBERED:
            self._why_not.popitem(last=False)
        self._story.session_not_moved(session, why)
        self._look_again()

    def _leave(self, session: str) -> None:
        self._from.pop(session, None)
        self._urgent.pop(session, None)

    # ---- asking -------------------------------------------------------------------------------------------

    async def _ask(
        self, one: Interpreter, command: str, args: pb.Payload, seconds: float, condemns: bool = False
    ) -> pb.Payload:
        """What a hook gives. Raises _Lost with what happened, in words that follow the name of the hook."""
        reply: asyncio.Future[pb.Reply | None] = asyncio.get_running_loop().create_future()
        request = pb.Request(id=next(self._ids), command=command, args=args, budget_ms=int(seconds * 1000))
        one.client.request(request, lambda said: None if reply.done() else reply.set_result(said))
        try:
            said = await within(seconds, asyncio.shield(reply))
        except asyncio.TimeoutError:
            one.client.cancel(request.id, pb.Cancel.DEADLINE)
            if condemns:
                await self._see_it_stop(one, command, reply)
            raise _Lost(f"took longer than {seconds:g} s") from None
        if said is None:
            raise _Lost("was interrupted: its interpreter has died")
        if said.HasField("failure"):
            raise _Lost(f"raised {said.failure.type}: {said.failure.message}")
        return said.value

    async def _see_it_stop(self, one: Interpreter, command: str, reply: asyncio.Future[Any]) -> None:
        await asyncio.wait([reply], timeout=self._cancel_grace)
        if not reply.done():
            one.condemn(Why.CANCEL_GRACE, f"{command} did not stop within {self._cancel_grace:g} s")
            ends: list[asyncio.Future[Any]] = [one.client.lost, one.child.exited]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)


def _copied(payload: pb.Payload, old: Interpreter) -> _Saved:
    """A result's own copy. Raises _Lost for one that is too large."""
    size = len(payload.json) + sum(_size(place) for place in payload.buffers)
    if size > LARGEST:
        raise _Lost(f"gave {size:,} bytes, and at most {LARGEST:,} of a session move")
    return _Saved(bytes(payload.json), [bytes(view) for view in old.arena.views(payload)])


def _size(place: pb.Buffer) -> int:
    return place.segment.size if place.WhichOneof("place") == "segment" else len(place.inline)


def _json(value: Any) -> bytes:
    return orjson.dumps(value)
