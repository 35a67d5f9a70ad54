"""Knows how a worker always has an interpreter: starts one, notices its end, starts the next.

Rules: the first replacement comes at once, the following ones ever more slowly until one has lived
STEADY_SECONDS; the epoch's number rises the moment that an interpreter is lost, so that nobody takes the next
one for it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from snakepit_ray._pb import interpreter_pb2 as pb
from snakepit_ray.core.handshake import Command
from snakepit_ray.process import Exit
from snakepit_ray.rpc.client import HostHandler
from snakepit_ray.supervisor.interpreter import Interpreter, InterpreterSpec

RESTART_DELAY_MAX = 10.0
RESTART_DELAY_FIRST = 0.1
STEADY_SECONDS = 10.0  # an interpreter that lived so long did not fail at its start


class Hooks(NamedTuple):
    """What the keeper tells its worker: an interpreter serves; it is gone; how it ended."""

    up: Callable[[], None]
    down: Callable[[], None]
    ended: Callable[[Exit], None]


class Keeper:
    """The interpreters of one worker, one after the other."""

    def __init__(
        self,
        make_spec: Callable[[], InterpreterSpec],
        incarnation: int,
        on_host_call: HostHandler,
        forward: Callable[[str, str], None],
        hooks: Hooks,
    ) -> None:
        self.epoch = pb.Epoch(incarnation=incarnation, number=1)
        self.interpreter: Interpreter | None = None
        self.restarts = 0
        self._make_spec = make_spec
        self._on_host_call = on_host_call
        self._forward = forward
        self._hooks = hooks
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the first interpreter and keeps one from then on. Safe to repeat.

        Raises WorkerStartError, ProtocolMismatch and what `make_spec` raises.
        """
        if self._watching is None:
            await self._begin()
            self._watching = asyncio.ensure_future(self._keep())

    async def stop(self) -> None:
        """Ends the interpreter and its replacing. Safe to repeat."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self.interpreter is not None:
            await self.interpreter.stop()

    def command(self, name: str) -> Command | None:
        """What the interpreter said of a command; None when it has none of that name or there is no
        interpreter."""
        return self.interpreter.ready.commands.get(name) if self.interpreter is not None else None

    async def _begin(self) -> None:
        self.interpreter = await Interpreter.start(
            self._make_spec(), self.epoch, self._on_host_call, self._forward
        )
        self._hooks.up()

    async def _keep(self) -> None:
        failures = 0
        while True:
            interpreter = self.interpreter
            assert interpreter is not None
            either: list[asyncio.Future[Any]] = [interpreter.client.lost, interpreter.child.exited]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            steady = time.time() - interpreter.started_at > STEADY_SECONDS
            failures = 1 if steady else failures + 1
            await self._lost(interpreter)
            while not await self._replaced(failures):
                failures += 1

    async def _lost(self, interpreter: Interpreter) -> None:
        self.epoch = pb.Epoch(incarnation=self.epoch.incarnation, number=self.epoch.number + 1)
        self._hooks.down()
        exit = await interpreter.last_words() or await interpreter.kill()
        await interpreter.client.close()
        self._hooks.ended(exit)
        await interpreter.kill()  # what it started, and its socket

    async def _replaced(self, failures: int) -> bool:
        delay = min(RESTART_DELAY_MAX, RESTART_DELAY_FIRST * 2 ** (failures - 2)) if failures > 1 else 0.0
        await asyncio.sleep(delay * random.uniform(0.5, 1.0))
        try:
            await self._begin()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next try comes, and the log has the words
            self._forward("supervisor", f"restart {failures} failed: {type(error).__name__}: {error}")
            return False
        self.restarts += 1
        return True
