"""Calls through Ray: values, options, refs, sessions, where they may be made from, and what they cost the
router."""

from __future__ import annotations

import asyncio
import math
import pickle
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.port import ray_port
from tests.ray.conftest import adapter
from tests.ray.harness import driver

pytestmark = pytest.mark.ray


@ray.remote(num_cpus=0)
def call_in_task(pool: Any, a: int) -> Any:
    return ray.get(pool.execute.remote("add", {"a": a, "b": 1}))


class AsyncCaller:
    """An async actor that calls a pool and notes what would have held its own loop."""

    async def call(self, pool: Any, count: int) -> tuple[list[Any], list[str]]:
        loops, held = threading.get_ident(), []

        def noted(name: str, real: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                if threading.get_ident() == loops:
                    held.append(name)
                return real(*args, **kwargs)

            return call

        ray.get, ray.wait = noted("get", ray.get), noted("wait", ray.wait)  # in this actor's process
        return [await pool.execute.remote("add", {"a": i, "b": 0}) for i in range(count)], held


def test_the_same_call_in_every_form(shared: snakepit.Pool) -> None:
    args = {"a": 5, "b": 3}

    async def awaited() -> Any:
        return await shared.execute.remote("add", args), await shared.call("add", args)

    assert ray.get(shared.execute.remote("add", args)) == {"result": 8}
    assert shared.execute("add", args) == {"result": 8}
    assert asyncio.run(awaited()) == ({"result": 8}, {"result": 8})
    assert shared.execute_in_session("s", "echo", {"message": "hi"}) == {"echoed": {"message": "hi"}}
    assert ray.get(shared.execute_in_session.remote("s", "echo", {"m": 1})) == {"echoed": {"m": 1}}
    assert shared.execute.options(timeout=9.0)("add", args) == {"result": 8}


def test_info_says_who_answered_and_what_it_took(shared: snakepit.Pool) -> None:
    reply = shared.execute("sleep_task", {"duration_ms": 50, "task_number": 1}, info=True)
    workers = {worker.worker_id: worker for worker in shared.workers()}
    assert reply.value["task_number"] == 1
    assert reply.pid == workers[reply.worker_id].pid
    assert tuple(reply.epoch) == tuple(workers[reply.worker_id].epoch)
    assert reply.node_id == workers[reply.worker_id].node_id
    assert 0.045 < reply.ran_s < 5.0
    assert reply.attempts == 1 and reply.request_id


def test_the_router_sees_no_request_and_no_result(shared: snakepit.Pool) -> None:
    shared.execute("add", {"a": 0, "b": 0})
    before, requests = shared.message_counts(), shared.stats().requests
    began = time.monotonic()
    answers = ray.get([shared.execute.remote("add", {"a": i, "b": 0}) for i in range(400)])
    seconds = time.monotonic() - began
    after = shared.message_counts()
    assert [answer["result"] for answer in answers] == list(range(400))
    assert shared.stats().requests == requests + 400
    spent = sum(after.values()) - sum(before.values())
    assert spent < 200, f"{spent} router messages for 400 requests in {seconds:.2f} s"
    assert set(after) <= {
        "hold",
        "caller",
        "report",
        "move",
        "watch",
        "snapshot",
        "describe",
        "room",
        "claim",
        "unused",
    }


def test_refs_are_resolved_at_the_worker_and_results_pass_through_undecoded(start: Any) -> None:
    first, second = start(size=1), start(size=1)
    for pool in (first, second):
        assert probe(pool)["decoded"] == 0
    ref = first.execute.remote("add", {"a": 5, "b": 3})
    chained = second.execute.remote("echo", {"was": ref, "plain": ray.put([1, 2.5, "x"])})
    assert ray.get(chained) == {"echoed": {"was": {"result": 8}, "plain": [1, 2.5, "x"]}}
    big = first.execute.remote("echo", {"x": np.arange(100_000.0)})
    again = ray.get(second.execute.remote("echo", {"whole": big}))["echoed"]["whole"]["echoed"]["x"]
    np.testing.assert_array_equal(again, np.arange(100_000.0))
    for pool in (first, second):
        assert probe(pool)["decoded"] == 0, "a worker actor decoded a value"


FRESH = """
ray.shutdown()
environment = {"env_vars": {"SNAKEPIT_TEST": "processes of its own, which no template is forked into"}}
ray.init(address=os.environ["TEST_RAY"], log_to_driver=False, runtime_env=environment)
import numpy as np
from snakepit_ray.port import ray_port
with snakepit.start(name="fresh", size=1, interpreter=sys.executable) as pool:
    worker = ray_port.find_worker(pool.workers()[0].worker_id)
    loaded = [ray.get(worker.probe.remote())["libraries"]]
    pool.execute("echo", {"x": np.arange(100_000.0)})
    loaded.append(ray.get(worker.probe.remote())["libraries"])
    echoed = pool.execute("echo", {"x": ray.put(np.arange(10.0))})["echoed"]["x"]
    print(json.dumps([*loaded, float(echoed.sum())]))
"""


@pytest.mark.slow
def test_a_worker_loads_no_library_of_values_before_a_ref_brings_one(cluster: None) -> None:
    process = driver(FRESH)
    output, _ = process.communicate(timeout=120)
    assert output == "[[], [], 45.0]\n"


def probe(pool: Any) -> dict[str, Any]:
    (worker,) = pool.workers()
    return ray.get(ray_port.find_worker(worker.worker_id).probe.remote())


def test_the_interpreter_is_healthy_and_its_host_answers(start: Any) -> None:
    pool = start(size=1, adapter=adapter("log.py:Log"))
    assert probe(pool)["healthy"]
    (worker,) = pool.workers()
    info = pool.execute("host_info")
    assert info["worker_id"] == worker.worker_id and info["pool"] == pool.name
    assert tuple(info["epoch"]) == tuple(worker.epoch)
    with pytest.raises(snakepit.SnakepitError, match=r"worker\.info"):
        pool.execute("host_unknown")


def test_a_handle_travels_into_tasks_and_actors(shared: snakepit.Pool) -> None:
    assert ray.get([call_in_task.remote(shared, i) for i in range(3)]) == [
        {"result": i + 1} for i in range(3)
    ]
    caller = ray.remote(AsyncCaller).options(num_cpus=0).remote()
    values, held = ray.get(caller.call.remote(shared, 50))
    assert [value["result"] for value in values] == list(range(50))
    assert held == []
    ray.kill(caller)


def test_a_pickled_handle_is_small(shared: snakepit.Pool) -> None:
    assert len(ray.cloudpickle.dumps(shared)) < 20_000
    with pytest.raises(Exception, match=r".*"):
        pickle.loads(b"garbage")  # a handle that is none


def test_sessions_keep_their_state_and_strict_ones_their_worker(start: Any) -> None:
    pool = start(size=3, adapter=adapter("log.py:Log"), affinity="strict_queue")
    names = [f"user-{i}" for i in range(9)]
    refs = {
        name: [pool.execute_in_session.remote(name, "remember", {"value": i}) for i in range(6)]
        for name in names
    }
    for name, waiting in refs.items():
        answers = ray.get(waiting)
        assert {answer["session"] for answer in answers} == {name}
        assert len({answer["pid"] for answer in answers}) == 1, (
            "the first requests of a session were torn apart"
        )
        longest = max((answer["values"] for answer in answers), key=len)
        assert sorted(longest) == [0, 1, 2, 3, 4, 5]
    assert pool.stats().sessions == 9
    homes = {name: ray.get(waiting[0])["pid"] for name, waiting in refs.items()}
    other = ray.get(call_session_in_task.remote(pool, names))
    assert other == homes, "another process found another worker for a session"


@ray.remote(num_cpus=0)
def call_session_in_task(pool: Any, names: list[str]) -> dict[str, int]:
    return {name: pool.session(name).execute("remember", {"value": 7})["pid"] for name in names}


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({"a": 1}, snakepit.InvalidArguments, "b"),
        ({"a": 1, "b": 2, "c": 3}, snakepit.InvalidArguments, "c"),
        ({"a": "one", "b": 2}, snakepit.InvalidArguments, "a"),
        ({"a": object(), "b": 2}, snakepit.EncodingError, r"args\[.a.\]"),
        ({"a": {"x": [0, {1: 2}]}, "b": 2}, snakepit.EncodingError, r"args\[.a.\]\[.x.\]\[1\]"),
        ({"a": "\ud800", "b": 2}, snakepit.EncodingError, "surrogate"),
        (5, snakepit.EncodingError, "mapping"),
    ],
)
def test_bad_arguments(shared: snakepit.Pool, args: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        shared.execute("add", args)
    assert shared.execute("add", {"a": 1, "b": 2}) == {"result": 3}


def test_more_bad_input_harms_nothing(shared: snakepit.Pool) -> None:
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(snakepit.EncodingError, match="200"):
        shared.execute("echo", {"x": deep})
    with pytest.raises(snakepit.PayloadTooLarge) as large:
        shared.execute("echo", {"x": "x" * 200_000_000})
    assert large.value.size > large.value.limit == shared.config.max_message_size
    with pytest.raises(snakepit.UnknownCommand, match="add"):
        shared.execute("ad", {"a": 1, "b": 2})
    with pytest.raises(snakepit.ConfigError, match="timeout"):
        shared.execute("add", {"a": 1, "b": 2}, timeot=3)
    nested = ray.put(1)
    with pytest.raises(snakepit.EncodingError, match="top level"):
        shared.execute("echo", {"x": [nested]})
    assert shared.execute("add", {"a": 1, "b": 2}) == {"result": 3}


@pytest.mark.parametrize(
    "value",
    [
        math.inf, -math.inf, -0.0, 1.0, 5e-324, 2**53 - 1, 2**53, -(2**53) - 1, 2**63, -(2**200), True, None,
        "", "é😀\0", b"", b"\x00\xff",
        {"$snakepit": "bytes"}, {"": {"a": [[], {}]}}, [1, 1.0, "1", None, True],
    ],
    ids=repr,
)  # fmt: skip
def test_values_come_back_as_they_went(shared: snakepit.Pool, value: Any) -> None:
    back = shared.execute("echo", {"x": value})["echoed"]["x"]
    assert back == value and type(back) is type(value)
    assert str(back) == str(value)


def test_nan_and_arrays_and_tables_come_back(shared: snakepit.Pool) -> None:
    import pyarrow as pa

    assert math.isnan(shared.execute("echo", {"x": math.nan})["echoed"]["x"])
    for array in (np.arange(6, dtype="<i2").reshape(2, 3), np.array(1.5), np.zeros((0, 3), dtype="c16")):
        back = shared.execute("echo", {"x": array})["echoed"]["x"]
        assert back.dtype == array.dtype and back.shape == array.shape
        np.testing.assert_array_equal(back, array)
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    assert shared.execute("echo", {"x": table})["echoed"]["x"].equals(table)


@pytest.mark.parametrize(
    "name", ["ValueError", "KeyError", "ZeroDivisionError", "FileNotFoundError", "TimeoutError"]
)
def test_a_remote_builtin_is_caught_as_that_builtin(start_log: snakepit.Pool, name: str) -> None:
    import builtins

    builtin = getattr(builtins, name)
    with pytest.raises(builtin) as raised:
        ray.get(start_log.execute.remote("raises", {"name": name}))
    assert isinstance(raised.value, snakepit.CommandError)
    with pytest.raises(builtin) as raised:
        start_log.execute("raises", {"name": name})
    error = raised.value
    assert isinstance(error, snakepit.CommandError)
    assert error.remote_type == name and error.language == "python"
    assert "log.py" in error.traceback and "as asked" in str(error)


@pytest.mark.parametrize(
    "name", ["StopIteration", "SystemExit", "KeyboardInterrupt", "MemoryError", "GeneratorExit"]
)
def test_some_builtins_stay_command_errors_and_end_nothing(start_log: snakepit.Pool, name: str) -> None:
    (before,) = {worker.pid for worker in start_log.workers()}
    with pytest.raises(snakepit.CommandError) as raised:
        start_log.execute("raises", {"name": name})
    assert raised.value.remote_type == name
    assert {worker.pid for worker in start_log.workers()} == {before}


def test_a_result_that_cannot_be_carried_names_its_path(start_log: snakepit.Pool) -> None:
    with pytest.raises(snakepit.EncodingError, match=r"\[.x.\]\[1\]\[.y.\]"):
        start_log.execute("unencodable")


@pytest.fixture(scope="module")
def start_log(cluster: None) -> Any:
    with snakepit.start(
        name="log-pool", size=1, interpreter=sys.executable, adapter=adapter("log.py:Log")
    ) as pool:
        yield pool


def test_map_is_paced_ordered_and_lazy(shared: snakepit.Pool) -> None:
    drawn = 0

    def items() -> Any:
        nonlocal drawn
        for i in range(10_000_000):
            drawn += 1
            yield {"a": i, "b": 0}

    results = shared.map("add", items(), in_flight=4)
    assert [next(results)["result"] for _ in range(30)] == list(range(30))
    assert drawn <= 30 + 4
    results.close()
    unordered = shared.map("add", ({"a": i, "b": 0} for i in range(50)), ordered=False)
    assert sorted(result["result"] for result in unordered) == list(range(50))
    assert list(shared.map("add", [])) == []


def test_map_stops_at_the_first_error(shared: snakepit.Pool) -> None:
    items = [{"a": 1, "b": 1}, {"a": "x", "b": 1}, {"a": 2, "b": 2}]
    results = shared.map("add", items)
    assert next(results) == {"result": 2}
    with pytest.raises(snakepit.InvalidArguments):
        next(results)
