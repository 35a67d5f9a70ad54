"""The function of a tool: what kind it is, how its arguments are bound, and what it calls."""

from __future__ import annotations

import functools
import time
from typing import Any

import pytest

from snakepit_ray.client.tool_info import of_hint, schema_of
from snakepit_ray.config import CallOptions, PoolConfig
from snakepit_ray.errors import InvalidArguments
from snakepit_ray.port import tool_running
from snakepit_ray.port.tool_messages import ToolCall
from snakepit_ray.runtimes import resolve_runtime
from snakepit_ray.wire import chains
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import decode_value
from snakepit_ray.wire.requests import RequestBuilder

BUILDER = RequestBuilder(PoolConfig.build(name="p", size=1), resolve_runtime("python"), None, lambda: "r")


def call(args: bytes = b"{}", **fields: Any) -> ToolCall:
    chain = pb.Chain(root="root", began_ms=5, calls=["a.b"]).SerializeToString()
    return ToolCall(1, "id", "t", args, (), chain=chain, **fields)


class Calls:
    def __call__(self, a: int) -> int:
        return a


class Yields:
    async def __call__(self) -> Any:
        yield 1


async def coroutine() -> int:
    return 1


def generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "is_stream", "is_async"),
    [
        (len, False, False),
        (Calls(), False, False),
        (Yields(), True, True),
        (coroutine, False, True),
        (generator, True, False),
        (functools.partial(functools.partial(coroutine)), False, True),
        (dict, False, False),
    ],
)
def test_kinds(function: Any, is_stream: bool, is_async: bool) -> None:
    assert (tool_running.is_stream(function), tool_running.is_async(function)) == (is_stream, is_async)


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (b"{}", "missing a required argument: 'a'; it takes a, b=1"),
        (b'{"a":1,"c":2}', "got an unexpected keyword argument 'c'; it takes a, b=1"),
        (b"[1]", r"its arguments are an object, got \[1\]"),
    ],
)
def test_wrong_arguments_do_not_reach_the_function(args: bytes, why: str) -> None:
    def function(a: int, b: int = 1) -> None:
        raise AssertionError("it was called")

    with pytest.raises(InvalidArguments, match=why):
        tool_running.bound(function, call(args))
    failure = pb.Failure.FromString(tool_running.run(function, call(args)).failure)
    assert (failure.kind, failure.type) == (pb.Failure.INVALID_ARGUMENTS, "InvalidArguments")


def test_a_value_and_its_error() -> None:
    answer = tool_running.run(lambda a: {"twice": a * 2}, call(b'{"a":2}'))
    assert decode_value(answer.json, answer.buffers, "x") == {"twice": 4}
    assert tool_running.run(coroutine, call()).json == b"1"

    def leaves() -> None:
        raise SystemExit(3)

    failure = pb.Failure.FromString(tool_running.run(leaves, call()).failure)
    assert (failure.type, failure.message) == ("SystemExit", "3")
    assert failure.traceback.count("File ") == 1, "it begins at the tool's own code"


def test_a_generator_is_closed_with_its_values() -> None:
    closed: list[str] = []

    def endless() -> Any:
        try:
            while True:
                yield 1
        finally:
            closed.append("closed")

    values = tool_running.values(endless, call())
    assert next(values).json == b"1"
    values.close()
    assert closed == ["closed"]


def test_what_it_calls_is_of_its_chain_and_has_no_more_time() -> None:
    told: list[str] = []
    with tool_running.on_behalf_of(call(seconds=5.0), time.monotonic(), lambda: told.append("calls")):
        inside, _ = BUILDER.build("c", {}, CallOptions())
        short, _ = BUILDER.build("c", {}, CallOptions(timeout=1.0))
    outside, _ = BUILDER.build("c", {}, CallOptions())
    assert (inside.chain.root, list(inside.chain.calls)) == ("root", ["a.b"])
    assert 4000 < inside.budget_ms <= 5000
    assert not inside.options.default_budget, "a command's own timeout does not take its place"
    assert short.budget_ms <= 1000
    assert told == ["calls"] * 2
    assert not outside.HasField("chain")
    assert outside.budget_ms == 60_000


def test_a_chain_grows_to_its_limit() -> None:
    chain = None
    for number in range(chains.MOST_CALLS):
        chain = chains.lengthened(chain, f"r{number}", f"p.c{number}", f"p-{number}", number)
    assert chain is not None
    assert (chain.root, chain.began_ms, len(chain.calls)) == ("r0", 0, chains.MOST_CALLS)
    with pytest.raises(InvalidArguments, match=r"17 deep, at most 16 are allowed: p\.c0 -> p\.c1"):
        chains.lengthened(chain, "r", "p.c", "p-0", 0)
    assert chains.worker_of(chain, "p") == "p-15"
    assert chains.worker_of(chain, "another") is None


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (int, {"type": "integer"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (int | bytes, {}),
        (list, {"type": "array"}),
        (Any, {}),
        (None, {}),
    ],
)
def test_hints(hint: Any, schema: dict[str, Any]) -> None:
    assert of_hint(hint) == schema


def test_a_schema_of_what_is_open() -> None:
    schema = schema_of(lambda *a, b=3, **more: None)
    assert schema == {"type": "object", "additionalProperties": True, "properties": {"b": {"default": 3}}}
    assert schema_of(type) == {"type": "object"}
