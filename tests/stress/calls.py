"""The callers of a stress run: they send, cancel, take chunks or leave, and note how each call ended."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np

from snakepit_ray.errors import RequestCancelled, SnakepitError, WorkerCrashed
from snakepit_ray.supervisor import Done, Stream, Supervisor
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Part, encode_args
from snakepit_ray.wire.replies import error_of, outcome
from tests.stress import inside
from tests.stress.accounts import CANCELLED, PART, VALUE, End, Fate
from tests.stress.plan import Call
from tests.supervisor.harness import request


class Caller:
    """Everybody who calls the worker of a run."""

    def __init__(self, worker: Supervisor) -> None:
        self.fates: dict[str, Fate] = {}
        self._worker = worker
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._entered = self._perhaps = 0

    @property
    def entered(self) -> tuple[int, int]:
        """The least and the most calls that have come to the worker, of a batch each item: a stream that is
        closed at once never comes to it."""
        return self._entered, self._entered + self._perhaps

    def begin(self, call: Call) -> None:
        """Sends `call`, and cancels it when its time has come."""
        self.fates[call.id] = Fate(call, [])
        sent, beside = _request(call)
        body = self._stream(call, sent) if call.is_stream else self._call(call, sent, beside)
        task = self._tasks[call.id] = asyncio.ensure_future(self._watched(call, body))
        if call.cancelled_after is not None:
            asyncio.get_running_loop().call_later(call.cancelled_after, task.cancel)

    async def finished(self, seconds: float) -> list[tuple[Call, asyncio.Task[None]]]:
        """Waits for all calls; those that have not ended within `seconds`."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=seconds)
        return [(self.fates[id].call, task) for id, task in self._tasks.items() if not task.done()]

    def let_go(self) -> None:
        """Nothing is kept of the results."""
        self._tasks.clear()

    async def _watched(self, call: Call, body: Any) -> None:
        try:
            end = await body
        except (asyncio.CancelledError, RequestCancelled):
            # A cancel that comes before the first step leaves the body alone: it is closed here.
            body.close()
            end = End(CANCELLED)
        except SnakepitError as error:
            end = End(error.with_traceback(None))
            if call.items and isinstance(error, WorkerCrashed) and error.begun:
                self._entered -= len(call.items) - error.begun  # the others come again as another request
            error.__cause__ = error.__context__ = None  # frames hold buffers
        except Exception as error:
            end = End(PART, wrong=f"raised {error!r}")
        self.fates[call.id].ends.append(end)

    async def _call(self, call: Call, sent: pb.Request, beside: list[Any]) -> End:
        self._entered += len(call.tags)
        with self._worker.cargo.of(sent.id, beside):
            done = await self._worker.execute(sent, may_move=False)
        assert isinstance(done, Done)
        value = outcome(done.answer.reply, done.answer.buffers, sent, None).value()
        await asyncio.sleep(call.held)
        failures = done.answer.reply.failures
        cut = sum(one.failure.kind in (pb.Failure.DEADLINE, pb.Failure.CANCELLED) for one in failures)
        return End(VALUE, len(failures), _wrong(call, value, is_cut=cut > 0), cut)

    async def _stream(self, call: Call, sent: pb.Request) -> End:
        self._perhaps += 1
        stream, chunks = Stream(self._worker, sent), 0
        try:
            while pieces := await _next(stream, sent):
                for chunk in Part(pieces).values():
                    if wrong := _wrong_chunk(chunk, chunks):
                        return End(PART, wrong=wrong)
                    chunks += 1
                if chunks >= call.taken:
                    return End(PART)
                await asyncio.sleep(0.005 * call.is_slow)
            if (failure := inside.failure_of(stream)) is not None:
                raise error_of(failure, call.command)
            if chunks != call.args["count"]:
                return End(PART, wrong=f"{chunks} chunks of {call.args['count']}")
            return End(VALUE)
        finally:
            stream.close()


async def _next(stream: Stream, sent: pb.Request) -> list[Any]:
    if sent.pack:
        return list(await stream.part())
    piece = await stream.one()
    return [] if piece is None else [piece]


def _request(call: Call) -> tuple[pb.Request, list[Any]]:
    sent = request(call.command, call.id, budget=call.budget, queue=call.queue)  # type: ignore[arg-type]
    sent.options.idempotent, sent.options.retries, sent.session = call.idempotent, call.retries, call.session
    sent.pack = call.packed
    beside: list[Any] = []
    if call.items:
        items = [{"tag": tag, **item} for tag, item in zip(call.tags, call.items, strict=True)]
        sent.args.json, sent.batch.count, sent.options.errors = json.dumps(items).encode(), len(items), 1
        return sent, beside
    args = {"tag": call.id, **call.args}
    if call.array:
        args["x"] = np.full(call.array, call.fill, "u1")
    encoded = encode_args(args)
    sent.args.CopyFrom(inside.payload(encoded.json, encoded.buffers, beside))
    return sent, beside


def _wrong(call: Call, value: Any, *, is_cut: bool = False) -> str:
    if call.items:
        right = [tag for tag, item in zip(call.tags, call.items, strict=True) if not item.get("bad", True)]
        given = [one for one in value if isinstance(one, str)]
        if is_cut:  # the others were not run
            right = [tag for tag in right if tag in given]
        return "" if given == right else f"values {given}, not {right}"
    if call.array:
        same = np.array_equal(value["y"], np.full(call.array, call.fill + 1, "u1"))
        return "" if same else "the array is another one"
    expected = f"{call.id} ToolNotFound" if call.command == "asks_host" else call.id
    return "" if str(value).startswith(expected.split()[0]) else f"value {value!r}, not {expected!r}"


def _wrong_chunk(chunk: Any, index: int) -> str:
    got, expected = (int(chunk[0]), index % 256) if isinstance(chunk, np.ndarray) else (chunk, index)
    return "" if got == expected else f"chunk {index} is {got}, not {expected}"
