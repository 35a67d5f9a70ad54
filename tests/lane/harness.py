"""A worker's end of the lane with commands of its own, and callers of it. No Ray, no interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from snakepit_ray.client.answers import LaneCall
from snakepit_ray.client.inbox import LaneLost, LaneStream
from snakepit_ray.client.lanes import Lanes, Waits
from snakepit_ray.client.sender import Sent
from snakepit_ray.client.sources import async_source, source
from snakepit_ray.errors import CommandError, DeadlineExceeded, SnakepitError, WorkerCrashed
from snakepit_ray.port.messages import Delegated, Refused
from snakepit_ray.wire import lane
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import BatchEnvelope, BatchPart, Envelope, Part, Piece
from snakepit_ray.worker.lane import LaneServer

NODE = "node-1"
SECONDS = 20.0


class Commands:
    """What the worker does: `echo` answers its arguments, `wait` answers when `go` is set, `fail` and `bug`
    raise, `odd` answers what cannot be sent, `large` answers more than a lane takes, `refuse` has no slot.
    What another worker has moved here is answered as that expects it.

    A stream yields the numbers below its argument, one a part; `fail` fails after them, `wait` waits, and of
    `large` every third is a part that no lane takes."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.cancelled: set[str] = set()
        self.produced: Counter[str] = Counter()  # parts of each stream
        self.ended: set[str] = set()  # streams, however they ended
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
        if request.command == "huge":
            raise CommandError.from_remote("ValueError", "x" * lane.FRAME_LIMIT, "", "python", "huge")
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

    async def stream(self, request: pb.Request, values: tuple[Any, ...]) -> AsyncGenerator[Any]:
        self.begun[request.id] += 1
        try:
            for number in range(json.loads(request.args.json)):
                self.produced[request.id] += 1
                large = request.command == "large" and number % 3 == 1
                yield Part([Piece(b"%d" % number, [b"x" * 20_000] if large else [])])
            if request.command in ("fail", "wait", "huge"):
                await self._run(request)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.add(request.id)
            raise
        finally:
            self.ended.add(request.id)

    def keep(self, name: str, answered: Any) -> None:
        self.kept[name] = answered

    def forget(self, name: str) -> None:
        self.kept.pop(name, None)


class Worker:
    """The server in a loop of its own thread, which `with` ends."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
        self.counted = 0
        self.loop = new_loop()
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
        for task in self.server.moved:  # no process goes on after its death
            task.cancel()

    async def _over(self) -> None:
        """What was just being accepted is closed, too, and what goes on without callers is ended."""
        for _ in range(10):
            await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

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

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


class FakeSender:
    """What a source asks of its sender."""

    def __init__(self) -> None:
        self.ended_ids: list[str] = []

    def value(self, sent: Sent) -> Any:
        error = sent.ref.exception()
        if error is not None:
            raise error
        return sent.ref.result()

    def check_open(self) -> None:
        """It always is."""

    def our(self, error: Exception, sent: Sent) -> Exception:
        return WorkerCrashed("it died") if isinstance(error, LaneLost) else error

    def too_late(self, sent: Sent) -> Exception:
        return DeadlineExceeded.after(sent.budget, "running")

    def ended(self, sent: Sent) -> None:
        self.ended_ids.append(sent.ref.call.request_id)


class Client:
    """One calling process's lanes to one worker."""

    def __init__(self, worker: Worker, ray: FakeRay | None = None) -> None:
        self.ray = ray or FakeRay()
        self.lanes = Lanes(True, lambda: NODE)
        self.sender = FakeSender()
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

    def stream(
        self,
        count: int = 10**9,
        command: str = "count",
        waits: Waits = Waits.THREAD,
        seconds: float = SECONDS,
    ) -> Any:
        """A source of a stream's parts; None when it must go by Ray."""
        request = pb.Request(id=f"caller-{next(self._numbers)}", command=command, stream=True, pack=True)
        request.args.json = json.dumps(count).encode()

        def fetch(name: str) -> Ref:
            self.lanes.is_too_large(command)
            answer, error = self._worker.commands.kept.pop(name)
            return Ref(error or answer)

        call = LaneStream(request, request.SerializeToString(), fetch)
        inbox = self.lanes.stream(self._worker.lane, "w-0", command, call, waits)
        if inbox is None:
            return None
        sent = Sent(inbox, command, seconds, time.monotonic() + seconds, "w-0")
        make: Any = async_source if waits is Waits.LOOP else source
        return make(self.sender, sent)


def reader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("snakepit-lane-")]


def raw(worker: Worker, *sent: bytes) -> socket.socket:
    """A caller that says what it likes."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SECONDS)
    connection.connect(worker.lane.path)
    with contextlib.suppress(BrokenPipeError):  # the worker has ended it already
        for data in sent:
            connection.sendall(data)
    return connection


class Interrupted(BaseException):
    """As Ctrl-C, and no KeyboardInterrupt that pytest would take for its own."""


def mutated(chance: random.Random, data: bytes) -> bytes:
    kept = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(kept))
        match chance.randrange(3):
            case 0:
                kept[at] = chance.randrange(256)
            case 1:
                del kept[at : at + chance.randint(1, 8)]
            case _:
                kept[at:at] = chance.randbytes(chance.randint(1, 8))
    return bytes(kept)
