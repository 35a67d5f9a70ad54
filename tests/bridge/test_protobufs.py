"""The bridge runs beside the protobuf and the grpcio that an environment already has.

The environments that need an interpreter of their own are those that pin: tensorflow 2.16 to 2.19,
streamlit 1.40, mlflow 2.16 and beam 2.56 need protobuf below 4, 5 or 6."""

from __future__ import annotations

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.environments import environment, found, unavailable
from tests.bridge.harness import BridgeProcess

OLDEST = ("3.9", "protobuf==3.20.0", "grpcio==1.34.0")
NEWEST = ("3.13", "protobuf", "grpcio")
BETWEEN = (
    ("3.11", "protobuf==3.20.3", "grpcio==1.49.1"),  # no wheel with C: protobuf's pure Python
    ("3.10", "protobuf==4.21.12", "grpcio==1.49.1"),
    ("3.12", "protobuf==4.25.*", "grpcio==1.60.0"),
    ("3.11", "protobuf==5.29.*", "grpcio==1.66.0"),
    ("3.12", "protobuf==6.33.*", "grpcio==1.78.*"),
)
PINS = [pytest.param(*pins, id=pins[1]) for pins in (OLDEST, NEWEST)]
PINS += [pytest.param(*pins, id=pins[1], marks=pytest.mark.slow) for pins in BETWEEN]
IMPLEMENTATIONS = ("", "python")  # "": the one that protobuf chooses


@pytest.mark.interpreters
@pytest.mark.parametrize(("version", "protobuf", "grpcio"), PINS)
def test_the_bridge_runs_beside(version: str, protobuf: str, grpcio: str) -> None:
    python = found().get(version)
    if python is None:
        unavailable(f"there is no Python {version} here")
    name = f"{version}-{protobuf}-{grpcio}".replace("==", "-").replace(".*", "")
    for implementation in IMPLEMENTATIONS:
        _serves(environment(name, str(python), protobuf, grpcio), implementation)


def _serves(python: str, implementation: str) -> None:
    env = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation} if implementation else {}
    one = BridgeProcess("commands:Commands", python=python, capacity=2, env=env).start()
    try:
        stream = one.attach()
        assert stream.run("echo", {"value": [1, 2.5, "é"]}) == [1, 2.5, "é"]
        assert stream.run("async_add", {"a": 1, "b": 2}) == 3
        assert stream.failure("deep_error").type == "LookupError"
        request = stream.stream("generator", {"count": 3}, pack=True)
        assert stream.reply(request).end.chunks == 3
        items = b'[{"a": 1, "b": 2}, {"a": "x", "b": 2}]'
        reply = stream.reply(stream.request("async_add", items, batch=pb.Batch(count=2)))
        assert (reply.items, [failed.index for failed in reply.failures]) == (2, [1])
        assert one.unary("/grpc.health.v1.Health/Check") == b"\x08\x01"
        assert _reflected(one) == b"snakepit.v1.Interpreter"
        one.process.terminate()
        assert one.wait(20) == 0
    finally:
        one.stop()


def _reflected(one: BridgeProcess) -> bytes:
    """The first service that reflection lists that is ours, of the raw answer."""
    call = one.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    request = b"\x3a\x00"  # list_services
    (answer,) = call(iter([request]), metadata=one.metadata(), timeout=10)
    name = b"snakepit.v1.Interpreter"
    return name if name in answer else answer
