"""A worker's end of the lane with commands of its own, and callers of it. No Ray, no interpreter."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from snakepit_ray.client.answers import LaneCall
from snakepit_ray.client.lanes import Lanes, Waits
from snakepit_ray.errors import CommandError, SnakepitError
from snakepit_ray.port.messages import Delegated, Refused
from snakepit_ray.wire import lane
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope, BatchPart, Envelope
from snakepit_ray.worker.lane import LaneServer

NODE = "node-1"
SECONDS = 20.0


class Commands:
    """What the worker does: `echo` answers its arguments, `wait` answers when `go` is set, `fail` and `bug`
    raise, `odd` answers what cannot be sent, `large` answers more than a lane takes, `refuse` has no slot.
    What another worker has moved here is answered as that expects it."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.cancelled: set[str] = set()
        self.kept: dict[str, Any] = {}
        self.go = asyncio.Event()

    async def call(self, request: pb.Request, values: tuple[Any, ...]) -> Any:
        self.begun[request.id] += 1
        try:
            if not request.options.hops:
                return await self._run(request)
            if request.command == "refuse":
                return Refused("w-0")
            try:
                return Delegated(await self._run(request), True)
            except SnakepitError as error:
                return Delegated(error, True)
        except asyncio.CancelledError:
            self.cancelled.add(request.id)
            raise

    async def _run(self, request: pb.Request) -> Any:
        if request.command == "wait":
            await self.go.wait()
        if request.command == "fail":
            raise CommandError.from_remote("ValueError", "no good", "Traceback: ...", "python", "fail")
        if request.command == "bug":
            raise KeyError("nobody expected this")
        if request.command == "odd":
            return Envelope(b"1", [object()])  # type: ignore[list-item]
        text = b'"' + b"x" * lane.LARGEST + b'"' if request.command == "large" else request.args.json
        if request.batch.count:
            return BatchEnvelope([BatchPart(text, request.batch.count)], request.options.errors)
        return Envelope(text)

    async def batch(self, requests: list[pb.Request], values: tuple[Any, ...]) -> BatchEnvelope:
        parts = [BatchPart(request.args.json, request.batch.count) for request in requests]
        return BatchEnvelope(parts, requests[0].options.errors)

    def keep(self, request_id: str, answered: Any) -> None:
        self.kept[request_id] = answered


class Worker:
    """The server in a loop of its own thread, which `with` ends."""

    def __init__(self) -> None:
        self.counted = 0
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Worker:
        self._thread.start()
        self.run(self._begin())
        return self

    async def _begin(self) -> None:
        self.commands = Commands()
        self.server = LaneServer(self.commands, "pool", 10_240, self._count)
        self.lane = self.server.open(NODE)
        await self.server.serve()

    def _count(self, calls: int) -> None:
        self.counted += calls

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(SECONDS)

    def call(self, function: Callable[[], Any]) -> Any:
        """In the worker's loop."""

        async def run() -> Any:
            return function()

        return self.run(run())

    def die(self) -> None:
        """As its callers see it: every connection ends, and nobody accepts another one."""
        self.call(self._die)

    def _die(self) -> None:
        self.server.close()
        for caller in list(self.server.callers):
            caller.abort()

    async def _over(self) -> None:
        """Connections that were being accepted are closed, too."""
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    def __exit__(self, *exc: object) -> None:
        self.die()
        self.run(self._over())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(SECONDS)
        self.loop.close()


class FakeRay:
    """Ray's way: a ref that is answered at once by `answer`."""

    def __init__(self, answer: Callable[[str, bool], Any] = lambda request_id, is_large: "by ray") -> None:
        self.sent: list[tuple[str, bool]] = []
        self._answer = answer

    def send(self, request_id: str, is_large: bool) -> Any:
        self.sent.append((request_id, is_large))
        return Ref(self._answer(request_id, is_large))


class Ref:
    """An ObjectRef that is ready."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def future(self) -> Ref:
        return self

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    def exception(self) -> BaseException | None:
        return self._value if isinstance(self._value, BaseException) else None

    def result(self) -> Any:
        return self._value


class Client:
    """One calling process's lanes to one worker."""

    def __init__(self, worker: Worker, ray: FakeRay | None = None) -> None:
        self.ray = ray or FakeRay()
        self.lanes = Lanes(True, lambda: NODE)
        self._worker = worker
        self._numbers = itertools.count(1)

    def send(self, command: str, value: Any = None, waits: Waits = Waits.THREAD, to: Any = None) -> Any:
        """An Answer, or None where the call must go by Ray."""
        request = pb.Request(id=f"caller-{next(self._numbers)}", command=command, budget_ms=60_000)
        request.args.json = json.dumps(value).encode()
        return self.request(request, waits, to)

    def request(self, request: pb.Request, waits: Waits = Waits.THREAD, to: Any = None) -> Any:
        read = lane.reader_of(request, parts=bool(request.batch.count))
        call = LaneCall(
            request.id,
            lane.CALL,
            request.SerializeToString(),
            read,
            lambda is_large: self.ray.send(request.id, is_large),
        )
        return self.lanes.send(to or self._worker.lane, "w-0", request.command, call, waits)
