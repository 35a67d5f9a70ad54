"""Every Python that is found runs the bridge, with nothing but grpcio and protobuf."""

from __future__ import annotations

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.environments import environment, found
from tests.bridge.harness import BridgeProcess
from tests.bridge.test_host_calls import ASKING

PACKAGES = ("grpcio", "protobuf")


@pytest.mark.interpreters
@pytest.mark.parametrize(("version", "python"), found().items(), ids=list(found()))
def test_a_python_runs_the_bridge(version: str, python: str) -> None:
    one = BridgeProcess(
        "commands:Commands", python=environment(version, python, *PACKAGES), capacity=2
    ).start()
    try:
        assert one.ready["version"].startswith(f"{version}.")
        stream = one.attach()
        assert stream.run("echo", {"value": [1, 2.5, "é", {"$snakepit": "float", "value": "nan"}]})[:3] == [
            1,
            2.5,
            "é",
        ]
        assert stream.run("async_add", {"a": 1, "b": 2}) == 3
        assert (
            stream.failure("async_add", {"a": "1", "b": 2}).message == "async_add: a must be int, got str '1'"
        )
        assert stream.failure("deep_error").type == "LookupError"
        assert "numpy is needed" in stream.failure("echo", _array(), [b"12345678"]).message
        for name, count in (("generator", 3), ("async_generator", 1)):
            request = stream.stream(name, {"count": 3} if name == "generator" else {}, pack=True)
            assert stream.reply(request).end.chunks == count
        request = stream.request("sleep_until_cancelled", budget_ms=20)
        assert "its budget ended" in stream.reply(request).failure.message
        assert one.unary("/grpc.health.v1.Health/Check") == b"\x08\x01"
        assert stream.run("grpc_aio").startswith("grpc.aio")
        one.process.terminate()
        assert one.wait(20) == 0
    finally:
        one.stop()


@pytest.mark.interpreters
@pytest.mark.parametrize(("version", "python"), found().items(), ids=list(found()))
def test_a_python_asks_its_host(version: str, python: str) -> None:
    one = BridgeProcess(ASKING, python=environment(version, python, *PACKAGES)).start()
    try:
        stream = one.attach()
        for command in ("sums", "asums"):
            request = stream.request(command, {"method": "m", "count": 0})
            call = stream.until(lambda: stream.host_calls)[-1]
            values = [pb.HostReply(id=call.id, value=pb.Payload(json=b"%d" % n)) for n in range(3)]
            stream.send(host_replies=[*values, pb.HostReply(id=call.id, end=pb.StreamEnd(chunks=3))])
            assert stream.result(request) == 3
            stream.host_calls.clear()
        request = stream.request("fails", {"method": "m"})
        call = stream.until(lambda: stream.host_calls)[0]
        failure = pb.Failure(kind=pb.Failure.COMMAND, type="KeyError", message="x", traceback="there")
        stream.send(host_replies=[pb.HostReply(id=call.id, failure=failure)])
        assert stream.result(request)["traceback"] == "there"
    finally:
        one.stop()


def _array() -> dict:
    return {"value": {"$snakepit": "tensor", "buffer": 0, "dtype": "<f8", "shape": []}}


@pytest.mark.interpreters
def test_the_showcase_needs_no_numpy() -> None:
    version, python = next(iter(found().items()))
    one = BridgeProcess("showcase", python=environment(version, python, *PACKAGES)).start()
    try:
        stream = one.attach()
        assert stream.run("create_tensor", {"shape": [2, 1]})["tensor"] == [[0.0], [0.0]]
        assert len(stream.run("generate_embeddings", {"texts": ["a"], "dimensions": 4})["embeddings"][0]) == 4
    finally:
        one.stop()
