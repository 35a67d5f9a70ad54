"""Calls of an interpreter to its host, over the wire: the real bridge, the real connection, handlers of the
test's own. Whatever becomes of a call, no task and no segment is left."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakepit_ray.errors import CommandError, VersionConflict
from snakepit_ray.rpc.host_calls import IN_FLIGHT
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded, decode_value, encode_value
from snakepit_ray.wire.host_call import HostCall, HostHandler
from snakepit_ray.worker.host_calls import HostMethods, worker_methods
from tests.supervisor.harness import ROOT, run, spec, until

ASKING = str(ROOT / "tests/adapters/asking.py") + ":Asking"
LARGE = 1_000_000  # bytes: out of band
KIND = pb.Failure.Kind


class Desk:
    """Handlers that count who is inside, and what was left unfinished."""

    def __init__(self) -> None:
        self.inside = self.most = self.left = 0
        self.calls: list[HostCall] = []
        self.free = asyncio.Event()

    def handlers(self) -> dict[str, HostHandler]:
        names = (
            "echo",
            "number",
            "for_ever",
            "sync",
            "double",
            "raise",
            "conflict",
            "remote",
            "cannot",
            "bare",
        )
        streams = ("count", "arrays", "breaks", "stuck")
        return {name: getattr(self, f"{name}_") for name in (*names, *streams)}

    async def echo_(self, call: HostCall) -> Encoded:
        self.calls.append(call)
        return Encoded(call.payload.json, list(call.payload.buffers), [])

    async def number_(self, call: HostCall) -> Encoded:
        self.inside += 1
        self.most = max(self.most, self.inside)
        for _ in range(3):
            await asyncio.sleep(0)
        self.inside -= 1
        return encode_value(json.loads(call.payload.json)["number"])

    async def for_ever_(self, call: HostCall) -> Encoded:
        self.calls.append(call)
        try:
            await asyncio.Event().wait()
        finally:
            self.left += 1
        raise AssertionError

    async def sync_(self, call: HostCall) -> Encoded:
        return encode_value(len(self.calls))

    async def double_(self, call: HostCall) -> Encoded:
        array = decode_value(call.payload.json, call.payload.buffers)["array"]
        return encode_value(array * 2)

    async def raise_(self, call: HostCall) -> Encoded:
        raise LookupError("no such thing: \ud800")

    async def conflict_(self, call: HostCall) -> Encoded:
        error = VersionConflict("it is at 7")
        error.actual = 7  # type: ignore[attr-defined]
        raise error

    async def remote_(self, call: HostCall) -> Encoded:
        raise CommandError.from_remote("TypeError", "in node", "at line 5 of it", "node", "double")

    async def cannot_(self, call: HostCall) -> Encoded:
        return encode_value({"x": object()})

    async def bare_(self, call: HostCall) -> Encoded:
        return {"x": 1}  # type: ignore[return-value]

    async def count_(self, call: HostCall) -> AsyncIterator[Encoded]:
        try:
            for number in range(json.loads(call.payload.json)["count"]):
                yield encode_value(number)
        finally:
            self.left += 1

    async def arrays_(self, call: HostCall) -> AsyncIterator[Encoded]:
        args = json.loads(call.payload.json)
        try:
            for number in range(args["count"]):
                yield encode_value(np.full(args.get("size", LARGE), number % 256, "u1"))
        finally:
            self.left += 1

    async def breaks_(self, call: HostCall) -> AsyncIterator[Encoded]:
        yield encode_value(0)
        raise ValueError("in the midst")

    async def stuck_(self, call: HostCall) -> AsyncIterator[Encoded]:
        self.calls.append(call)
        try:
            yield encode_value(0)
            await asyncio.Event().wait()
        finally:
            self.left += 1


@asynccontextmanager
async def asking(
    tmp_path: Path, handlers: Mapping[str, HostHandler], **changes: Any
) -> AsyncIterator[Interpreter]:
    """An interpreter whose calls are answered by these handlers. At the end nothing of them is left."""
    before = asyncio.all_tasks()
    made = spec(tmp_path, **{"adapter": ASKING, "adapter_args": {}, **changes})
    epoch = pb.Epoch(incarnation=1, number=1)
    one = await Interpreter.start(made, epoch, HostMethods(handlers).serve, lambda *_: None)
    try:
        yield one
        await until(lambda: one.client.host_calls.in_flight == 0)
        if not one.gone:
            await nothing_is_held(one)
    finally:
        await one.stop()
        one.client.host_calls.close()
    await until(lambda: asyncio.all_tasks() == before)


async def nothing_is_held(one: Interpreter) -> None:
    """Neither end holds a range of the memories."""
    for _ in range(200):
        gc.collect()
        held = await ask(one, "held")
        if one.arena._space.used == 0 and held == {"results": 0, "arguments": 0}:
            return
    raise AssertionError(f"held: {held} there, {one.arena._space.used} bytes of arguments here")


numbers = iter(range(1_000_000))


def begin(one: Interpreter, command: str, budget: float = 30.0, **args: Any) -> tuple[str, Any]:
    """The id of a request, and the future of its Reply: None where the stream ends first."""
    reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    fields = {name[1:]: args.pop(name) for name in list(args) if name[0] == "_"}
    made = pb.Request(
        id=f"r{next(numbers)}",
        command=command,
        args=pb.Payload(json=json.dumps(args).encode()),
        budget_ms=int(budget * 1000),
        **fields,
    )
    one.client.request(made, reply.set_result)
    return made.id, reply


async def ask(one: Interpreter, command: str, **args: Any) -> Any:
    reply = await begin(one, command, **args)[1]
    assert reply is not None and not reply.HasField("failure"), reply
    return json.loads(reply.value.json)


def test_a_thousand_calls_at_once_are_never_more_than_the_bound(tmp_path: Path) -> None:
    async def body() -> None:
        desk = Desk()
        async with asking(tmp_path, desk.handlers()) as one:
            assert await ask(one, "many", method="number", count=1000) == sum(range(1000))
        assert 1 < desk.most <= IN_FLIGHT

    run(body)


def test_commands_in_threads_ask_at_the_same_time(tmp_path: Path) -> None:
    async def body() -> None:
        changes = {"config": {**spec(tmp_path, adapter=ASKING, adapter_args={}).config}}
        changes["config"].update(capacity=4, thread_profile=True)
        async with asking(tmp_path, Desk().handlers(), **changes) as one:
            sums = [ask(one, command, method="count", count=1000) for command in ("sums", "asums") * 4]
            answers = [ask(one, "ask", method="echo", payload=number) for number in range(50)]
            found = await asyncio.gather(*sums, *answers)
        assert found == [sum(range(1000))] * 8 + [{"payload": number} for number in range(50)]

    run(body)


def test_what_a_handler_is_told(tmp_path: Path) -> None:
    async def body() -> None:
        desk = Desk()
        traced = {"_traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "_tracestate": "k=v"}
        chain = pb.Chain(root="r-0", began_ms=5, calls=["other.first", "test.ask"])
        async with asking(tmp_path, desk.handlers()) as one:
            asked, reply = begin(one, "ask", method="echo", payload=1, _session="s", _chain=chain, **traced)
            assert json.loads((await reply).value.json) == {"payload": 1}
            assert await ask(one, "ask", method="echo") == {"payload": None}
        call, plain = desk.calls
        assert (call.method, call.worker_id, call.request_id, call.session) == ("echo", "w-0", asked, "s")
        assert (call.traceparent, call.tracestate) == (traced["_traceparent"], "k=v")
        assert call.chain == chain and plain.chain is None
        assert call.deadline is not None and plain.traceparent == ""

    run(body)


@pytest.mark.parametrize("command", ["ask", "aask", "sums", "asums"])
def test_a_request_that_is_cancelled_cancels_its_calls_at_the_host(tmp_path: Path, command: str) -> None:
    async def body() -> None:
        desk = Desk()
        args = {"method": "for_ever"} if "ask" in command else {"method": "stuck", "count": 0}
        async with asking(tmp_path, desk.handlers()) as one:
            asked, reply = begin(one, command, **args)
            await until(lambda: bool(desk.calls))
            one.client.cancel(asked, pb.Cancel.CALLER)
            await until(lambda: desk.left == 1)
            assert (await reply).failure.kind == KIND.CANCELLED

    run(body)


def test_a_call_that_its_command_gives_up_is_cancelled_at_the_host(tmp_path: Path) -> None:
    async def body() -> None:
        desk = Desk()
        async with asking(tmp_path, desk.handlers()) as one:
            assert await ask(one, "gives_up", method="for_ever") is True
            await until(lambda: desk.left == 1)

    run(body)


def test_the_budget_of_a_request_is_that_of_its_calls(tmp_path: Path) -> None:
    async def body() -> None:
        desk = Desk()
        async with asking(tmp_path, desk.handlers()) as one:
            _, reply = begin(one, "ask", budget=0.2, method="for_ever")
            assert (await reply).failure.kind == KIND.DEADLINE
            await until(lambda: desk.left == 1)
        assert desk.calls[0].deadline is not None

    run(body)


@pytest.mark.parametrize("shared_memory", [64 << 20, 3 << 20, 0], ids=["room", "full", "none"])
def test_arrays_go_both_ways(tmp_path: Path, shared_memory: int) -> None:
    """Where there is room through the arena, else in the message."""

    async def body() -> None:
        desk = Desk()
        async with asking(tmp_path, desk.handlers(), shared_memory=shared_memory) as one:
            assert await ask(one, "doubles", size=LARGE, rounds=20) == 20
            assert await ask(one, "doubles", size=LARGE * 5, rounds=3) == 3
            assert await ask(one, "array_stream", size=LARGE, count=30) == 30

    run(body)


def test_a_call_that_is_cancelled_gives_its_memory_back(tmp_path: Path) -> None:
    async def body() -> None:
        desk = Desk()
        async with asking(tmp_path, desk.handlers(), shared_memory=8 << 20) as one:
            for number in range(10):  # more than there is
                asked, reply = begin(one, "sends_and_is_cancelled", size=LARGE)
                await until(lambda number=number: len(desk.calls) > number)  # type: ignore[misc]
                desk.calls[number] = None  # type: ignore[call-overload] # it holds the buffers
                one.client.cancel(asked, pb.Cancel.CALLER)
                await reply
            assert "find no place" not in one.child.stderr.tail

    run(body)


def test_what_a_handler_raises_arrives_with_type_details_and_traceback(tmp_path: Path) -> None:
    async def body() -> None:
        async with asking(tmp_path, Desk().handlers()) as one:
            said = await ask(one, "fails", method="raise")
            assert (said["kind"], said["type"]) == (KIND.COMMAND, "LookupError")
            assert "no such thing" in said["message"]
            assert "in raise_" in said["traceback"]
            said = await ask(one, "fails", method="conflict")
            assert (said["type"], said["details"]["actual"]) == ("VersionConflict", 7)
            said = await ask(one, "fails", method="remote")
            assert (said["type"], said["message"], said["traceback"]) == (
                "TypeError",
                "in node",
                "at line 5 of it",
            )

    run(body)


@pytest.mark.parametrize(
    ("method", "kind", "words"),
    [
        ("cannot", KIND.ENCODING, 'value["x"]: cannot encode object'),
        ("bare", KIND.COMMAND, "a handler gives Encoded values"),
        ("count", KIND.INVALID_ARGUMENTS, "call it with host_stream"),
        ("no.such", KIND.TOOL_NOT_FOUND, "it has arrays, bare"),
    ],
)
def test_what_cannot_be_answered_says_why(tmp_path: Path, method: str, kind: int, words: str) -> None:
    async def body() -> None:
        async with asking(tmp_path, Desk().handlers()) as one:
            said = await ask(one, "fails", method=method)
            assert said["kind"] == kind and words in said["message"]
            assert await ask(one, "ask", method="sync") == 0

    run(body)


@pytest.mark.parametrize("command", ["sums", "asums"])
def test_a_stream_of_many_values(tmp_path: Path, command: str) -> None:
    async def body() -> None:
        desk = Desk()
        async with asking(tmp_path, desk.handlers()) as one:
            assert await ask(one, command, method="count", count=10_000) == sum(range(10_000))
            assert await ask(one, command, method="count", count=0) == 0
            assert await ask(one, command, method="sync", count=0) == 0, "one answer is a stream of one"
            assert desk.left == 2

    run(body)


@pytest.mark.parametrize("how", ["close", "with", "drop", "keep"])
@pytest.mark.parametrize("method", ["count", "arrays"])
def test_a_stream_whose_consumer_leaves_ends_at_the_host(tmp_path: Path, method: str, how: str) -> None:
    async def body() -> None:
        desk = Desk()
        async with asking(tmp_path, desk.handlers(), shared_memory=256 << 20) as one:
            asked, reply = begin(one, "takes", method=method, count=3, how=how)
            assert json.loads((await reply).value.json) == 3
            if how == "keep":  # it outlives its request, and ends with its budget's end or its own
                assert desk.left == 0
                one.client.host_calls.cancel_request(asked)
            await until(lambda: desk.left == 1)
            if how == "keep":
                one.child.kill_now()
                await one.client.lost

    run(body)


@pytest.mark.parametrize("how", ["close", "drop"])
def test_an_async_stream_whose_consumer_leaves_ends_at_the_host(tmp_path: Path, how: str) -> None:
    async def body() -> None:
        desk = Desk()
        async with asking(tmp_path, desk.handlers()) as one:
            assert await ask(one, "atakes", method="arrays", count=3, how=how) == 3
            await until(lambda: desk.left == 1)

    run(body)


def test_a_stream_that_fails_ends_with_the_failure(tmp_path: Path) -> None:
    async def body() -> None:
        async with asking(tmp_path, Desk().handlers()) as one:
            _, reply = begin(one, "sums", method="breaks", count=0)
            failure = (await reply).failure
            assert (failure.type, failure.message) == ("HostError", "in the midst")

    run(body)


@pytest.mark.parametrize("method", ["for_ever", "stuck"])
def test_an_interpreter_that_is_killed_in_a_call_leaves_nothing(tmp_path: Path, method: str) -> None:
    async def body() -> None:
        desk = Desk()
        async with asking(tmp_path, desk.handlers()) as one:
            command = "sends_and_is_cancelled" if method == "for_ever" else "sums"
            args = {"size": LARGE} if method == "for_ever" else {"method": method, "count": 0}
            _, reply = begin(one, command, **args)
            await until(lambda: bool(desk.calls))
            desk.calls.clear()
            one.child.kill_now()
            assert await reply is None
            assert await one.client.lost

    run(body)


def test_a_host_that_closes_the_stream_ends_the_calls(tmp_path: Path) -> None:
    async def body() -> None:
        desk = Desk()
        async with asking(tmp_path, desk.handlers()) as one:
            begin(one, "ask", method="for_ever")
            await until(lambda: bool(desk.calls))
            await one.client.close()
            await until(lambda: desk.left == 1)

    run(body)


def test_what_every_worker_answers(tmp_path: Path) -> None:
    async def body() -> None:
        methods = worker_methods("w-0", "test", "node", lambda: (1, 2))
        async with asking(tmp_path, methods._handlers) as one:
            said = await ask(one, "ask", method="worker.info")
            assert said == {"worker_id": "w-0", "pool": "test", "node_id": "node", "epoch": [1, 2]}

    run(body)


STORM: list[tuple[str, dict[str, Any]]] = [
    ("ask", {"method": "echo", "payload": "x" * 100}),
    ("aask", {"method": "for_ever"}),
    ("ask", {"method": "for_ever"}),
    ("many", {"method": "number", "count": 300}),
    ("sums", {"method": "count", "count": 500}),
    ("asums", {"method": "count", "count": 500}),
    ("sums", {"method": "stuck", "count": 0}),
    ("takes", {"method": "arrays", "count": 2, "how": "drop"}),
    ("atakes", {"method": "arrays", "count": 2, "how": "close"}),
    ("doubles", {"size": LARGE // 10, "rounds": 5}),
    ("array_stream", {"size": LARGE // 10, "count": 80}),
    ("fails", {"method": "raise"}),
]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_cancelled_in_whatever_moment_nothing_is_left(tmp_path: Path, seed: int) -> None:
    """Many kinds of calls in several threads and on a loop, most of them cancelled somewhere on their way."""
    chance = random.Random(seed)

    async def cancelled_somewhere(one: Interpreter, command: str, args: dict[str, Any]) -> int:
        asked, reply = begin(one, command, **args)
        for _ in range(chance.randrange(200)):
            await asyncio.sleep(0)
        if chance.random() < 0.7 or args.get("method") in ("for_ever", "stuck"):
            one.client.cancel(asked, pb.Cancel.CALLER)
        answered = await reply
        return int(answered.failure.kind if answered.HasField("failure") else KIND.KIND_UNSPECIFIED)

    async def body() -> None:
        config = dict(spec(tmp_path, adapter=ASKING, adapter_args={}).config)
        config.update(capacity=6, thread_profile=True)
        async with asking(tmp_path, Desk().handlers(), config=config, shared_memory=16 << 20) as one:
            chosen = [chance.choice(STORM) for _ in range(150)]
            ends = await asyncio.gather(*(cancelled_somewhere(one, *each) for each in chosen))
            assert set(ends) <= {KIND.KIND_UNSPECIFIED, KIND.CANCELLED}

    run(body)
