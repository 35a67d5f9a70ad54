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
from snakepit_ray.client.records import Change, Variable
from snakepit_ray.client.stream import SessionStreamCall, StreamCall
from snakepit_ray.client.variables import Variables
from snakepit_ray.core.state.asked import SessionInfo
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

session = pool.session("s", ttl="1h", metadata={"user": 1})
assert_type(session, snakepit.Session)
assert_type(session.variables, Variables)
assert_type(session.variables.register("rate", "float", 1, {"min": 0}), int)
assert_type(session.variables.set("rate", 1, expected_version=1), int)
assert_type(session.variables.get_versioned("rate").version, int)
assert_type(session.variables.get_many(["rate"]).missing, list[str])
assert_type(session.variables.list("r*"), list[Variable])
assert_type(session.variables.history("rate")[0].version, int)
assert_type(next(session.variables.watch("rate")), Change)
assert_type(pool.sessions.create("s", ttl=5), SessionInfo)
assert_type(pool.sessions.update("s", lambda metadata: {**metadata, "n": 1}), SessionInfo)
assert_type(pool.sessions.list(pool="p"), list[SessionInfo])
assert_type(pool.sessions.delete("s"), bool)
assert_type(pool.sessions.stats().sessions, int)


async def for_asyncio() -> None:
    """The same for asyncio."""
    assert_type(await pool.asession("s", ttl=1), snakepit.Session)
    assert_type(await session.variables.aset("rate", 1), int)
    assert_type(await pool.sessions.alist(), list[SessionInfo])
    async for change in session.variables.awatch(["rate"]):
        assert_type(change, Change)


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
pool.register_tool("t", print, where="hear")  # error: arg-type reportArgumentType
pool.session("s", affinity="stict")  # error: arg-type reportArgumentType
pool.execute.remote("add", retries=1.5)  # error: arg-type reportArgumentType
pool.execute(1)  # error: arg-type reportArgumentType
pool.execute_in_session("s", "add", {}, session="t")  # error: misc reportCallIssue
pool.session("s").execute_stream.remote("rows", affinity="sometimes")  # error: arg-type reportArgumentType
pool.submit("add", {"a": 1}, idempotnet=True)  # error: call-arg reportCallIssue
pool.map("add", 5)  # error: arg-type reportArgumentType
pool.session("s", tll=5)  # error: call-arg reportCallIssue
pool.sessions.create("s", ttl=[1])  # error: arg-type reportArgumentType
session.variables.set("rate", 1, 2)  # error: call-arg reportCallIssue
session.variables.set("rate", 1, expected="1")  # error: call-arg reportCallIssue
session.variables.register(1, "float", 1)  # error: arg-type reportArgumentType
session.variables.watch(5)  # error: arg-type reportArgumentType
snakepit.start(sise=4)  # error: call-arg reportCallIssue
snakepit.start(size="4")  # error: arg-type reportArgumentType
snakepit.start(affinity="sometimes")  # error: arg-type reportArgumentType
snakepit.start(profile="fiber")  # error: arg-type reportArgumentType
snakepit.strat()  # error: attr-defined reportAttributeAccessIssue
snakepit.run_as_script(print, sise=1)  # error: call-arg reportCallIssue
