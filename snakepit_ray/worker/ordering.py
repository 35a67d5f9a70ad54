"""A worker lets the requests of a session begin in the order in which their caller made them.

- core/sessions/turns.py decides. Here are the waiting and its bounds.
- A request that is here holds its place until it waits in the supervisor's queue, which keeps the order.
- One that is sent on to its session's worker holds its place until it has ended, but no longer than
  RELAYED_SECONDS: it has arrived there by then, and is ordered there by its arrival.
- What never came may have run elsewhere, or was cancelled on its way. It is waited for UNHEARD_SECONDS.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from snakepit_ray.core.sessions.turns import Turnstile
from snakepit_ray.core.work.request_ids import caller_of
from snakepit_ray.process.awaiting import happens
from snakepit_ray.wire._pb import interpreter_pb2 as pb

UNHEARD_SECONDS = 3.0  # Ray was seen to take over 1 s for a message on a machine with 2 busy processors
RELAYED_SECONDS = 0.5
Key = tuple[str, str]  # a calling process and a session


class Ordering:
    """The order of one worker's requests. `clock` is time.monotonic, as that of the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turnstile = Turnstile()
        self._here: set[tuple[Key, int]] = set()
        self._leaving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def in_turn(self, request: pb.Request) -> AsyncIterator[None]:
        """Around a request: waits until those before it have begun. It has passed when `begins` says so, at
        the latest when it leaves."""
        if not _is_ordered(request):
            yield
            return
        place = _place(request)
        self._here.add(place)
        try:
            await self._wait(request)
        except BaseException:  # cancelled: those after it wait for those before it all the same
            task = asyncio.ensure_future(self._leave(request))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
            raise
        try:
            yield
        finally:
            self._pass(place)

    def begins(self, request: pb.Request) -> None:
        """The request is about to wait for a slot of this worker: whatever comes now comes after it."""
        if _is_ordered(request):
            self._pass(_place(request))

    @contextmanager
    def sent_on(self, request: pb.Request) -> Iterator[None]:
        """Around what may send the request to another worker, and waits for what becomes of it there."""
        if not _is_ordered(request):
            yield
            return
        timer = asyncio.get_running_loop().call_later(RELAYED_SECONDS, self.begins, request)
        try:
            yield
        finally:
            timer.cancel()

    @property
    def waiting(self) -> int:
        """Requests that wait for one before them."""
        return self._turnstile.waiting

    async def _wait(self, request: pb.Request) -> None:
        (key, number), since = _place(request), self._clock()
        if self._turnstile.may_pass(key, number, request.options.turns_done):
            return
        go = asyncio.Event()
        self._turnstile.wait(key, number, go.set)
        try:
            while True:
                left = since + request.budget_ms / 1000 - self._clock()
                passed = await happens(go, min(left, UNHEARD_SECONDS))
                if passed or left <= UNHEARD_SECONDS or (key, number - 1) not in self._here:
                    break
        finally:
            self._turnstile.leave(key, number)
        waited = int((self._clock() - since) * 1000)
        request.budget_ms = max(1, request.budget_ms - waited)  # waiting is a part of its budget

    async def _leave(self, request: pb.Request) -> None:
        await self._wait(request)
        self._pass(_place(request))

    def _pass(self, place: tuple[Key, int]) -> None:
        self._here.discard(place)
        self._turnstile.passed(*place)


def _is_ordered(request: pb.Request) -> bool:
    """Not: requests that another worker let in, and those of no session."""
    return bool(request.options.turn) and not request.options.hops


def _place(request: pb.Request) -> tuple[Key, int]:
    return (caller_of(request.id), request.session), request.options.turn
