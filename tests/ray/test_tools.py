"""Tools of callers, as the commands of a real pool use them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import ray

import snakepit_ray as snakepit
from tests.conftest import wait_until
from tests.ray.conftest import LANE, adapter
from tests.ray.harness import driver_that_dies, kill_actor_of, kill_router_of


@pytest.fixture(scope="module")
def pool(cluster: None) -> Iterator[snakepit.Pool]:
    settings: dict[str, Any] = {"name": f"tools-{os.urandom(4).hex()}", "lane": LANE}
    with snakepit.start(size=2, adapter=adapter("tools.py:Tools"), **settings) as one:
        yield one


@pytest.fixture
def tools(pool: snakepit.Pool) -> Iterator[snakepit.Pool]:
    """The pool, which loses the test's tools at its end."""
    yield pool
    for tool in pool.tools():
        pool.unregister_tool(tool.name, session=tool.session or None)


def use(pool: snakepit.Pool, name: str, /, command: str = "use", **args: Any) -> Any:
    return pool.execute(command, {"tool": name, "args": args})


def test_a_tool_here_runs_in_this_process_with_its_objects(tools: snakepit.Pool) -> None:
    seen: list[Any] = []

    def remember(value: Any, times: int = 1) -> int:
        """Remembers a value.

        And more that is not said."""
        seen.append((os.getpid(), value))
        return len(seen) * times

    tools.register_tool("remember", remember)
    assert use(tools, "remember", value=7, times=10) == 10
    assert use(tools, "remember", command="ause", value="a") == 2
    assert seen == [(os.getpid(), 7), (os.getpid(), "a")]
    (info,) = tools.tools()
    assert (info.name, info.where, info.description) == ("remember", "here", "Remembers a value.")
    listed = tools.execute("tools")["remember"]
    assert listed["parameters"] == {
        "type": "object",
        "properties": {"value": {}, "times": {"type": "integer", "default": 1}},
        "additionalProperties": False,
        "required": ["value"],
    }


def test_many_calls_at_once_and_async_functions(tools: snakepit.Pool) -> None:
    together = threading.Barrier(8, timeout=30)

    def meet(number: int) -> int:
        together.wait()
        return number

    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    tools.register_tools({"meet": meet, "double": double})
    assert tools.execute("at_once", {"tool": "meet", "count": 8}) == list(range(8))
    assert tools.execute("at_once", {"tool": "double", "count": 300}) == [n * 2 for n in range(300)]


@pytest.mark.parametrize("where", ["here", "worker", "task"])
def test_values_errors_and_streams_wherever_it_runs(tools: snakepit.Pool, where: str) -> None:
    def scale(x: Any, by: float) -> Any:
        return {"scaled": x * by, "pid": os.getpid()}

    def fail(reason: str) -> None:
        raise LookupError(f"because of {reason}")

    def cannot() -> Any:
        return {"a": [1, object()]}

    def count(to: int) -> Any:
        yield from ({"n": n} for n in range(to))

    tools.register_tools({"scale": scale, "fail": fail, "cannot": cannot, "count": count}, where=where)
    got = use(tools, "scale", x=np.arange(4000.0), by=2.0)
    np.testing.assert_array_equal(got["scaled"], np.arange(4000.0) * 2)
    assert (got["pid"] == os.getpid()) == (where == "here")
    failed = use(tools, "fail", command="fails", reason="rain")
    assert (failed["type"], failed["message"]) == ("LookupError", "because of rain")
    assert "in fail" in failed["traceback"]
    assert "test_tools.py" in failed["traceback"]
    refused = use(tools, "cannot", command="fails")
    assert refused["type"] == "EncodingError"
    assert 'result["a"][1]' in refused["message"]
    wrong = use(tools, "fail", command="fails", raeson="rain")
    assert wrong["type"] == "InvalidArguments"
    assert "it takes reason" in wrong["message"]
    assert use(tools, "count", command="atakes", to=200) == [{"n": n} for n in range(200)]
    assert tools.execute("takes", {"tool": "count", "most": 3, "args": {"to": 10**9}}) == [
        {"n": 0},
        {"n": 1},
        {"n": 2},
    ]


def test_a_generator_that_nobody_takes_any_more_is_closed(tools: snakepit.Pool) -> None:
    closed = threading.Event()

    def endless() -> Any:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    tools.register_tool("endless", endless)
    assert tools.execute("takes", {"tool": "endless", "most": 100}) == [1] * 100
    assert closed.wait(30)


def test_an_unknown_tool_says_what_there_is(tools: snakepit.Pool) -> None:
    tools.register_tool("lookup", len)
    failed = use(tools, "lokup", command="fails")
    assert failed["is_value_error"]
    assert "did you mean 'lookup'?" in failed["message"]
    assert failed["details"]["available"] == ["lookup"]
    with pytest.raises(snakepit.ToolNotFound, match="available: lookup"):
        tools.unregister_tool("lokup")


def test_names_are_given_once(tools: snakepit.Pool) -> None:
    tools.register_tool("a", len)
    with pytest.raises(snakepit.DuplicateTool):
        tools.register_tool("a", len, where="worker")
    with pytest.raises(snakepit.DuplicateTool):
        tools.register_tools({"b": len, "a": len})
    with pytest.raises(snakepit.DuplicateTool, match="a command of the pool"):
        tools.register_tool(f"{tools.name}.add", len)
    assert [tool.name for tool in tools.tools()] == ["a"]


def test_a_sessions_tool_comes_before_the_pools(tools: snakepit.Pool) -> None:
    tools.register_tool("who", lambda: "everybody")
    tools.register_tool("who", lambda: "alice", session="alice")
    who = [tools.execute("use", {"tool": "who"}, session=session) for session in ("alice", "bob", None)]
    assert who == ["alice", "everybody", "everybody"]
    tools.sessions.create("alice")
    assert tools.sessions.delete("alice")
    assert [(one.name, one.session) for one in tools.tools()] == [("who", "")]
    assert tools.execute("use", {"tool": "who"}, session="alice") == "everybody"


def test_a_tool_that_blocks_is_given_up_when_its_caller_is(tools: snakepit.Pool) -> None:
    entered, go = threading.Event(), threading.Event()

    def block() -> str:
        entered.set()
        go.wait(60)
        return "done"

    tools.register_tool("block", block)
    future = tools.submit("use", {"tool": "block"})
    assert entered.wait(30)
    assert future.cancel()
    wait_until(lambda: tools.stats().busy == 0, 30, "the command has ended")
    with pytest.raises(snakepit.DeadlineExceeded):
        tools.execute("use", {"tool": "block"}, timeout=0.3)
    go.set()
    assert use(tools, "block") == "done"


def test_a_tool_that_calls_its_pool_carries_the_chain(tools: snakepit.Pool) -> None:
    seen: list[Any] = []

    def nested(depth: int) -> int:
        from snakepit_ray.wire import chains

        call = chains.inside()
        assert call is not None
        seen.append((call.chain.root, list(call.chain.calls)))
        if not depth:
            return 0
        return 1 + int(tools.execute("use", {"tool": "nested", "args": {"depth": depth - 1}}))

    tools.register_tool("nested", nested)
    assert use(tools, "nested", depth=1) == 1
    (first, second) = seen
    assert first[0] == second[0]
    assert (first[1], second[1]) == ([f"{tools.name}.use"], [f"{tools.name}.use"] * 2)


def test_new_workers_know_the_tools(tools: snakepit.Pool) -> None:
    tools.register_tool("pid", os.getpid)
    tools.scale(3)
    used = tools.map("use", ({"tool": "pid"} for _ in range(60)), chunk_size=1, info=True)
    replies = list(used)
    assert {reply.value for reply in replies} == {os.getpid()}
    tools.scale(2)


def test_tools_outlive_a_worker_and_the_router(start: Any) -> None:
    pool = start(size=1, adapter=adapter("tools.py:Tools"))
    pool.register_tool("pid", os.getpid)
    pool.register_tool("there", os.getpid, where="worker")
    kill_actor_of(pool)
    assert pool.execute("use", {"tool": "pid"}, idempotent=True) == os.getpid()
    kill_router_of(pool)
    wait_until(lambda: [tool.name for tool in tools_or_none(pool)] == ["pid", "there"], 30, "known again")
    assert use(pool, "pid") == os.getpid()
    assert use(pool, "there") != os.getpid()
    with pytest.raises(snakepit.DuplicateTool):
        pool.register_tool("pid", len)


def tools_or_none(pool: snakepit.Pool) -> Any:
    try:
        return pool.tools()
    except snakepit.SnakepitError:
        return []


def test_it_ends_with_the_process_that_registered_it(tools: snakepit.Pool) -> None:
    body = f"""
pool = snakepit.connect({tools.name!r})
def hang():
    print("called", flush=True)
    time.sleep(1000)
pool.register_tools({{"hang": hang, "quick": lambda: 5}})
print("ready", flush=True)
time.sleep(1000)
"""
    with driver_that_dies(body, says="ready"):
        assert use(tools, "quick") == 5
        pending = tools.execute.remote("fails", {"tool": "hang"})
        wait_until(lambda: tools.stats().busy == 1, 30, "the tool is called")
    failed = ray.get(pending)
    assert failed["type"] == "ToolNotFound"
    assert "'hang'" in failed["message"]
    assert "has ended" in failed["message"]
    wait_until(lambda: not tools.tools(), 30, "its names are free")
    assert "no tool 'quick'" in use(tools, "quick", command="fails")["message"]


def test_tasks_and_actors_register_tools(tools: snakepit.Pool) -> None:
    class Counter:
        def __init__(self, pool: snakepit.Pool) -> None:
            self.count = 0
            pool.register_tool("up", self.up)

        def up(self, by: int) -> int:
            self.count += by
            return self.count

        def get(self) -> int:
            return self.count

    counter = ray.remote(num_cpus=0)(Counter).remote(tools)
    ray.get(counter.get.remote())
    assert [use(tools, "up", by=2) for _ in range(3)] == [2, 4, 6]
    assert ray.get(counter.get.remote()) == 6
    ray.kill(counter)
    wait_until(lambda: not tools.tools(), 30, "its tools end with it")


def test_a_tool_of_the_interpreter_itself(tools: snakepit.Pool) -> None:
    assert tools.execute("own", {"name": "twice"}, session="own") == [42, ["twice"]]


def test_calls_of_tools_are_events(tools: snakepit.Pool) -> None:
    seen: list[Any] = []
    tools.register_tools({"good": os.getpid, "bad": lambda: 1 / 0})
    with snakepit.telemetry.attach("tool.*", lambda *event: seen.append(event)) as handle:
        assert handle.connected(30)
        use(tools, "good")
        use(tools, "bad", command="fails")
        wait_until(lambda: len(seen) >= 2, 30, "both are told")
    told = sorted((event[2]["tool"], event[2]["success"], event[2]["where"]) for event in seen)
    assert told == [("bad", False, "here"), ("good", True, "here")]


def test_a_pool_describes_its_commands_and_tools(shared: snakepit.Pool) -> None:
    shared.register_tool("shout", lambda text: text.upper(), session="s", description="Says it loudly.")
    said = shared.describe()
    shared.unregister_tool("shout", session="s")
    assert said.commands["add"].parameters["required"] == ["a", "b"]
    assert said.commands["stream_data"].is_stream
    operation = said.commands["process_text"].parameters["properties"]["operation"]
    assert operation["default"] == "upper"
    assert [(tool.name, tool.session, tool.description) for tool in said.tools] == [
        ("shout", "s", "Says it loudly.")
    ]
    assert said.to_dict()["commands"]["add"]["name"] == "add"


def test_the_showcase_calls_the_host(shared: snakepit.Pool) -> None:
    shared.register_tool("shout", lambda text: text.upper())
    assert shared.execute("call_host_demo", {"tool_name": "shout", "text": "hi"}) == "HI"
    shared.unregister_tool("shout")


# ---- commands of other pools -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(cluster: None) -> Iterator[snakepit.Pool]:
    settings: dict[str, Any] = {"name": f"other.{os.urandom(4).hex()}", "lane": LANE}
    with snakepit.start(size=1, adapter=adapter("tools.py:Tools"), **settings) as one:
        yield one


def test_commands_of_other_pools_are_tools(tools: snakepit.Pool, other: snakepit.Pool) -> None:
    add, count = f"{other.name}.add", f"{other.name}.count"
    assert use(tools, add, a=1, b=2) == 3
    assert use(tools, add, command="ause", a="x", b="y") == "xy"
    got = use(tools, add, a=np.arange(4000.0), b=1.0)
    np.testing.assert_array_equal(got, np.arange(4000.0) + 1)
    assert use(tools, count, command="atakes", to=50) == list(range(50))
    assert tools.execute("takes", {"tool": count, "most": 2, "args": {"to": 10**9}}) == [0, 1]
    failed = use(tools, f"{other.name}.ad", command="fails", a=1)
    assert failed["type"] == "UnknownCommand"
    wrong = use(tools, add, command="fails", a=1)
    assert wrong["type"] == "InvalidArguments"
    yields = use(tools, count, command="fails", to=1)
    assert "execute_stream" in yields["message"]
    nowhere = use(tools, "nowhere.add", command="fails", a=1)
    assert nowhere["type"] == "ToolNotFound"
    assert f"{other.name}.COMMAND" in nowhere["details"]["available"]
    wait_until(lambda: other.stats().busy == 0, 30, "the streams that were left have ended")


def test_a_pool_that_has_ended_says_so_and_another_of_its_name_is_found(
    tools: snakepit.Pool, start: Any
) -> None:
    name = f"ends-{os.urandom(4).hex()}"
    first = start(name=name, size=1, adapter=adapter("tools.py:Tools"))
    assert use(tools, f"{name}.add", a=1, b=2) == 3
    first.shutdown()
    kinds = {use(tools, f"{name}.add", command="fails", a=1, b=2)["type"] for _ in range(3)}
    assert kinds <= {"PoolClosed", "ToolNotFound"}
    start(name=name, size=1, adapter=adapter("tools.py:Tools"))
    failed = partial(use, tools, f"{name}.add", command="fails", a=1, b=2)
    wait_until(lambda: failed() is None, 30, "the worker that was asked knows the second pool")
    wait_until(lambda: failed() is None, 30, "and so does the other one")


def test_the_session_and_the_cancellation_reach_the_other_pool(
    tools: snakepit.Pool, other: snakepit.Pool
) -> None:
    entered, go = threading.Event(), threading.Event()

    def wait(who: str) -> str:
        entered.set()
        go.wait(60)
        return who

    other.register_tool("who", lambda: "of the session", session="s")
    assert tools.execute("use", {"tool": f"{other.name}.use", "args": {"tool": "who"}}, session="s")
    other.register_tool("wait", wait)
    args = {"tool": f"{other.name}.use", "args": {"tool": "wait", "args": {"who": "x"}}}
    future = tools.submit("use", args)
    assert entered.wait(30)
    assert future.cancel()
    wait_until(lambda: (tools.stats().busy, other.stats().busy) == (0, 0), 30, "both have ended")
    go.set()
    for tool in other.tools():
        other.unregister_tool(tool.name, session=tool.session or None)


def test_crosswise_calls_end_and_say_why(start: Any) -> None:
    """Each pool has one slot, and each chain holds the one that the other needs."""
    left, right = (start(size=1, adapter=adapter("tools.py:Tools"), queue_timeout=60) for _ in range(2))
    both = threading.Barrier(2, timeout=60)
    for pool in (left, right):
        pool.register_tool("meet", both.wait)

    def cross(pool: snakepit.Pool, there: snakepit.Pool) -> Any:
        args = {"tools": [["meet", {}], [f"{there.name}.add", {"a": 1, "b": 2}]]}
        return pool.submit("in_turn", args, timeout=120)

    ends = [future.exception(120) for future in (cross(left, right), cross(right, left))]
    failed = [error for error in ends if error is not None]
    assert len(failed) == 1, "the older one is served when the younger one has failed"
    assert "in_turn -> " in str(failed[0])
    assert ".add: all slots of pool" in str(failed[0])
    assert use(left, f"{right.name}.add", a=1, b=2) == 3


def test_a_full_pool_takes_the_chains_that_come_back_to_it(start: Any) -> None:
    """Each finds the very worker where its own command waits, and needs no slot there."""
    one = start(size=2, adapter=adapter("tools.py:Tools"), queue_timeout=60)
    two = start(size=2, adapter=adapter("tools.py:Tools"), queue_timeout=60)
    one.register_tool("back", lambda a: one.execute("add", {"a": a, "b": 1}))
    inner: dict[str, Any] = {"tool": f"{one.name}.use", "args": {"tool": "back", "args": {"a": 1}}}
    args = {"tool": f"{two.name}.use", "args": inner}
    assert [future.result(120) for future in [one.submit("use", args) for _ in range(30)]] == [2] * 30
    assert (one.stats().saturated, two.stats().saturated) == (0, 0)


def test_a_chain_that_comes_back_runs_inside_of_the_command_that_waits(start: Any) -> None:
    pool = start(size=1, adapter=adapter("tools.py:Tools"), queue_timeout=60)
    itself = f"{pool.name}.use"
    pool.register_tool("again", lambda: pool.execute("add", {"a": 1, "b": 2}))
    assert use(pool, "again") == 3
    assert use(pool, itself, tool="again") == 3
    assert use(pool, f"{pool.name}.ause", command="ause", tool=f"{pool.name}.sleeps") == "slept"
    failed = use(pool, f"{pool.name}.add", command="afails", a=1, b=2)
    assert failed["type"] == "PoolSaturated", "a command that is not async cannot run beside one that is"
    assert f"{pool.name}.afails -> {pool.name}.add: all slots" in failed["message"]
    (worker,) = pool.workers()
    assert (worker.running, worker.waiting, worker.restarts) == (0, 0, 0)
    nested: dict[str, Any] = {"tool": f"{pool.name}.add", "args": {"a": 1, "b": 2}}
    for _ in range(13):
        nested = {"tool": itself, "args": nested}
    assert pool.execute("use", nested) == 3
    for _ in range(3):
        nested = {"tool": itself, "args": nested}
    with pytest.raises(snakepit.CommandError, match="17 deep, at most 16"):
        pool.execute("use", nested)
