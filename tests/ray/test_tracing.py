"""Tracing: Ray's own changes nothing, and a caller's spans reach the commands that it calls."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.ray.conftest import ADAPTERS

pytestmark = pytest.mark.ray

# Tracing is a matter of the whole cluster, so that this one is the test's own.
DRIVER = """
import asyncio, sys
import ray, snakepit_ray as snakepit
from tests.ray import forked_workers
forked_workers.install()
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000,
         _tracing_startup_hook="ray.util.tracing.setup_local_tmp_tracing:setup_tracing")
chunks = {"count": 3, "delay": 0}
with snakepit.start(size=1, interpreter=sys.executable) as pool:
    assert [pool.execute("add", {"a": i, "b": 1})["result"] for i in range(20)] == list(range(1, 21))
    assert [ray.get(pool.execute.remote("add", {"a": i, "b": 1}))["result"] for i in range(3)] == [1, 2, 3]
    assert len(pool.execute_batch("add", [{"a": i, "b": 1} for i in range(50)])) == 50
    assert len(list(pool.map("add", ({"a": i, "b": 1} for i in range(50))))) == 50
    assert pool.submit("add", {"a": 1, "b": 1}).result(30) == {"result": 2}
    assert asyncio.run(pool.call("add", {"a": 1, "b": 1})) == {"result": 2}
    assert len(list(pool.stream("stream_data", chunks))) == 3
    assert len([ray.get(ref) for ref in pool.execute_stream.remote("stream_data", chunks)]) == 3
    session = pool.session("s")
    assert session.execute("increment_counter")["value"] == 1
    seen = []
    pool.execute_stream("stream_data", chunks, seen.append)
    assert len(seen) == 3
    async def astream():
        return [chunk async for chunk in pool.astream("stream_data", chunks)]
    assert len(asyncio.run(astream())) == 3
    assert pool.stats().errors == 0 and not pool._directory.closed
    print("all well")
"""


def test_calls_and_streams_with_rays_tracing_on() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ADAPTERS.parent.parent)},
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "all well"), ran.stderr[-4000:]


# Spans of the driver's own, without Ray's tracing.
SPANS = """
import asyncio, sys
import ray, snakepit_ray as snakepit
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from tests.ray import forked_workers
forked_workers.install()
trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("test")
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)

def own():
    span = trace.get_current_span().get_span_context()
    return f"{span.trace_id:032x}-{span.span_id:016x}"

def ids(said):
    return said[0][3:-3]

async def call(pool, seen):
    with tracer.start_as_current_span("one"):
        seen.append((own(), ids(await pool.call("traced"))))

async def calls(pool, seen):
    await asyncio.gather(*(call(pool, seen) for _ in range(100)))
    assert (await pool.call("traced"))[0] == ""

with snakepit.start(size=1, interpreter=sys.executable, adapter=sys.argv[1]) as pool:
    assert pool.execute("traced") == ["", ""]
    seen = []
    asyncio.run(calls(pool, seen))
    assert len({mine for mine, _ in seen}) == 100
    with tracer.start_as_current_span("all"):
        said = [pool.execute("traced"), ray.get(pool.execute.remote("traced"))]
        said.append(pool.submit("traced").result(30))
        said += pool.execute_batch("traced", [{}] * 50)
        said += pool.map("traced", ({} for _ in range(50)))
        said += [pool.session("s").execute("traced"), *pool.stream("traced")]
        seen += [(own(), ids(one)) for one in said]
    assert len(seen) == 205, len(seen)
    assert all(mine == theirs for mine, theirs in seen), seen
    print("all well")
"""


def test_every_call_brings_the_span_of_its_own_caller() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SPANS, str(ADAPTERS / "asking.py")],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ADAPTERS.parent.parent)},
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "all well"), ran.stderr[-4000:]
