"""The golden cases of bridge/conformance, against the Python bridge."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path

import pyarrow as pa
import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.harness import ROOT, BridgeProcess, Stream

FILES = sorted((ROOT / "bridge" / "conformance").glob("*.json"))
CASES = [(file.stem, case) for file in FILES for case in json.loads(file.read_text())["cases"]]


def wire(case: dict) -> tuple[bytes, list[bytes]]:
    """The arguments object of a case as it is sent."""
    text = case["text"] if "text" in case else json.dumps(case["json"], ensure_ascii=False)
    buffers = [base64.b64decode(buffer) for buffer in case.get("buffers", [])]
    return b'{"value":' + text.encode() + b"}", buffers


def buffers_in_order(value, buffers: list[bytes]):
    """`value` with each buffer's index replaced by its contents; tables as tables."""
    if isinstance(value, list):
        return [buffers_in_order(item, buffers) for item in value]
    if isinstance(value, dict):
        if value.get("$snakepit") == "table":
            return pa.ipc.open_stream(buffers[value["buffer"]]).read_all()
        if "$snakepit" in value and "buffer" in value:
            return {**value, "buffer": buffers[value["buffer"]]}
        return {key: buffers_in_order(item, buffers) for key, item in value.items()}
    return value


def same(left, right) -> bool:
    """Equality that tells 1 from 1.0, 0.0 from -0.0 and True from 1."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return left == right


def echoed(stream: Stream, case: dict) -> pb.Reply:
    data, buffers = wire(case)
    return stream.reply(stream.request("echo", data, buffers))


@pytest.fixture(scope="module")
def attached(commands: BridgeProcess):
    """One attachment for all cases: what a refused one does to the next would show."""
    stream = commands.attach()
    yield stream
    stream.close()


@pytest.mark.parametrize(("file", "case"), CASES, ids=[f"{file}-{case['name']}" for file, case in CASES])
def test_golden_case(attached: Stream, file: str, case: dict) -> None:
    reply = echoed(attached, case)
    if case.get("refused"):
        assert pb.Failure.Kind.Name(reply.failure.kind) == "INVALID_ARGUMENTS"
        assert reply.failure.message.startswith(('args["value"]', "args:"))
        return
    assert reply.WhichOneof("outcome") == "value", reply.failure.message
    sent, buffers = wire(case)
    back = buffers_in_order(json.loads(reply.value.json), [b.inline for b in reply.value.buffers])
    assert same(back, buffers_in_order(json.loads(sent)["value"], buffers))


@pytest.fixture(scope="module")
def answered(commands: BridgeProcess):
    """An attachment whose host answers each call with its arguments."""
    stream = commands.attach(on_host_call=lambda call: pb.HostReply(id=call.id, value=call.args))
    yield stream
    stream.close()


@pytest.mark.parametrize(
    ("file", "case"),
    [(file, case) for file, case in CASES if not case.get("refused")],
    ids=[f"{file}-{case['name']}" for file, case in CASES if not case.get("refused")],
)
def test_golden_case_there_and_back_in_a_call_to_the_host(answered: Stream, file: str, case: dict) -> None:
    sent, buffers = wire(case)
    reply = answered.reply(answered.request("ask_for", sent, buffers))
    assert reply.WhichOneof("outcome") == "value", reply.failure.message
    back = buffers_in_order(json.loads(reply.value.json), [b.inline for b in reply.value.buffers])
    assert same(back, buffers_in_order(json.loads(sent)["value"], buffers))


@pytest.mark.parametrize(
    "case",
    [case for _, case in CASES if case.get("refused")],
    ids=[case["name"] for _, case in CASES if case.get("refused")],
)
def test_golden_case_that_a_host_must_not_answer(commands: BridgeProcess, case: dict) -> None:
    data, buffers = wire(case)
    places = [pb.Buffer(inline=buffer) for buffer in buffers]
    answer = pb.Payload(json=data, buffers=places)
    stream = commands.attach(on_host_call=lambda call: pb.HostReply(id=call.id, value=answer))
    failed = stream.failure("ask_for", {"value": 1})
    assert (failed.kind, failed.type) == ("COMMAND", "HostError")
    assert failed.message.startswith(('reply["value"]', "reply:"))
    stream.close()


def test_the_cases_are_there_and_their_names_are_unique() -> None:
    names = [(file, case["name"]) for file, case in CASES]
    assert len(names) == len(set(names)) > 50
    assert {Path(file).stem for file in map(str, FILES)} == {
        "scalars",
        "containers",
        "binary",
        "tables",
        "refused",
    }
