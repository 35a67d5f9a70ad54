"""What the calling process answers for: whom a cancel and an interrupt take along, the order of a session's
calls, deadlines of workers that say nothing, and handles that outlive their Ray session."""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray

import snakepit_ray as snakepit
from snakepit_ray.port import ray_port
from snakepit_ray.process import state_files
from tests.conftest import wait_until
from tests.ray.conftest import ADAPTERS
from tests.ray.harness import executed, start_log

pytestmark = pytest.mark.ray


@ray.remote(num_cpus=0, max_concurrency=1000)
class Service:
    """An async service whose methods call a pool."""

    def __init__(self, pool: snakepit.Pool) -> None:
        self.pool = pool

    async def ask(self, n: int) -> int:
        reply = await self.pool.call("sleep_task", {"duration_ms": 2, "task_number": n})
        return int(reply["task_number"])


def test_a_cancelled_method_takes_nobody_along(shared: snakepit.Pool) -> None:
    service = Service.remote(shared)
    ray.get(service.ask.remote(0))
    strangers = []
    for _ in range(5):
        refs = [service.ask.remote(n) for n in range(100)]
        for ref in refs[::10]:
            ray.cancel(ref)
        strangers += [(n, ref) for n, ref in enumerate(refs) if n % 10]
    answers = [(n, ray.get(ref)) for n, ref in strangers]
    assert all(n == answer for n, answer in answers)
    ray.kill(service)


def _execute(pool: snakepit.Pool) -> Any:
    return pool.execute("sleep_task", {"duration_ms": 60_000, "task_number": 1})


def _execute_batch(pool: snakepit.Pool) -> Any:
    return pool.execute_batch("sleep_task", [{"duration_ms": 60_000, "task_number": 1}])


def _submit(pool: snakepit.Pool) -> Any:
    return pool.submit("sleep_task", {"duration_ms": 60_000, "task_number": 1}).result()


def _map(pool: snakepit.Pool) -> Any:
    return list(pool.map("sleep_task", [{"duration_ms": 60_000, "task_number": 1}]))


@pytest.mark.parametrize("form", [_execute, _execute_batch, _submit, _map])
def test_an_interrupt_of_who_waits_stops_the_command(
    shared: snakepit.Pool, form: Callable[[snakepit.Pool], Any]
) -> None:
    def interrupt() -> None:
        wait_until(lambda: shared.stats().busy == 1, 30, "the command runs")
        # As the terminal does it: `_thread.interrupt_main` wakes nobody who waits for a lock.
        signal.pthread_kill(main, signal.SIGINT)

    assert shared.stats().busy == 0
    main = threading.get_ident()
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        form(shared)
    thread.join()
    wait_until(lambda: shared.stats().busy == 0, 20, "the slot is free again")


def test_wrong_values_of_control_calls_are_told(shared: snakepit.Pool) -> None:
    for wrong in (
        lambda: shared.await_ready("soon"),  # type: ignore[arg-type]
        lambda: shared.shutdown(drain=-1),
        lambda: shared.recycle(3),  # type: ignore[arg-type]
        lambda: shared.scale("2"),  # type: ignore[arg-type]
    ):
        with pytest.raises(snakepit.ConfigError, match=r"got .*expected"):
            wrong()
    with pytest.raises(snakepit.ConfigError, match="items: got 5"):
        shared.execute_batch("add", 5)  # type: ignore[arg-type]
    with pytest.raises(snakepit.ConfigError, match=r"got 3 .*expected"):
        snakepit.connect(3)  # type: ignore[arg-type]
    with pytest.raises(snakepit.ConfigError, match=r"got 'x' .*expected a PoolConfig"):
        snakepit.start("x")  # type: ignore[arg-type]
    assert shared.execute("add", {"a": 1, "b": 2}) == {"result": 3}


def test_a_blocking_call_never_overtakes_what_its_session_sent_before(shared: snakepit.Pool) -> None:
    refs = []
    for number in range(200):
        # Strict: with a hint the second call runs at another worker while the first is busy at its own.
        execute = shared.session(f"order-{number}").execute.options(affinity="strict_queue")
        refs.append(execute.remote("set_counter", {"value": number}))
        assert execute("increment_counter")["value"] == number + 1
    ray.get(refs)


def test_a_large_argument_is_not_overtaken_by_a_small_one(shared: snakepit.Pool) -> None:
    for number in range(5):
        session = shared.session(f"large-{number}")
        ref = session.execute.remote("echo", {"data": bytes(4_000_000)})
        later = session.execute("get_worker_info")
        assert ray.get(ref)["echoed"]["data"] == bytes(4_000_000)
        assert later["session_id"] == session.id


def test_a_handle_with_an_old_table_calls_who_is_there(start: Any) -> None:
    pool = start(size=3)
    handle = pickle.dumps(pool)
    pool.scale(1)

    @ray.remote(num_cpus=0)
    def use(pickled: bytes) -> list[Any]:
        again = pickle.loads(pickled)
        one = again.execute("add", {"a": 1, "b": 2})["result"]
        many = [each["result"] for each in again.map("add", [{"a": n, "b": 0} for n in range(200)])]
        batch = again.execute_batch("add", [{"a": n, "b": 0} for n in range(20)])
        return [one, many, [each["result"] for each in batch]]

    assert ray.get([use.remote(handle) for _ in range(3)]) == [[3, list(range(200)), list(range(20))]] * 3


def test_every_form_of_a_call_to_a_stopped_worker_ends_by_itself(start: Any) -> None:
    pool = start(size=1, request_timeout=2)
    add = {"a": 1, "b": 2}
    assert pool.execute("add", add) == {"result": 3}

    async def call() -> Any:
        return await pool.call("add", add, timeout=1)

    async def astream() -> Any:
        return [chunk async for chunk in pool.astream("stream_data", {"count": 1}, timeout=1)]

    forms = (
        lambda: pool.execute("add", add),
        lambda: pool.execute("add", add, session="s", timeout=1),
        lambda: pool.execute_batch("add", [add, add]),
        lambda: list(pool.map("add", [add, add])),
        lambda: list(pool.stream("stream_data", {"count": 1}, timeout=1)),
        lambda: asyncio.run(call()),
        lambda: asyncio.run(astream()),
        lambda: pool.submit("add", add, timeout=1).result(60),
    )
    pid = pool.workers()[0].actor_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(len(forms)) as together:
            errors = [one.exception(100) for one in [together.submit(form) for form in forms]]
        assert [type(error) for error in errors] == [snakepit.DeadlineExceeded] * len(forms)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: pool.stats().busy == 0, 30, "nothing is held")


AFTER = """
import asyncio, os, sys
import ray
import snakepit_ray as snakepit
from tests.ray import forked_workers

forked_workers.install()
options = dict(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
ray.init(**options)
pool = snakepit.start(size=3, interpreter=sys.executable, name="old")
stream = pool.stream("infinite_stream", {"delay_ms": 1})
next(stream)
results = pool.map("sleep_task", [{"duration_ms": 1, "task_number": n} for n in range(50)])
next(results)
future = pool.submit("sleep_task", {"duration_ms": 60_000, "task_number": 1})
ray.shutdown()

def closed(form):
    try:
        form()
    except snakepit.PoolClosed:
        return
    raise AssertionError(f"{form} did not say that the pool is closed")

def check():
    closed(lambda: future.result(30))
    closed(lambda: pool.execute("ping"))
    closed(lambda: pool.execute.remote("ping"))
    closed(lambda: pool.submit("ping"))
    closed(lambda: asyncio.run(pool.call("ping")))
    closed(lambda: list(pool.map("ping", [{}])))
    closed(lambda: list(stream))
    closed(lambda: next(results))
    closed(lambda: pool.stats())

check()
assert not ray.is_initialized()
ray.init(**options)
stream2 = stream
for form in (lambda: pool.execute("ping"), lambda: pool.stream("ping"), pool.stats):
    closed(form)
del stream, stream2, results, future
snakepit.shutdown()
with snakepit.start(size=1, interpreter=sys.executable, name="old") as pool:
    assert pool.execute("add", {"a": 1, "b": 2}) == {"result": 3}
print("well", flush=True)
ray.shutdown()
"""


@pytest.mark.timeout(400)
def test_handles_of_a_ray_session_that_is_over_say_so_and_harm_nothing() -> None:
    # A cluster that ends before its pools kills their workers, whose state files stay until another worker of
    # the node's directory removes them: this one is the test's own.
    node = tempfile.mkdtemp(prefix="sp-", dir="/tmp")
    settings = {
        "RAY_agent_register_timeout_ms": "200000",
        "RAY_raylet_start_wait_time_s": "200",
        "TMPDIR": node,
        "PYTHONPATH": str(ADAPTERS.parent.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", AFTER], env={**os.environ, **settings}, capture_output=True, text=True
    )
    shutil.rmtree(node, ignore_errors=True)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr[-4000:]


def test_a_worker_that_dies_for_good_in_the_midst_of_a_call_is_told_as_a_worker(
    start: Any, tmp_path: Path
) -> None:
    """It was told as the end of the pool, in every form of a call."""
    pool, log = start_log(start, tmp_path, size=2)
    future = pool.submit("until_file", {"tag": "runs", "path": str(tmp_path / "never")})
    wait_until(lambda: executed(log) == ["runs"], 30, "it runs")
    (busy,) = [worker for worker in pool.workers() if worker.running]
    ray.kill(ray_port.find_worker(busy.worker_id))
    with pytest.raises(snakepit.WorkerCrashed, match=r"may or may not have run|may have started") as crash:
        future.result(60)
    assert crash.value.may_have_started
    tags = {f"after{i}" for i in range(20)}
    # The router may not know yet that the worker is gone, and its next table would send an item there.
    items = [{"tag": tag} for tag in sorted(tags)]
    assert {done["tag"] for done in pool.map("run", items, idempotent=True)} == tags
    wait_until(lambda: pool.stats().available == 2, 60, "another one is in its place")
    assert sorted(executed(log)) == sorted(["runs", *tags]), "each ran once"
    for path in state_files.path_of("any", "").parent.glob(f"{busy.worker_id}-*"):
        path.unlink()  # nobody told it that it has no next life: a sweep would take them in an hour
