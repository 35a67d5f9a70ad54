"""The showcase's streams, on real files where they take one."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.harness import BridgeProcess, CallFailed

STREAMS = {
    "stream_data", "ping_stream", "stream_progress", "stream_fibonacci", "generate_dataset",
    "infinite_stream", "batch_process", "batch_inference", "process_dataset", "process_large_dataset",
    "tail_and_analyze", "distributed_training",
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


def chunks(stream, command: str, **args) -> list:
    """All values of a stream without reports of progress. Raises CallFailed."""
    request = stream.stream(command, args)
    reply = stream.reply(request)
    if reply.WhichOneof("outcome") == "failure":
        raise CallFailed(reply.failure)
    return [value for value in stream.values(request) if "$snakepit" not in value]


def test_every_stream_of_the_contract_is_one(showcase) -> None:
    said = showcase.ready["commands"]
    assert {name for name, command in said.items() if command["stream"]} == STREAMS
    assert all(said[name]["doc"] for name in STREAMS)


def test_counting_streams(stream) -> None:
    data = chunks(stream, "stream_data", count=3, delay=0.001)
    assert [(c["index"], c["is_final"]) for c in data] == [(0, False), (1, False), (2, True)]
    assert [c["message"] for c in chunks(stream, "ping_stream", count=2)] == ["pong 1", "pong 2"]
    assert len(chunks(stream, "ping_stream")) == 10
    steps = chunks(stream, "stream_progress", steps=3, delay_ms=0)
    assert [(c["step"], c["progress"]) for c in steps] == [(1, 33.3), (2, 66.7), (3, 100.0)]
    values = [c["value"] for c in chunks(stream, "stream_fibonacci", count=10)]
    assert values == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]
    made = chunks(stream, "generate_dataset", rows=250, chunk_size=100)
    assert [(c["rows_in_chunk"], c["total_rows"]) for c in made] == [(100, 100), (100, 200), (50, 250)]
    assert {len(c["data_sample"]) for c in made} == {10}


def test_an_infinite_stream_ends_when_it_is_cancelled(stream) -> None:
    request = stream.stream("infinite_stream", {"delay_ms": 1})
    stream.until(lambda: len(stream.values(request)) >= 5)
    stream.cancel(request)
    assert stream.reply(request, 1.0).failure.kind == pb.Failure.CANCELLED
    request = stream.stream("infinite_stream", {"delay_ms": 60_000})
    stream.until(lambda: stream.values(request))
    stream.cancel(request)
    assert stream.reply(request, 1.0).failure.kind == pb.Failure.CANCELLED


def test_batch_process_says_how_far_it_is(stream) -> None:
    got = chunks(stream, "batch_process", items=["a", 2, "c", None])
    assert [c["progress"] for c in got] == [25.0, 50.0, 75.0, 100.0]
    assert [c["result"] for c in got] == ["A", 2, "C", None]
    assert chunks(stream, "batch_process", items=[]) == []


def test_datasets_are_read_in_chunks(stream, tmp_path) -> None:
    rows = [(i, i * 0.5, f"n{i}") for i in range(25)]
    path = tmp_path / "data.csv"
    path.write_text("id,value,name\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    *parts, last = chunks(stream, "process_dataset", file_path=str(path), chunk_size=10)
    assert [c["records_processed"] for c in parts] == [10, 20, 25]
    assert [c["progress"] for c in parts] == [40.0, 80.0, 100.0]
    assert last == {"is_final": True, "total_processed": 25}
    *parts, last = chunks(stream, "process_large_dataset", file_path=str(path), chunk_size=20)
    assert [(c["processed_rows"], c["total_rows"]) for c in parts] == [(20, 25), (25, 25)]
    statistics = last["final_stats"]
    assert statistics["rows"] == 25 and set(statistics["columns"]) == {"id", "value"}
    assert statistics["columns"]["value"] == {"count": 25, "mean": 6.0, "min": 0.0, "max": 12.0}


def test_lines_and_json_lines_are_records_too(stream, tmp_path) -> None:
    lines, text = tmp_path / "a.jsonl", tmp_path / "a.txt"
    lines.write_text("".join(json.dumps({"x": i}) + "\n\n" for i in range(3)))
    text.write_text("one\nthree")
    assert chunks(stream, "process_dataset", file_path=str(lines))[-1]["total_processed"] == 3
    last = chunks(stream, "process_large_dataset", file_path=str(text))[-1]
    assert last["final_stats"]["columns"]["length"] == {"count": 2, "mean": 4.0, "min": 3.0, "max": 5.0}
    (tmp_path / "empty.csv").write_text("")
    assert chunks(stream, "process_dataset", file_path=str(tmp_path / "empty.csv")) == [
        {"is_final": True, "total_processed": 0}
    ]
    with pytest.raises(CallFailed, match="FileNotFoundError"):
        chunks(stream, "process_dataset", file_path=str(tmp_path / "missing.csv"))


def test_a_log_is_followed_also_when_it_is_replaced(stream, tmp_path) -> None:
    log = tmp_path / "app.log"
    log.write_text("INFO up\nplain\nhalf a ")
    request = stream.stream("tail_and_analyze", {"file_path": str(log), "poll_ms": 1})

    def seen() -> list:
        return [value["line"] for value in stream.values(request)]

    stream.until(lambda: seen() == ["INFO up", "plain"])
    with open(log, "a") as file:
        file.write("line\nerror: broken\n")
    stream.until(lambda: seen()[2:] == ["half a line", "error: broken"])
    (tmp_path / "new.log").write_text("WARNING new\n")
    (tmp_path / "new.log").replace(log)
    stream.until(lambda: seen()[4:] == ["WARNING new"])
    last = stream.values(request)[-1]
    assert last["levels"] == {"INFO": 1, "ERROR": 1, "WARN": 1} and last["lines"] == 5
    assert [value["alert"] for value in stream.values(request)] == [False, False, False, True, False]
    stream.cancel(request)
    assert stream.reply(request, 1.0).failure.kind == pb.Failure.CANCELLED
    done = chunks(stream, "tail_and_analyze", file_path=str(log), follow=False)
    assert [value["line"] for value in done] == ["WARNING new"]


def test_training_learns_and_its_model_predicts(stream, tmp_path) -> None:
    source = random.Random(1)
    points = [
        (source.gauss(4 * y - 2, 1), source.gauss(0, 1), y) for y in itertools.islice((0, 1) * 100, 200)
    ]
    data, model = tmp_path / "points.csv", tmp_path / "model.json"
    data.write_text("a,b,label\n" + "".join(f"{a},{b},{y}\n" for a, b, y in points))
    config = {"output_path": str(model), "learning_rate": 0.05}
    *epochs, last = chunks(
        stream, "distributed_training", model_config=config, dataset_path=str(data), epochs=4
    )
    assert [c["epoch"] for c in epochs] == [1, 2, 3, 4]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"] and epochs[-1]["val_acc"] > 0.9
    assert last == {"is_final": True, "final_model_path": str(model)}
    *got, end = chunks(
        stream, "batch_inference", batch_items=[[3.0, 0.0], [-3.0, 0.0]], model_path=str(model)
    )
    assert [c["prediction"] for c in got] == ["positive", "negative"]
    assert all(0.5 <= c["confidence"] <= 1 for c in got) and end == {"is_final": True, "total_processed": 2}


def test_training_and_inference_without_files(stream, tmp_path) -> None:
    config = {"output_path": str(tmp_path / "model.json")}
    got = chunks(stream, "distributed_training", model_config=config)
    assert len(got) == 4 and got[2]["val_acc"] > 0.8
    image = tmp_path / "image.bin"
    image.write_bytes(bytes(range(256)))
    *got, _ = chunks(stream, "batch_inference", batch_items=["a"], images=[str(image), "b.png"])
    assert [c["image"] for c in got] == [None, str(image), "b.png"]
