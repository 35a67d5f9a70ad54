"""The showcase adapter, command by command."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest

from tests.bridge.harness import BridgeProcess, Stream

UNARY = {
    "adapter_info", "add", "compute", "concurrent_demo", "cpu_bound_task", "create_embedding",
    "create_tensor", "echo", "error_demo", "generate_embeddings", "get_counter", "get_stats",
    "get_worker_info", "increment_counter", "info", "lightweight_task", "ml_analyze_text", "ping",
    "process_binary", "process_images", "process_text", "set_counter", "sleep_task",
}  # fmt: skip


@pytest.fixture(scope="module")
def showcase():
    one = BridgeProcess("showcase", capacity=2, thread_profile=True).start()
    yield one
    one.stop()


@pytest.fixture
def stream(showcase: BridgeProcess):
    one = showcase.attach()
    yield one
    one.close()


def arrays(stream: Stream, command: str, args: dict, buffers=()):
    """(JSON of the result, its tensors)."""
    reply = stream.reply(stream.request(command, args, buffers))
    assert reply.WhichOneof("outcome") == "value", reply.failure.message
    return json.loads(reply.value.json), [buffer.inline for buffer in reply.value.buffers]


def test_every_unary_command_of_the_contract_is_there(showcase) -> None:
    assert set(showcase.ready["commands"]) >= UNARY
    assert all(command["doc"] for command in showcase.ready["commands"].values())


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ("add", {"a": 5, "b": 3}, {"result": 8}),
        ("add", {"a": 0.5, "b": 3}, {"result": 3.5}),
        ("echo", {}, {"echoed": {}}),
        ("echo", {"self": 1, "ctx": 2, "message": "hi"}, {"echoed": {"self": 1, "ctx": 2, "message": "hi"}}),
        ("lightweight_task", {"iteration": 4}, {"iteration": 4, "result": 8}),
        ("sleep_task", {"duration_ms": 1, "task_number": 2}, {"task_number": 2, "slept_ms": 1}),
        ("compute", {"operation": "power", "a": 2, "b": 10}, {"operation": "power", "result": 1024}),
        ("compute", {"operation": "sqrt", "a": 9}, {"operation": "sqrt", "result": 3.0}),
        (
            "process_text",
            {"text": "Abc"},
            {"original": "Abc", "operation": "upper", "result": "ABC", "success": True},
        ),
        (
            "process_text",
            {"text": "Abc", "operation": "length"},
            {"original": "Abc", "operation": "length", "result": 3, "success": True},
        ),
        (
            "process_text",
            {"text": "x", "operation": "no"},
            {
                "success": False,
                "error": "unknown operation 'no'",
                "available_operations": ["length", "lower", "reverse", "upper"],
            },
        ),
    ],
)
def test_small_commands(stream, command: str, args: dict, expected: dict) -> None:
    assert stream.run(command, args) == expected


@pytest.mark.parametrize(
    ("error_type", "raised"), [("value", "ValueError"), ("runtime", "RuntimeError"), ("generic", "Exception")]
)
def test_errors_on_demand(stream, error_type: str, raised: str) -> None:
    failed = stream.failure("error_demo", {"error_type": error_type})
    assert (failed.kind, failed.type) == ("COMMAND", raised)
    assert "error_demo" in failed.traceback


def test_counters_belong_to_sessions(stream) -> None:
    assert stream.run("set_counter", {"value": 5}, session="one") == {"value": 5}
    assert stream.run("increment_counter", session="one") == {"value": 6}
    assert stream.run("increment_counter", session="two") == {"value": 1}
    assert stream.run("get_counter", session="one") == {"value": 6}
    ids = [stream.request("increment_counter", session="storm") for _ in range(100)]
    assert {stream.result(i)["value"] for i in ids} == set(range(1, 101))


def test_it_says_who_it_is(showcase, stream) -> None:
    info = stream.run("get_worker_info", {"call_number": 3}, session="s")
    assert (info["worker_pid"], info["session_id"], info["call_number"]) == (showcase.pid, "s", 3)
    assert stream.run("info")["pid"] == showcase.pid
    assert stream.run("ping")["status"] == "pong"
    assert stream.run("adapter_info")["adapter_name"] == "ShowcaseAdapter"
    stats = stream.run("get_stats", session="s")
    assert stats["success"] is True
    assert 5 < stats["system"]["memory_usage_mb"] < 1000
    assert stats["adapter"]["session_id"] == "s"


def test_work_takes_the_time_that_it_is_given(stream) -> None:
    done = stream.run("cpu_bound_task", {"task_id": "t", "duration_ms": 20})
    assert done["task_id"] == "t"
    assert 0 <= done["result"] < 1_000_000
    assert done["actual_duration_ms"] >= 20
    results = stream.run("concurrent_demo", {"task_count": 4})["results"]
    assert [result["result"] for result in results] == [0, 1, 4, 9]


def test_work_is_cancelled(stream) -> None:
    for command, args in (
        ("sleep_task", {"duration_ms": 20_000}),
        ("cpu_bound_task", {"duration_ms": 20_000}),
    ):
        request = stream.request(command, args, budget_ms=30)
        assert "its budget ended" in stream.reply(request).failure.message


def test_tensors(stream) -> None:
    value, buffers = arrays(stream, "create_tensor", {"shape": [2, 3], "fill_value": 1.5, "name": "t"})
    assert value == {
        "name": "t",
        "shape": [2, 3],
        "elements": 6,
        "size_bytes": 48,
        "encoding": "binary",
        "tensor": {"$snakepit": "tensor", "buffer": 0, "dtype": "<f8", "shape": [2, 3]},
    }
    assert np.frombuffer(buffers[0]).tolist() == [1.5] * 6
    assert "shape must hold" in stream.failure("create_tensor", {"shape": [-1]}).message


def test_embeddings_are_unit_vectors_that_depend_on_the_text(stream) -> None:
    one = stream.run("create_embedding", {"text": "Hello world", "dimensions": 16})
    assert len(one["embedding"]) == 16
    assert one["norm"] == pytest.approx(1)
    assert (
        stream.run("create_embedding", {"text": "hello WORLD", "dimensions": 16})["embedding"]
        == one["embedding"]
    )
    assert (
        stream.run("create_embedding", {"text": "other", "dimensions": 16})["embedding"] != one["embedding"]
    )
    value, buffers = arrays(stream, "generate_embeddings", {"texts": ["Hello world", ""], "dimensions": 16})
    assert (value["count"], value["embeddings"]["shape"]) == (2, [2, 16])
    assert np.frombuffer(buffers[0], "<f4")[:16] == pytest.approx(np.array(one["embedding"], "<f4"))


def test_images(stream) -> None:
    image = [[0, 2], [4, 6]]
    value, buffers = arrays(stream, "process_images", {"images": [image], "return_tensors": True})
    assert value["images"] == [{"shape": [2, 2], "mean": 3.0, "min": 0.0, "max": 6.0}]
    assert np.frombuffer(buffers[0], "<f4").tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    tag = {"$snakepit": "tensor", "buffer": 0, "dtype": "|u1", "shape": [1, 2]}
    assert arrays(stream, "process_images", {"images": [tag]}, [b"\x01\x03"])[0]["images"][0]["mean"] == 2.0
    assert "is empty" in stream.failure("process_images", {"images": [[]]}).message


def test_texts(stream) -> None:
    report = stream.run("ml_analyze_text", {"text": "Good, good work! It is slow."})
    assert (report["words"], report["sentences"], report["unique_words"]) == (6, 2, 5)
    assert report["top_words"][0] == {"word": "good", "count": 2}
    assert report["sentiment"] == {"score": pytest.approx(1 / 3), "label": "positive"}


def test_bytes(stream) -> None:
    args = {"data": {"$snakepit": "bytes", "buffer": 0}}
    data = os.urandom(1000)
    value, _ = arrays(stream, "process_binary", args, [data])
    assert value == {"operation": "checksum", "size": 1000, "result": hashlib.sha256(data).hexdigest()}
    reply = stream.reply(stream.request("process_binary", {**args, "operation": "reverse"}, [data]))
    assert reply.value.buffers[0].inline == data[::-1]
    assert "data must be bytes" in stream.failure("process_binary", {"data": "text"}).message
