"""Batches through Ray: one ref for many calls, maps, futures, and awaited calls that travel together."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import snakepit_ray as snakepit
from tests.conftest import wait_until
from tests.ray.conftest import Logged, adapter

pytestmark = pytest.mark.ray


def adds(count: int) -> Iterator[dict[str, int]]:
    return ({"a": i, "b": 1} for i in range(count))


def sums(count: int) -> list[dict[str, int]]:
    return [{"result": i + 1} for i in range(count)]


@pytest.fixture
def logged(logged_2: Logged) -> tuple[snakepit.Pool, Any]:
    """A pool whose interpreters write down what they execute, and a function that reads it."""
    return logged_2.pool, logged_2.executed


@pytest.fixture(scope="module")
def three(cluster: None) -> Iterator[snakepit.Pool]:
    with snakepit.start(name="three", size=3, interpreter=sys.executable) as pool:
        yield pool


# ---- execute_batch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 7, 3000])
def test_a_batch_is_one_ref_and_one_list_in_order(shared: snakepit.Pool, count: int) -> None:
    before = shared.stats().requests
    assert ray.get(shared.execute_batch.remote("add", adds(count))) == sums(count)
    assert shared.execute_batch.options(timeout=30.0)("add", list(adds(count))) == sums(count)
    assert shared.stats().requests == before + 2 * count


def test_one_bad_item_of_a_batch_fails_alone(shared: snakepit.Pool) -> None:
    items = [{"a": 1, "b": 1}, {"a": "x", "b": 1}, {"a": 2}, {"a": 3, "b": 1}]
    errors = shared.stats().errors
    back = shared.execute_batch("add", items, return_exceptions=True)
    assert [type(value) for value in back] == [
        dict,
        snakepit.InvalidArguments,
        snakepit.InvalidArguments,
        dict,
    ]
    assert (back[0], back[3]) == ({"result": 2}, {"result": 4})
    assert shared.stats().errors == errors + 2
    with pytest.raises(snakepit.InvalidArguments, match="a must be"):
        shared.execute_batch("add", items)
    with pytest.raises(snakepit.InvalidArguments, match="a must be"):
        ray.get(shared.execute_batch.remote("add", items))
    unknown = shared.execute_batch("ad", adds(3), return_exceptions=True)
    assert [type(value) for value in unknown] == [snakepit.UnknownCommand] * 3


def test_what_cannot_be_sent_fails_at_the_call_site(shared: snakepit.Pool) -> None:
    with pytest.raises(snakepit.EncodingError, match=r"items\[2\]\[.a.\]"):
        shared.execute_batch.remote("add", [*adds(2), {"a": object(), "b": 1}])
    with pytest.raises(snakepit.EncodingError, match=r"items\[1\]"):
        shared.execute_batch.remote("add", [{"a": 1, "b": 2}, 5])
    with pytest.raises(snakepit.ConfigError, match="timeout"):
        shared.execute_batch.remote("add", [], timeot=1)


def test_arrays_and_info_in_a_batch(shared: snakepit.Pool) -> None:
    arrays = [np.arange(float(n)) for n in range(5)]
    back = shared.execute_batch("echo", [{"x": array} for array in arrays])
    for sent, got in zip(arrays, back, strict=True):
        np.testing.assert_array_equal(got["echoed"]["x"], sent)
    pids = {worker.pid for worker in shared.workers()}
    replies = shared.execute_batch("add", adds(20), info=True)
    assert [reply.value for reply in replies] == sums(20)
    assert {reply.pid for reply in replies} <= pids and all(reply.ran_s < 1.0 for reply in replies)


def test_a_batch_spreads_over_the_pool_and_chains(three: snakepit.Pool) -> None:
    pool = three
    items = [{"duration_ms": 60, "task_number": i} for i in range(12)]
    everybody = {worker.pid for worker in pool.workers()}

    def spread() -> set[int]:
        replies = pool.execute_batch("sleep_task", items, info=True)
        assert [reply.value["task_number"] for reply in replies] == list(range(12))
        return {reply.pid for reply in replies}

    assert len(spread()) > 1
    wait_until(lambda: spread() == everybody, 20, "each of them runs a part")
    ref = pool.execute_batch.remote("add", adds(2))
    assert pool.execute("echo", {"x": ref}) == {"echoed": {"x": sums(2)}}


def test_a_batch_has_one_budget_and_what_it_stops_never_runs(logged: Any) -> None:
    pool, executed = logged
    items = [{"tag": f"t{i}", "seconds": 0.2} for i in range(40)]
    back = pool.execute_batch("run", items, return_exceptions=True, timeout=1.0)
    assert len(back) == 40
    kinds = collections.Counter(type(value) for value in back)
    assert set(kinds) == {dict, snakepit.DeadlineExceeded} and 2 <= kinds[dict] <= 10
    ran = {value["tag"] for value in back if isinstance(value, dict)}
    assert ran <= set(executed()) and len(executed()) <= len(ran) + 2, "one for each slot was stopped in it"


def test_a_cancelled_batch_ends_and_frees_its_slots(logged: Any) -> None:
    pool, executed = logged
    ref = pool.execute_batch.remote("until_cancelled", [{"tag": f"c{i}"} for i in range(30)])
    wait_until(lambda: executed(), 30, "it runs")
    ray.cancel(ref)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(ref)
    wait_until(lambda: pool.stats().busy == 0 and pool.stats().waiting == 0, 30, "slots are free")
    begun = [tag for tag in executed() if not tag.endswith(":cancelled")]
    assert len(begun) <= 2


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_batch_whose_worker_actor_is_killed_runs_again_only_if_that_does_no_harm(
    start: Any, tmp_path: Path, idempotent: bool
) -> None:
    log = tmp_path / "log"
    pool = start(size=1, adapter=adapter("log.py:Log"), adapter_args={"path": str(log)})
    items = [{"tag": f"b{i}", "seconds": 0.05} for i in range(12)]
    ref = pool.execute_batch.remote("run", items, return_exceptions=True, idempotent=idempotent)
    wait_until(lambda: log.exists() and len(log.read_text().split()) > 3, 30, "it is in the middle")
    os.kill(pool.workers()[0].actor_pid, signal.SIGKILL)
    back = ray.get(ref, timeout=40)
    runs = collections.Counter(log.read_text().split())
    if idempotent:
        assert [value["tag"] for value in back] == [item["tag"] for item in items]
    else:
        assert [type(value) for value in back] == [snakepit.WorkerCrashed] * 12
        assert all(value.may_have_started for value in back)
        assert max(runs.values()) == 1 and len(runs) < 12


def test_of_a_batch_whose_interpreter_is_killed_only_what_had_begun_fails(start: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pool = start(size=1, adapter=adapter("log.py:Log"), adapter_args={"path": str(log)})

    def ran(way: str) -> list[str]:
        return [tag for tag in log.read_text().split() if tag.startswith(way)] if log.exists() else []

    def kill(way: str, pid: int) -> None:
        wait_until(lambda: len(ran(way)) > 10, 20, "it is in the middle")
        os.kill(pid, signal.SIGKILL)

    for way in ("batch", "map"):
        items = [{"tag": f"{way}{i}", "seconds": 0.02} for i in range(60)]
        killer = threading.Thread(target=kill, args=(way, pool.workers()[0].pid))
        killer.start()
        if way == "batch":
            back = pool.execute_batch("run", items, return_exceptions=True)
        else:
            back = list(pool.map("run", items, return_exceptions=True, chunk_size=20))
        killer.join()
        failed = [index for index, value in enumerate(back) if isinstance(value, snakepit.WorkerCrashed)]
        assert 1 <= len(failed) <= 20
        assert failed == list(range(failed[0], failed[0] + len(failed))), "one chunk, up to where it was"
        assert [value["tag"] for value in back if isinstance(value, dict)] == [
            item["tag"] for index, item in enumerate(items) if index not in failed
        ]
        assert sorted(ran(way)) == sorted(item["tag"] for item in items), "each ran exactly once"


def test_a_runtimes_hooks_see_each_item(start: Any) -> None:
    pool = start(size=1, runtime="tests.adapters.ruby_like:RubyLike", adapter=adapter("reports.py:Reports"))
    data = [{"data": f"  {i} "} for i in range(60)]
    wanted = [{"got": str(i)} for i in range(60)]
    assert pool.execute_batch("process_data", data) == list(pool.map("process_data", data)) == wanted
    stamped = pool.execute_batch("generate_report", [{"title": "t"}] * 3)
    assert stamped == [{"title": "t", "processed_at": "now"}] * 3
    with pytest.raises(snakepit.UnknownCommand, match="process_data"):
        pool.execute_batch.remote("proces_data", data)

    async def calls() -> list[Any]:
        return await asyncio.gather(
            *(pool.call("process_data", one) for one in [*data, {}]), return_exceptions=True
        )

    *good, bad = asyncio.run(calls())
    assert good == wanted and isinstance(bad, KeyError)


# ---- map ---------------------------------------------------------------------------------------------------


def test_map_of_many_small_calls_takes_few_messages(shared: snakepit.Pool) -> None:
    before = shared.stats().requests
    assert list(shared.map("add", adds(20_000))) == sums(20_000)
    assert sorted(r["result"] for r in shared.map("add", adds(5_000), ordered=False)) == list(range(1, 5_001))
    assert shared.stats().requests == before + 25_000
    replies = list(shared.map("add", adds(5_000), info=True))
    assert len({reply.request_id for reply in replies}) < 250
    assert list(shared.map("add", adds(100), chunk_size=7)) == sums(100)


def test_map_returns_exceptions_in_their_places(shared: snakepit.Pool) -> None:
    ref = ray.put(5)
    odd: dict[int, Any] = {
        3: {"a": "x", "b": 1},
        500: {"a": object(), "b": 1},
        777: 5,
        900: {"a": ref, "b": 1},
    }
    items = [odd.get(i, {"a": i, "b": 1}) for i in range(1_000)]
    back = list(shared.map("add", items, return_exceptions=True))
    wanted: list[Any] = sums(1_000)
    wanted[900] = {"result": 6}
    kinds = {3: snakepit.InvalidArguments, 500: snakepit.EncodingError, 777: snakepit.EncodingError}
    for index, kind in kinds.items():
        assert type(back[index]) is kind
        back[index] = wanted[index] = None
    assert back == wanted
    results = shared.map("add", items)
    assert [next(results) for _ in range(3)] == wanted[:3]
    with pytest.raises(snakepit.InvalidArguments):
        next(results)
    assert list(results) == []


def test_map_of_an_endless_source_draws_little_and_stops(shared: snakepit.Pool) -> None:
    drawn = itertools.count()
    results = shared.map("add", ({"a": next(drawn), "b": 1} for _ in itertools.count()))
    assert list(itertools.islice(results, 10_000)) == sums(10_000)
    results.close()
    assert next(drawn) < 10_000 + 8 * 2 * 2_000
    wait_until(lambda: shared.stats().busy == 0, 30, "nothing runs any more")
    with pytest.raises(snakepit.ConfigError, match="chunk_size"):
        shared.map("add", [], chunk_size=0)


def test_a_slow_source_is_not_waited_for_to_fill_a_chunk(shared: snakepit.Pool) -> None:
    list(shared.map("add", adds(1_000)))
    delivered: list[Any] = []

    def source() -> Iterator[dict[str, int]]:
        for i in range(6):
            yield {"a": i, "b": 1}
            time.sleep(0.02)  # the source's own pace, nothing is waited for
            if i == 5:
                assert delivered, "nothing was handed out before the source ended"

    delivered.extend(itertools.islice(shared.map("add", source(), in_flight=2), 6))
    assert delivered == sums(6)


def test_slow_items_spread_over_all_workers(start: Any) -> None:
    pool = start(size=4)
    fast = [{"duration_ms": 0, "task_number": i} for i in range(400)]
    slow = [{"duration_ms": 100, "task_number": 400 + i} for i in range(24)]
    replies = list(pool.map("sleep_task", fast + slow, info=True))
    assert [reply.value["task_number"] for reply in replies] == list(range(424))
    by_pid = collections.Counter(reply.pid for reply in replies[400:])
    assert set(by_pid) == {worker.pid for worker in pool.workers()}, "some worker had no slow item"
    assert max(by_pid.values()) <= 12, f"a worker held a share of the work: {by_pid}"


@pytest.mark.parametrize("idempotent", [True, False])
def test_an_interpreter_killed_in_mid_map(start: Any, tmp_path: Path, idempotent: bool) -> None:
    log = tmp_path / "log"
    pool = start(size=2, adapter=adapter("log.py:Log"), adapter_args={"path": str(log)})
    items = [{"tag": f"k{i}", "seconds": 0.002} for i in range(600)]
    results = pool.map("run", items, idempotent=idempotent, return_exceptions=True)
    back = [next(results) for _ in range(50)]
    victim = pool.workers()[0].pid
    os.kill(victim, signal.SIGKILL)
    back += list(results)
    assert len(back) == 600
    crashed = [i for i, value in enumerate(back) if isinstance(value, snakepit.WorkerCrashed)]
    for index, value in enumerate(back):
        assert index in crashed or value["tag"] == f"k{index}"
    runs = collections.Counter(log.read_text().split())
    if idempotent:
        assert not crashed and set(runs) == {item["tag"] for item in items}
    else:
        assert len(crashed) <= 20, "more than the chunk that ran was lost"
        assert max(runs.values()) == 1, "an item that may not run twice did"
        assert {f"k{i}" for i in range(600) if i not in crashed} <= set(runs)


# ---- submit ------------------------------------------------------------------------------------------------


def test_submit_gives_futures(shared: snakepit.Pool) -> None:
    futures = [shared.submit("add", {"a": i, "b": 1}) for i in range(50)]
    assert [future.result(30) for future in futures] == sums(50)
    failed = shared.submit("add", {"a": 1})
    assert isinstance(failed.exception(30), snakepit.InvalidArguments)
    done, _ = concurrent.futures.wait([*futures, failed], 10)
    assert len(done) == 51 and not futures[0].cancel()
    with pytest.raises(snakepit.EncodingError):
        shared.submit("add", {"a": object()})


def test_cancelling_a_future_cancels_what_waits_and_what_runs(logged: Any) -> None:
    pool, executed = logged
    cancelled = pool.stats().cancelled
    running = [pool.submit("until_cancelled", {"tag": f"s{i}"}) for i in range(2)]
    wait_until(lambda: len(executed()) == 2, 30, "both run")
    waiting = pool.submit("until_cancelled", {"tag": "never"})
    wait_until(lambda: pool.stats().waiting == 1, 30, "it waits")
    assert waiting.cancel()
    # Not `waiting == 0`: on its way to another worker it waits nowhere.
    wait_until(lambda: pool.stats().cancelled == cancelled + 1, 30, "that arrives before a slot is free")
    for future in (waiting, *running):
        assert future.cancel() and future.cancelled() and future.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(1)
    wait_until(lambda: {"s0:cancelled", "s1:cancelled"} <= set(executed()), 30, "they were told")
    wait_until(lambda: pool.stats().busy == 0, 30, "the slots are free")
    assert "never" not in executed()


# ---- await pool.call -------------------------------------------------------------------------------------


def sent_by(pool: snakepit.Pool, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The actor calls that a pool makes from now on."""
    made: list[str] = []
    for name in ("one", "some"):
        original = getattr(pool._sender, name)

        def counted(*args: Any, _name: str = name, _original: Any = original, **more: Any) -> Any:
            made.append(_name)
            return _original(*args, **more)

        monkeypatch.setattr(pool._sender, name, counted)
    return made


def test_calls_of_one_turn_travel_together(shared: snakepit.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sent_by(shared, monkeypatch)

    async def burst(count: int) -> list[Any]:
        return await asyncio.gather(*(shared.call("add", args) for args in adds(count)))

    assert asyncio.run(burst(1)) == sums(1)
    assert made == ["one"], "a lone call goes as it is"
    before = shared.stats().requests
    assert asyncio.run(burst(1_000)) == sums(1_000)
    assert len(made) < 40, f"{len(made)} actor calls for 1,000 calls"
    assert shared.stats().requests == before + 1_000


def test_each_call_has_its_own_outcome(shared: snakepit.Pool) -> None:
    bad: dict[int, Any] = {1: {"a": "x", "b": 1}, 2: {"a": object()}, 3: 5, 4: {"a": ray.put(9), "b": 1}}

    async def calls() -> list[Any]:
        made = [shared.call("add", bad.get(i, {"a": i, "b": 1})) for i in range(20)]
        made += [
            shared.call("ad", {}),
            shared.call("echo", None),
            shared.call("add", {"a": 1, "b": 1}, info=True),
        ]
        return await asyncio.gather(*made, return_exceptions=True)

    back = asyncio.run(calls())
    kinds = [type(value) for value in back[1:4]]
    assert kinds == [snakepit.InvalidArguments, snakepit.EncodingError, snakepit.EncodingError]
    assert back[4] == {"result": 10}
    assert back[0] == {"result": 1} and back[5:20] == sums(20)[5:]
    assert type(back[20]) is snakepit.UnknownCommand and back[21] == {"echoed": {}}
    assert back[22].value == {"result": 2}


def test_a_cancelled_call_takes_nothing_from_the_others(logged: Any) -> None:
    pool, executed = logged

    async def calls() -> list[Any]:
        tasks = [
            asyncio.ensure_future(pool.call("run", {"tag": f"c{i}", "seconds": 0.05})) for i in range(10)
        ]
        await asyncio.to_thread(wait_until, executed, 10, "the first runs")
        for task in tasks[5:]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    back = asyncio.run(calls())
    assert [value["tag"] for value in back[:5]] == [f"c{i}" for i in range(5)]
    assert all(isinstance(value, asyncio.CancelledError) for value in back[5:])
    wait_until(lambda: pool.stats().busy == 0, 30, "nothing runs any more")
    assert max(collections.Counter(executed()).values()) == 1


def test_calls_that_are_all_cancelled_stop_running(logged: Any) -> None:
    pool, executed = logged

    async def calls() -> None:
        tasks = [asyncio.ensure_future(pool.call("until_cancelled", {"tag": f"a{i}"})) for i in range(6)]
        await asyncio.to_thread(wait_until, lambda: len(executed()) == 2, 10, "the first of each batch runs")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(wait_until, lambda: pool.stats().busy == 0, 10, "nothing runs any more")

    asyncio.run(asyncio.wait_for(calls(), 20))
    assert len([tag for tag in executed() if tag.endswith(":cancelled")]) == 2
    assert len(executed()) == 4, "only the first of each batch had begun"


def test_slow_calls_use_every_worker_and_keep_their_budget(three: snakepit.Pool) -> None:
    pool = three

    async def calls(count: int, **options: Any) -> list[Any]:
        args = {"duration_ms": 100, "task_number": 1}
        made = [pool.call("sleep_task", args, info=True, **options) for _ in range(count)]
        return await asyncio.gather(*made, return_exceptions=True)

    pids = {worker.pid for worker in pool.workers()}
    assert {reply.pid for reply in asyncio.run(calls(18))} == pids
    late = asyncio.run(calls(30, timeout=0.4))
    kinds = collections.Counter(type(value).__name__ for value in late)
    assert set(kinds) == {"Reply", "DeadlineExceeded"} and kinds["Reply"] <= 15


def test_sessions_do_not_travel_together(start: Any) -> None:
    pool = start(size=2, adapter=adapter("log.py:Log"), affinity="strict_queue", interpreter=sys.executable)

    async def calls() -> list[Any]:
        made = [pool.session(f"s{i % 5}").call("remember", {"value": i}) for i in range(100)]
        return await asyncio.gather(*made)

    back = asyncio.run(calls())
    assert [answer["session"] for answer in back] == [f"s{i % 5}" for i in range(100)]
    homes = collections.defaultdict(set)
    for answer in back:
        homes[answer["session"]].add(answer["pid"])
    assert {len(pids) for pids in homes.values()} == {1}
    for i, answer in enumerate(back):
        assert answer["values"][-1] >= i and answer["values"][: len(answer["values"])] == sorted(
            answer["values"]
        )
