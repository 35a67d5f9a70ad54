"""Calls that go by a worker's lane do what those do that go by Ray, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import itertools
import math
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.port import ray_port
from tests.conftest import RUN, wait_until
from tests.ray.conftest import adapter
from tests.scale import INTERRUPTS, KILLS, ORDERS

pytestmark = pytest.mark.ray
SECONDS = 30.0
KILLS_OF_ONE = 25  # a worker that loses 30 interpreters in a minute is quarantined (core/worker/restarts.py)


class Logged:
    """A pool of one worker whose interpreter writes down what it runs."""

    def __init__(self, lane: str, log: Path) -> None:
        self.lane = lane
        self.log = log
        settings = {"adapter": adapter("log.py:Log"), "adapter_args": {"path": str(log)}, "lane": lane}
        name = f"lane-{lane}-{os.urandom(4).hex()}"
        self.pool = snakepit.start(name=name, size=1, interpreter=sys.executable, **settings)

    @property
    def way(self) -> str:
        return "lane" if self.lane == "auto" else "ray"

    def executed(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture(scope="module", params=["auto", "off"])
def logged(cluster: None, request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    one = Logged(request.param, tmp_path_factory.mktemp("logged") / "log")
    yield one
    one.pool.shutdown()


# ---- the same both ways ------------------------------------------------------------------------------------


def test_every_form_that_waits_says_which_way_it_went(logged: Logged) -> None:
    pool, way = logged.pool, logged.way
    before = pool.stats()
    values = {"a": [1, 2.5, None, "x"], "b": {"c": True}}
    reply = pool.execute("identity", values, info=True)
    assert (reply.value, reply.way, reply.worker_id) == (values, way, f"{pool.name}-0")
    assert pool.submit("identity", values, info=True).result(SECONDS).way == way
    assert asyncio.run(pool.call("identity", values, info=True)).way == way
    assert pool.session("s").execute("identity", values, info=True).way == way
    items = [{"n": number} for number in range(50)]
    assert {one.way for one in pool.map("identity", items, info=True)} == {way}
    assert {one.way for one in pool.execute_batch("identity", items, info=True)} == {way}
    assert ray.get(pool.execute.remote("identity", values, info=True)).way == "ray"
    after = pool.stats()
    assert after.requests - before.requests == 105
    assert after.by_lane - before.by_lane == (104 if way == "lane" else 0)
    assert all(worker.lane is None for worker in pool.workers()), "its secret is shown to nobody"


def test_values_are_the_same(logged: Logged) -> None:
    pool = logged.pool
    items = [{"n": number} for number in range(300)]
    assert list(pool.map("identity", items)) == items
    assert pool.execute_batch("identity", items) == items

    async def many() -> list[Any]:
        return await asyncio.gather(*(pool.call("identity", item) for item in items))

    assert asyncio.run(many()) == items


@pytest.mark.parametrize("name", ["ValueError", "KeyError", "LookupError"])
def test_errors_are_the_same(logged: Logged, name: str) -> None:
    pool, builtin = logged.pool, getattr(__import__("builtins"), name)
    with pytest.raises(builtin, match="as asked") as blocking:
        pool.execute("raises", {"name": name})
    with pytest.raises(builtin, match="as asked"):
        pool.submit("raises", {"name": name}).result(SECONDS)
    with pytest.raises(builtin, match="as asked"):
        asyncio.run(pool.call("raises", {"name": name}))
    assert isinstance(blocking.value, snakepit.CommandError)
    assert (blocking.value.remote_type, "in raises" in blocking.value.traceback) == (name, True)
    given = pool.execute_batch("raises", [{"name": name}, {"nane": 1}], return_exceptions=True)
    assert isinstance(given[0], builtin) and isinstance(given[1], snakepit.InvalidArguments)
    with pytest.raises(snakepit.UnknownCommand) as unknown:
        pool.execute("identty")
    assert unknown.value.nearest == ("identity",)


def test_a_large_value_arrives_and_its_command_takes_rays_way_from_then_on(logged: Logged) -> None:
    pool, text, printed = logged.pool, "x" * 400_000, {"argv": ["printf", "%400000s", "x"]}
    before = pool.stats().by_lane
    for _ in range(3):
        assert len(pool.execute("output_of", printed)) == 400_000
    assert pool.execute("identity", {"text": text}) == {"text": text}
    assert pool.stats().by_lane - before == (1 if logged.way == "lane" else 0)


def test_large_arrays_go_by_ray(logged: Logged) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000)
    before = logged.pool.stats().by_lane
    for _ in range(2):
        assert (logged.pool.execute("identity", {"array": array})["array"] == array).all()
    assert logged.pool.stats().by_lane == before


def test_every_form_of_a_stream_says_which_way_it_went(logged: Logged) -> None:
    pool, way, got = logged.pool, logged.way, list[Any]()
    before = pool.stats()
    args = {"tag": f"forms-{way}", "count": 5}
    assert {one.way for one in pool.stream("stream", args, info=True)} == {way}
    assert pool.execute_stream("stream", args, got.append, info=True) == 5
    session = pool.session("streams")
    got += session.stream("stream", args, info=True)
    pool.execute_in_session_stream("streams", "stream", args, got.append, info=True)
    assert [(one.value["i"], one.way) for one in got] == 3 * [(number, way) for number in range(5)]

    async def ways() -> set[str]:
        seen = {one.way async for one in pool.astream("stream", args, info=True)}
        return seen | {one.way async for one in session.astream("stream", args, info=True)}

    assert asyncio.run(ways()) == {way}
    begun = pool.astream("stream", args, info=True)  # in no event loop

    async def taken() -> set[str]:
        return {one.way async for one in begun}

    assert asyncio.run(taken()) == {"ray"}
    assert {ray.get(ref).way for ref in pool.execute_stream.remote("stream", args, info=True)} == {"ray"}
    after = pool.stats()
    assert after.requests - before.requests == 8
    assert after.by_lane - before.by_lane == (6 if way == "lane" else 0)


def test_a_sessions_stream_begins_after_the_calls_before_it_and_before_those_after_it(logged: Logged) -> None:
    pool, way = logged.pool, logged.way
    for number in range(20):
        session, tag = pool.session(f"stream-order-{way}-{number}"), f"order-{way}-{number}"
        refs = [session.execute.remote("run", {"tag": f"{tag}-a"})]
        values = session.stream("stream", {"tag": f"{tag}-b", "count": 1})
        refs += session.execute_stream.remote("stream", {"tag": f"{tag}-c", "count": 1})
        session.execute("run", {"tag": f"{tag}-d"})
        assert list(values) == [{"i": 0}]
        ray.get(refs)
        begun = [line for line in logged.executed() if line.startswith(f"{tag}-") and ":" not in line]
        assert begun == [f"{tag}-{letter}" for letter in "abcd"]


def test_whoever_stops_taking_stops_the_command(logged: Logged) -> None:
    pool, prefix = logged.pool, f"stops-{logged.way}"

    def args(tag: str, **more: Any) -> dict[str, Any]:
        return {"tag": f"{prefix}-{tag}", **more}

    def stopped(tag: str) -> None:
        begins = f"{prefix}-{tag}:cancelled:"
        wait_until(lambda: any(line.startswith(begins) for line in logged.executed()), SECONDS, begins)

    closed = pool.stream("stream", args("close"))
    next(closed)
    closed.close()
    stopped("close")
    assert pool.execute_stream("stream", args("halt"), lambda value: snakepit.HALT) == 1
    stopped("halt")
    with pytest.raises(snakepit.DeadlineExceeded):
        list(pool.stream("stream", args("deadline", count=1, end="wait"), timeout=0.5))
    stopped("deadline")

    def interrupt() -> None:
        wait_until(lambda: f"{prefix}-interrupt" in logged.executed(), SECONDS)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pool.execute_stream("stream", args("interrupt", count=1, end="wait"), lambda value: None)
    thread.join()
    stopped("interrupt")


def test_streams_of_large_values_are_the_same(logged: Logged) -> None:
    """Small chunks that together are more than a lane takes, and then chunks that no lane takes."""
    pool, lane = logged.pool, logged.way == "lane"
    before = pool.stats().by_lane
    for size in (2_000, 400_000):
        values = pool.stream("stream", {"tag": f"large-{size}", "count": 900_000 // size, "size": size})
        assert [(value["i"], len(value["x"])) for value in values] == [
            (number, size) for number in range(900_000 // size)
        ]
    assert pool.stats().by_lane - before == (2 if lane else 0)
    again = {one.way for one in pool.stream("stream", {"tag": "again", "count": 3}, info=True)}
    assert again == {"ray"}, "for a minute"
    actor = ray_port.find_worker(f"{pool.name}-0")
    with pytest.raises(snakepit.RequestCancelled, match="did not fetch"):
        ray.get(actor.fetch_kept.remote("what is not there"))


def test_a_cancel_stops_the_command(logged: Logged) -> None:
    pool, tag = logged.pool, f"cancel-{logged.lane}"
    future = pool.submit("until_cancelled", {"tag": tag})
    wait_until(lambda: tag in logged.executed(), SECONDS)
    assert future.cancel()
    wait_until(lambda: f"{tag}:cancelled" in logged.executed(), SECONDS)

    async def cancelled() -> None:
        call = asyncio.ensure_future(pool.call("until_cancelled", {"tag": f"{tag}-2"}))
        await asyncio.to_thread(wait_until, lambda: f"{tag}-2" in logged.executed(), SECONDS)
        call.cancel()
        await asyncio.wait([call])

    asyncio.run(cancelled())
    wait_until(lambda: f"{tag}-2:cancelled" in logged.executed(), SECONDS)


def test_an_interrupt_stops_the_command(logged: Logged) -> None:
    tag = f"interrupt-{logged.lane}"

    def interrupt() -> None:
        wait_until(lambda: tag in logged.executed(), SECONDS)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        logged.pool.execute("until_cancelled", {"tag": tag})
    thread.join()
    wait_until(lambda: f"{tag}:cancelled" in logged.executed(), SECONDS)


def test_a_deadline_ends_the_command(logged: Logged) -> None:
    tag = f"deadline-{logged.lane}"
    with pytest.raises(snakepit.DeadlineExceeded):
        logged.pool.execute("until_cancelled", {"tag": tag}, timeout=0.3)
    wait_until(lambda: f"{tag}:cancelled" in logged.executed(), SECONDS)


# ---- order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [200, pytest.param(ORDERS, marks=pytest.mark.slow)])
def test_a_sessions_calls_begin_in_their_order_whichever_way_they_go(logged: Logged, runs: int) -> None:
    pool, chance = logged.pool, random.Random(3)
    large = b"x" * 20_000
    for number in range(runs):
        session, refs = pool.session(f"order-{logged.lane}-{number}"), list[Any]()
        for tag in ("a", "b", "c"):
            args = {"tag": f"{logged.lane}-{number}-{tag}"}
            match chance.randrange(3):
                case 0:
                    refs.append(session.execute.remote("run", args))
                case 1:
                    refs.append(pool.submit("run", args, session=session.id))
                case _:  # large: it goes by Ray, whatever waits for it
                    refs.append(pool.submit("identity", {**args, "data": large}, session=session.id))
                    refs.append(session.execute.remote("run", args))
        session.execute("run", {"tag": f"{logged.lane}-{number}-d"})
    ran = [tag for tag in logged.executed() if tag.startswith(f"{logged.lane}-")]
    assert ran[-4 * runs :] == [f"{logged.lane}-{number}-{tag}" for number in range(runs) for tag in "abcd"]


# ---- deaths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("victims", "kills"),
    [
        (("actor_pid", "pid"), 4),
        pytest.param(("actor_pid",), KILLS, marks=pytest.mark.slow),
        pytest.param(("pid",), KILLS, marks=pytest.mark.slow),
    ],
    ids=["both", "actors", "interpreters"],
)
@pytest.mark.timeout(1800)
def test_what_is_killed_under_load_runs_nothing_twice_and_loses_nothing(
    start: Any, tmp_path: Path, victims: tuple[str, ...], kills: int
) -> None:
    """Commands that are not idempotent, over the lane, between workers that move them to each other."""
    log = tmp_path / "log"
    size = max(2, math.ceil(kills / KILLS_OF_ONE))
    settings = {"adapter": adapter("log.py:Log"), "adapter_args": {"path": str(log)}}
    pool = start(size=size, lane="auto", queue_timeout=60.0, request_timeout=60.0, **settings)
    callers = Callers(pool, 3 * size)
    for number in range(kills):
        callers.flow(50)
        worker_id, victim = pool.workers()[number % size].worker_id, victims[number % len(victims)]
        wait_until_ready(pool, worker_id)
        with contextlib.suppress(ProcessLookupError):  # it died of the last kill only now
            os.kill(getattr(_facts(pool, worker_id), victim), signal.SIGKILL)
    outcomes = callers.end()
    ran = Counter(log.read_text().split())
    assert max(ran.values()) == 1, "it is not idempotent, and ran twice"
    assert set(ran) <= set(outcomes), "it ran, and nobody heard of it"
    failed = {tag: outcome for tag, outcome in outcomes.items() if outcome != tag}
    assert set(outcomes) - set(failed) <= set(ran)
    crashes = {tag: error for tag, error in failed.items() if isinstance(error, snakepit.WorkerCrashed)}
    assert crashes == failed
    unbegun = {tag for tag, error in crashes.items() if not error.may_have_started}
    assert not unbegun & set(ran), "it was said that they were not executed"
    assert len(failed) <= 2 * kills, "what a worker ran when it was killed, and no more"
    assert pool.stats().by_lane > 0


def wait_until_ready(pool: snakepit.Pool, worker_id: str) -> None:
    """A worker that does not come back says why."""
    try:
        wait_until(lambda: _state(pool, worker_id) == "ready", 60.0, "it is back")
    except pytest.fail.Exception:
        print(*pool.workers(), *(line for story in pool.stories().values() for line in story), sep="\n")
        raise


class Callers:
    """Threads that call without a pause, each call under a tag of its own, which is its answer."""

    def __init__(self, pool: snakepit.Pool, count: int) -> None:
        self._pool = pool
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._outcomes: dict[str, Any] = {}
        self._threads = [threading.Thread(target=self._call, args=(n,), daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def _call(self, caller: int) -> None:
        for number in itertools.count():
            if self._over.is_set():
                return
            tag = f"{caller}-{number}"
            try:
                outcome = self._pool.execute("run", {"tag": tag, "seconds": 0.001})["tag"]
            except snakepit.SnakepitError as error:
                outcome = error
            with self._lock:
                self._outcomes[tag] = outcome

    def flow(self, calls: int) -> None:
        """Waits until so many more calls have their outcome."""
        enough = len(self._outcomes) + calls
        wait_until(lambda: len(self._outcomes) > enough, 60.0, "calls flow")

    def end(self) -> dict[str, Any]:
        """What each call came to: its tag, or its error."""
        self._over.set()
        for thread in self._threads:
            thread.join(90.0)
        assert not any(thread.is_alive() for thread in self._threads), "hung"
        return self._outcomes


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_interrupts_of_a_blocking_caller_hold_up_no_other(start: Any, tmp_path: Path) -> None:
    """KeyboardInterrupt wherever the main thread is between and in its calls, while four threads call."""
    settings = {"adapter": adapter("log.py:Log"), "adapter_args": {"path": str(tmp_path / "log")}}
    pool, chance, interrupts = start(size=1, lane="auto", **settings), random.Random(5), 0
    numbers, mine = itertools.count(), dict[str, Any]()
    callers = Callers(pool, 4)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        while interrupts < INTERRUPTS:
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.005))
                while True:
                    tag = f"main-{next(numbers)}"
                    mine[tag] = pool.execute("run", {"tag": tag})["tag"]
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        outcomes = callers.end()
    assert all(outcome == tag for tag, outcome in {**outcomes, **mine}.items())
    assert len(outcomes) >= 4 and pool.execute("run", {"tag": "after"})["tag"] == "after"
    assert max(Counter((tmp_path / "log").read_text().split()).values()) == 1


@pytest.mark.parametrize("kills", [2, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_streams_of_killed_worker_actors_are_begun_once_and_end(
    start: Any, tmp_path: Path, kills: int
) -> None:
    """Callers take all, some or none of a stream, in threads and in event loops, while workers die."""
    log = tmp_path / "log"
    settings = {"adapter": adapter("log.py:Log"), "adapter_args": {"path": str(log)}}
    pool = start(size=2, lane="auto", queue_timeout=60.0, request_timeout=60.0, **settings)
    over, wrong, lock = threading.Event(), list[Any](), threading.Lock()
    ended: Counter[str] = Counter()

    def take(caller: int) -> None:
        chance, number = random.Random(caller), 0
        while not over.is_set():
            count, most = chance.choice([1, 50, 3000]), chance.choice([0, 1, 10**6])
            args, number = {"tag": f"{caller}-{number}", "count": count}, number + 1
            got: list[Any] = []
            try:
                if chance.random() < 0.5:
                    _take_some(pool.stream("stream", args), most, got)
                else:
                    asyncio.run(_await_some(pool, args, most, got))
                outcome = "taken"
                right = got == list(range(min(count, most)))
            except snakepit.WorkerCrashed:
                outcome, right = "crashed", got == list(range(len(got)))
            with lock:
                ended[outcome] += 1
                if not right:
                    wrong.append((args, most, got))

    callers = [threading.Thread(target=take, args=(caller,), daemon=True) for caller in range(4)]
    for caller in callers:
        caller.start()
    for number in range(kills):
        enough = ended.total() + 20
        wait_until(lambda enough=enough: ended.total() > enough, SECONDS, "streams end")
        worker = pool.workers()[number % 2]
        wait_until(lambda w=worker: _state(pool, w.worker_id) == "ready", SECONDS, "it is back")
        os.kill(_facts(pool, worker.worker_id).actor_pid, signal.SIGKILL)
    over.set()
    for caller in callers:
        caller.join(90.0)
    assert not any(caller.is_alive() for caller in callers), "hung"
    assert not wrong
    begun = Counter(line for line in log.read_text().split() if ":" not in line)
    assert max(begun.values()) == 1, "begun twice"
    assert ended["taken"] and pool.stats().by_lane > 0
    # The last one that was killed is back, too: it clears away what that left.
    wait_until(lambda: (pool.stats().available, pool.stats().busy) == (2, 0), SECONDS, "nothing runs")


def _take_some(values: Any, most: int, got: list[Any]) -> None:
    while len(got) < most and (value := next(values, None)) is not None:
        got.append(value["i"])


async def _await_some(pool: snakepit.Pool, args: Any, most: int, got: list[Any]) -> None:
    values = pool.astream("stream", args)
    while len(got) < most and (value := await anext(values, None)) is not None:
        got.append(value["i"])


def _facts(pool: snakepit.Pool, worker_id: str) -> Any:
    return next(worker for worker in pool.workers() if worker.worker_id == worker_id)


def _state(pool: snakepit.Pool, worker_id: str) -> str:
    return str(_facts(pool, worker_id).state)


def test_a_stopped_worker_costs_its_callers_their_budget_and_no_more(start: Any) -> None:
    pool = start(size=1, lane="auto", request_timeout=1.0)
    assert pool.execute("add", {"a": 1, "b": 2}, info=True).way == "lane"
    (worker,) = pool.workers()
    os.kill(worker.actor_pid, signal.SIGSTOP)
    try:
        futures = [pool.submit("add", {"a": 1, "b": 2}) for _ in range(20)]
        with pytest.raises(snakepit.DeadlineExceeded):
            pool.execute("add", {"a": 1, "b": 2})
        for future in futures:
            with pytest.raises(snakepit.DeadlineExceeded):
                future.result(SECONDS)
    finally:
        os.kill(worker.actor_pid, signal.SIGCONT)
    assert pool.execute("add", {"a": 1, "b": 2}, timeout=30.0) == {"result": 3}


# ---- the end -----------------------------------------------------------------------------------------------


def test_a_pool_that_ends_leaves_no_thread_and_no_socket(start: Any) -> None:
    pool = start(size=1, lane="auto")
    assert pool.execute("add", {"a": 1, "b": 2}, info=True).way == "lane"
    asyncio.run(pool.call("add", {"a": 1, "b": 2}))
    assert _readers(pool) and len(_directories()) >= 1
    before = set(_directories())
    slow = pool.submit("sleep_task", {"duration_ms": 30_000, "task_number": 1})
    pool.shutdown()
    with pytest.raises(snakepit.SnakepitError):
        slow.result(SECONDS)
    wait_until(lambda: not _readers(pool), SECONDS, "its reader has ended")
    wait_until(lambda: set(_directories()) < before, SECONDS, "its directory is gone")
    with pytest.raises(snakepit.PoolClosed):
        pool.execute("add", {"a": 1, "b": 2})


def _readers(pool: snakepit.Pool) -> list[str]:
    return [thread.name for thread in threading.enumerate() if f"snakepit-lane-{pool.name}-" in thread.name]


def _directories() -> list[str]:
    return glob.glob(os.path.join(RUN, "snakepit-*", "lanes", "*"))


def test_a_task_of_the_same_node_takes_the_lane_too(logged: Logged) -> None:
    @ray.remote(num_cpus=0)
    def use(pool: snakepit.Pool) -> str:
        return str(pool.execute("identity", {}, info=True).way)

    assert ray.get(use.remote(logged.pool), timeout=SECONDS) == logged.way
