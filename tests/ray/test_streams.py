"""Streams of a pool: refs, iterators, callbacks; whoever stops taking stops the producer."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.port import ray_port
from tests.conftest import wait_until
from tests.ray.conftest import LANE, adapter
from tests.ray.harness import driver_that_dies

pytestmark = pytest.mark.ray

AHEAD = 10_000  # chunks of any size: more than the window and what Ray holds of a consumer that never took


@pytest.fixture(scope="module")
def log(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The interpreters' own word on what they did."""
    return tmp_path_factory.mktemp("streams") / "log"


@pytest.fixture(scope="module")
def pool(cluster: None, log: Path) -> Any:
    settings = {"adapter": adapter("log.py:Log"), "adapter_args": {"path": str(log)}, "lane": LANE}
    with snakepit.start(name=f"streams-{os.urandom(4).hex()}", size=1, **settings) as pool:
        yield pool


@pytest.fixture(autouse=True)
def _begins_and_ends_idle(pool: snakepit.Pool, log: Path) -> Any:
    log.write_text("")
    yield
    wait_until(lambda: (pool.stats().busy, pool.stats().waiting) == (0, 0), 30, "every slot free at the end")


def said(log: Path) -> list[str]:
    return log.read_text().split()


def ended(log: Path, tag: str, how: str = "cancelled", seconds: float = 5.0) -> int:
    """Waits until the producer's `finally` has run; how many chunks it produced."""
    prefix = f"{tag}:{how}:"
    wait_until(lambda: any(line.startswith(prefix) for line in said(log)), seconds, f"{prefix} in the log")
    return next(int(line.removeprefix(prefix)) for line in said(log) if line.startswith(prefix))


def numbers(count: int) -> list[dict[str, int]]:
    return [{"i": i} for i in range(count)]


# ---- every form -------------------------------------------------------------------------------------------


def test_refs_are_one_a_chunk(pool: snakepit.Pool, log: Path) -> None:
    refs = pool.execute_stream.remote("stream", {"tag": "t", "count": 30})
    assert [ray.get(ref) for ref in refs] == numbers(30)
    assert list(refs) == []
    ray.get(refs.completed())
    assert said(log) == ["t", "t:ended:30"]


def test_refs_are_awaitable(pool: snakepit.Pool) -> None:
    async def body() -> list[Any]:
        return [await ref async for ref in pool.execute_stream.remote("stream", {"tag": "t", "count": 5})]

    assert asyncio.run(body()) == numbers(5)


def test_an_iterator_of_values_keeps_their_order(pool: snakepit.Pool, log: Path) -> None:
    assert list(pool.stream("stream", {"tag": "t", "count": 50_000})) == numbers(50_000)
    assert said(log) == ["t", "t:ended:50000"]


def test_an_async_iterator(pool: snakepit.Pool) -> None:
    async def body() -> list[Any]:
        return [value async for value in pool.astream("stream_async", {"tag": "t", "count": 2000})]

    assert asyncio.run(body()) == numbers(2000)


def test_a_callback_may_halt(pool: snakepit.Pool, log: Path) -> None:
    got: list[Any] = []

    def on_chunk(value: Any) -> Any:
        got.append(value)
        return snakepit.HALT if len(got) == 3 else None

    assert pool.execute_stream("stream", {"tag": "t"}, on_chunk) == 3
    assert got == numbers(3)
    assert ended(log, "t") < AHEAD
    assert pool.execute_stream("stream", {"tag": "all", "count": 4}, got.append) == 4


def test_an_error_in_a_callback_stops_the_producer(pool: snakepit.Pool, log: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        pool.execute_stream("stream", {"tag": "t"}, lambda value: 1 / 0)
    ended(log, "t")


def test_arrays_and_one_chunk_of_a_command_that_returns(pool: snakepit.Pool) -> None:
    assert list(pool.stream("identity", {"x": b"bytes"})) == [{"x": b"bytes"}]
    (ref,) = pool.execute_stream.remote("identity", {"x": ray.put([1, 2])})
    assert ray.get(ref) == {"x": [1, 2]}


def test_sessions_options_and_info(pool: snakepit.Pool) -> None:
    session = pool.session("s")
    seen = [value["seen"] for value in session.stream("session_stream", {"count": 3})]
    got: list[Any] = []
    pool.execute_in_session_stream("s", "session_stream", {"count": 2}, got.append)
    refs = pool.execute_in_session_stream.remote("s", "session_stream", {"count": 1}, affinity="strict_queue")
    got.extend(ray.get(ref) for ref in refs)
    got.extend(ray.get(ref) for ref in session.execute_stream.remote("session_stream", {"count": 1}))
    assert (seen, [value["seen"] for value in got]) == ([1, 2, 3], [4, 5, 6, 7])
    (worker,) = pool.workers()
    for reply in pool.stream("session_stream", {"count": 2}, session="info", info=True):
        assert (reply.value["session"], reply.worker_id, reply.pid) == ("info", worker.worker_id, worker.pid)
    (ref,) = pool.execute_stream.options(info=True, timeout=9.0).remote("session_stream", {"count": 1})
    assert ray.get(ref).epoch == worker.epoch


def test_progress_is_dropped_shown_or_handed_over(pool: snakepit.Pool, capsys: Any) -> None:
    assert list(pool.stream("report", {"count": 3})) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    assert list(pool.stream("report", {"count": 3}, progress=True)) == [0, 1, 2]
    assert "3/3 working" in capsys.readouterr().err
    reports: list[Any] = []
    assert list(pool.stream("report", {"count": 2}, progress=reports.append)) == [0, 1]
    assert reports == [snakepit.Progress(1, 2, "working"), snakepit.Progress(2, 2, "working")]
    raw = [ray.get(ref) for ref in pool.execute_stream.remote("report", {"count": 1})]
    assert raw == [snakepit.Progress(1, 1, "working"), 0]
    with pytest.raises(snakepit.ConfigError, match="progress"):
        pool.stream("report", {"count": 1}, progress="yes")


# ---- errors -----------------------------------------------------------------------------------------------


def test_an_error_comes_after_the_chunks_before_it(pool: snakepit.Pool) -> None:
    got: list[Any] = []
    with pytest.raises(ValueError, match="at the end") as caught:
        pool.execute_stream("stream", {"tag": "t", "count": 500, "end": "raise"}, got.append)
    assert isinstance(caught.value, snakepit.CommandError) and got == numbers(500)
    refs = list(pool.execute_stream.remote("stream", {"tag": "t", "count": 2, "end": "raise"}))
    assert [ray.get(ref) for ref in refs[:-1]] == numbers(2)
    with pytest.raises(ValueError, match="at the end"):
        ray.get(refs[-1])


def test_an_async_consumer_gets_our_errors(pool: snakepit.Pool) -> None:
    async def body() -> None:
        async for _ in pool.astream("no_such_command"):
            pass

    with pytest.raises(snakepit.UnknownCommand):
        asyncio.run(body())


def test_what_cannot_be_sent_fails_at_the_call(pool: snakepit.Pool) -> None:
    with pytest.raises(snakepit.EncodingError):
        pool.stream("stream", {"tag": object()})
    with pytest.raises(snakepit.ConfigError):
        pool.execute_stream.remote("stream", {"tag": "t"}, timeuot=3)


def test_the_budget_ends_an_async_one_too(pool: snakepit.Pool, log: Path) -> None:
    async def body() -> None:
        chunks = pool.astream("stream", {"tag": "t", "count": 2, "end": "wait"}, timeout=0.5)
        assert [await anext(chunks), await anext(chunks)] == numbers(2)
        with pytest.raises(snakepit.DeadlineExceeded):
            await anext(chunks)

    asyncio.run(body())
    assert ended(log, "t") == 2


@pytest.mark.parametrize("count", [3, 10**9])
def test_the_budget_ends_a_stream(pool: snakepit.Pool, log: Path, count: int) -> None:
    chunks = pool.stream("stream", {"tag": "t", "count": count, "end": "wait"}, timeout=1.0)
    assert next(chunks) == {"i": 0}
    ended(log, "t")
    with pytest.raises(snakepit.DeadlineExceeded):
        for _ in chunks:
            pass


def test_a_crash_in_mid_stream_comes_after_the_chunks(start: Any, tmp_path: Path) -> None:
    settings = {"adapter": adapter("log.py:Log"), "adapter_args": {"path": str(tmp_path / "log")}}
    pool = start(size=1, **settings)
    got: list[Any] = []
    with pytest.raises(snakepit.WorkerCrashed):
        pool.execute_stream("stream", {"tag": "t", "count": 9, "end": "die"}, got.append, idempotent=True)
    assert got == numbers(9) and said(tmp_path / "log") == ["t"]
    assert pool.execute("run", {"tag": "next"}, timeout=30)["tag"] == "next"
    stream = pool.stream("stream", {"tag": "actor"})
    next(stream)
    os.kill(pool.workers()[0].actor_pid, signal.SIGKILL)
    with pytest.raises(snakepit.WorkerCrashed):
        for _ in stream:
            pass
    wait_until(lambda: pool.stats().available == 1, 30, "the actor is back")
    assert said(tmp_path / "log").count("actor") == 1, "a stream is never begun again"


# ---- whoever stops taking stops the producer --------------------------------------------------------------


def test_closing_an_iterator_stops_the_producer(pool: snakepit.Pool, log: Path) -> None:
    chunks = pool.stream("stream", {"tag": "t"})
    assert [next(chunks) for _ in range(3)] == numbers(3)
    chunks.close()
    assert ended(log, "t") < AHEAD
    assert list(chunks) == []


def test_one_that_is_never_begun_is_stopped_too(pool: snakepit.Pool, log: Path) -> None:
    chunks = pool.stream("stream", {"tag": "t"})
    wait_until(lambda: said(log) == ["t"], 30, "it runs before anybody takes")
    del chunks
    ended(log, "t")


def test_dropping_an_iterator_or_refs_stops_the_producer(pool: snakepit.Pool, log: Path) -> None:
    chunks = pool.stream("stream", {"tag": "values"})
    next(chunks)
    del chunks
    ended(log, "values")
    refs = pool.execute_stream.remote("stream", {"tag": "refs"})
    ray.get(next(refs))
    del refs
    ended(log, "refs")


def test_closing_at_once_leaves_nothing_running(pool: snakepit.Pool, log: Path) -> None:
    for number in range(20):
        pool.execute_stream.remote("stream", {"tag": f"t{number}"}).close()
    wait_until(lambda: (pool.stats().busy, pool.stats().waiting) == (0, 0), 30, "nothing runs")
    begun = {line for line in said(log) if ":" not in line}
    assert {line.partition(":")[0] for line in said(log) if ":" in line} == begun


def test_a_cancelled_async_consumer_stops_the_producer(pool: snakepit.Pool, log: Path) -> None:
    async def body() -> None:
        async def take() -> None:
            async for _ in pool.astream("stream", {"tag": "t", "count": 2, "end": "wait"}):
                pass

        task = asyncio.ensure_future(take())
        while said(log) != ["t"]:
            await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(os.sched_yield))])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(body())
    assert ended(log, "t") == 2


def test_a_consumer_that_stops_taking_stops_the_producer(pool: snakepit.Pool, log: Path) -> None:
    for tag, take in (("values", pool.stream), ("refs", pool.execute_stream.remote)):
        chunks = take("stream", {"tag": tag, "size": 1000})
        for _ in range(1000):
            next(chunks)
        looks = [pool.workers()[0].rss_bytes for _ in range(200)]
        chunks.close()
        assert max(looks) - looks[0] < 20_000_000, "memory stays where it is"
        # 1 MiB is the window, 256 KiB each of the parts that Ray holds
        assert 1000 <= ended(log, tag) < 1000 + 4000


DRIVER = """
pool = snakepit.connect({name!r})
chunks = pool.stream("stream", {{"tag": "dead"}})
next(chunks)
refs = pool.execute_stream.remote("stream", {{"tag": "waits"}})
print("streaming", flush=True)
time.sleep(600)
"""


def test_a_dead_driver_stops_its_streams(pool: snakepit.Pool, log: Path) -> None:
    with driver_that_dies(DRIVER.format(name=pool.name), "streaming"):
        wait_until(lambda: pool.stats().waiting == 1, 20, "one runs, one waits")
    assert ended(log, "dead") < AHEAD
    wait_until(lambda: (pool.stats().busy, pool.stats().waiting) == (0, 0), 30, "nothing of it is left")
    # Ray ends a dead owner's generator at once, the lease tells of its death within 0.2 s: in between the one
    # that waited may have begun, and was stopped then.
    assert "waits" not in said(log) or ended(log, "waits") < AHEAD
    assert list(pool.stream("stream", {"tag": "next", "count": 1})) == numbers(1)


# ---- several workers --------------------------------------------------------------------------------------


def test_a_sessions_stream_runs_where_the_session_lives(start: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pool = start(size=2, adapter=adapter("log.py:Log"), adapter_args={"path": str(log)})
    homes: dict[str, int] = {}
    while len(homes) < 6 or (len(set(homes.values())) < 2 and len(homes) < 40):  # names fall where they fall
        name = f"s{len(homes)}"
        homes[name] = pool.session(name).execute("remember", {"value": 0})["pid"]
    assert len(set(homes.values())) == 2
    for name, home in homes.items():
        for strict in ("hint", "strict_queue"):
            chunks = list(pool.stream("session_stream", {"count": 3}, session=name, affinity=strict))
            assert {chunk["pid"] for chunk in chunks} == {home} and len(chunks) == 3
    relay(pool, homes, log)


def relay(pool: snakepit.Pool, homes: dict[str, int], log: Path) -> None:
    """Sends each session's stream to the worker that it does not live at."""
    by_pid = {worker.pid: worker for worker in pool.workers()}
    for name, home in homes.items():
        (wrong,) = [worker for pid, worker in by_pid.items() if pid != home]
        actor = ray_port.find_worker(wrong.worker_id)
        request, _ = pool._sender._builder.build(
            "session_stream", {"count": 500}, snakepit.CallOptions(session=name), stream=True
        )
        refs = actor.execute_stream.options(num_returns="streaming").remote(request.SerializeToString())
        assert {ray.get(ref)["pid"] for ref in refs} == {home}
        request, _ = pool._sender._builder.build(
            "stream", {"tag": name}, snakepit.CallOptions(session=name), stream=True
        )
        options = {"num_returns": "streaming", "_generator_backpressure_num_objects": 4}
        generator = actor.execute_stream.options(**options).remote(request.SerializeToString())
        ray.get(next(generator))
        actor.close_stream.remote(request.id)
        assert ended(log, name) < AHEAD
    wait_until(lambda: pool.stats().busy == 0, 30, "nothing runs")


def test_a_handle_streams_in_a_task(pool: snakepit.Pool) -> None:
    @ray.remote(num_cpus=0)
    def total(pool: Any) -> int:
        return sum(value["i"] for value in pool.stream("stream", {"tag": "task", "count": 100}))

    assert ray.get(total.remote(pool)) == sum(range(100))
