"""What a user writes, right and wrong. Two type checkers read it, and nobody runs it.

A comment names the rule that each of them is to report for its line: mypy's, then pyright's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

import snakepit_ray as snakepit
from snakepit_ray.client.chunk_refs import ChunkRefs
from snakepit_ray.client.forms import BatchCall, Call, SessionCall
from snakepit_ray.client.stream import SessionStreamCall, StreamCall
from snakepit_ray.testing import FakePool, RecordedCall

# ---- what there is, and what it is -------------------------------------------------------------------------

pool = snakepit.start(size=4, queue_timeout="10s", affinity="strict_queue", interpreter=Path("/opt/python"))
assert_type(pool, snakepit.Pool)
assert_type(snakepit.connect("a"), snakepit.Pool)
assert_type(snakepit.start_all("snakepit.toml").failed, dict[str, Exception])
assert_type(pool.execute, Call)
assert_type(pool.execute.options(timeout=5), Call)
assert_type(pool.execute_batch, BatchCall)
assert_type(pool.execute_in_session, SessionCall)
assert_type(pool.execute_stream, StreamCall)
assert_type(pool.execute_in_session_stream, SessionStreamCall)
assert_type(pool.execute_batch("add", [{"a": 1}]), list[Any])
assert_type(pool.execute_stream.remote("rows"), ChunkRefs)
assert_type(pool.execute_stream("rows", {}, print), int)
assert_type(pool.submit("add", {"a": 1}, timeout=1.5), Future[Any])
assert_type(pool.stream("rows", progress=True), Generator[Any, None, None])
assert_type(pool.astream("rows"), AsyncIterator[Any])
assert_type(pool.map("add", [{"a": 1}], ordered=False), Iterator[Any])
assert_type(pool.session("s"), snakepit.Session)
assert_type(pool.stats().requests, int)
assert_type(pool.workers()[0].epoch, tuple[int, int])
assert_type(pool.config, snakepit.PoolConfig)
assert_type(snakepit.PoolConfig().queue_timeout, float)

# ---- options and settings that are right -------------------------------------------------------------------

pool.execute("add", {"a": 1}, timeout="5s", session="s", info=True)
pool.execute("add", affinity=snakepit.Affinity.HINT, idempotent=True, retries=2, rebind=True)
pool.execute_in_session("s", "add", {"a": 1}, retries=2)
pool.session("s").execute.remote("add", idempotent=True)
snakepit.start(worker_max_memory="2GiB", circuit_breaker={"failures": 5}, env={"A": "b"}, on_progress=print)

try:
    pool.execute("add")
except snakepit.WorkerCrashed as crash:
    assert_type(crash.may_have_started, bool)
    assert_type(crash.exit_code, int | None)
except snakepit.UnknownCommand as unknown:
    assert_type(unknown.nearest, tuple[str, ...])

# ---- a fake pool is a pool --------------------------------------------------------------------------------


def code_under_test(pool: snakepit.Pool) -> list[Any]:
    """A user's own function."""
    return [pool.execute("add", {"a": 1}), *pool.stream("rows")]


fake = FakePool({"add": lambda a: a}, size=2)
assert_type(code_under_test(fake), list[Any])
assert_type(fake.calls, list[RecordedCall])
assert_type(fake.calls[0].options, snakepit.CallOptions)
fake.execute("add", timout=5)  # error: call-arg reportCallIssue
FakePool({}, sise=4)  # error: call-arg reportCallIssue
fake.fail("add", "no")  # error: arg-type reportArgumentType

# ---- and those that are not --------------------------------------------------------------------------------

pool.execute("add", {"a": 1}, timout=5)  # error: call-arg reportCallIssue
pool.execute("add", {"a": 1}, timeout=[1])  # error: arg-type reportArgumentType
pool.execute("add", {"a": 1}, info="yes")  # error: arg-type reportArgumentType
pool.execute.options(retry=3)  # error: call-arg reportCallIssue
pool.execute.remote("add", retries=1.5)  # error: arg-type reportArgumentType
pool.execute(1)  # error: arg-type reportArgumentType
pool.execute_in_session("s", "add", {}, session="t")  # error: misc reportCallIssue
pool.session("s").execute_stream.remote("rows", affinity="sometimes")  # error: arg-type reportArgumentType
pool.submit("add", {"a": 1}, idempotnet=True)  # error: call-arg reportCallIssue
pool.map("add", 5)  # error: arg-type reportArgumentType
snakepit.start(sise=4)  # error: call-arg reportCallIssue
snakepit.start(size="4")  # error: arg-type reportArgumentType
snakepit.start(affinity="sometimes")  # error: arg-type reportArgumentType
snakepit.start(profile="fiber")  # error: arg-type reportArgumentType
snakepit.strat()  # error: attr-defined reportAttributeAccessIssue
snakepit.run_as_script(print, sise=1)  # error: call-arg reportCallIssue
