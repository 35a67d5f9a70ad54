"""A fake pool: what a user's own unit tests see of it. Neither Ray nor another process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import snakepit_ray as snakepit
from snakepit_ray import telemetry
from snakepit_ray.testing import FakePool, FakeRef

HALT = snakepit.HALT


def add(a: int, b: int = 1) -> dict[str, int]:
    return {"result": a + b}


def rows(count: int) -> Any:
    yield from range(count)


async def later(x: int) -> int:
    await asyncio.sleep(0)
    return x


async def ticks(count: int) -> Any:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


def bad(kind: str) -> None:
    raise {"value": ValueError, "exit": SystemExit}[kind]("no")


COMMANDS = {"add": add, "rows": rows, "later": later, "ticks": ticks, "bad": bad, "echo": lambda x: x}


@pytest.fixture
def pool() -> Any:
    with FakePool(COMMANDS) as one:
        yield one


# ---- the forms of a call -----------------------------------------------------------------------------------


def test_every_form_gives_the_value(pool: FakePool) -> None:
    expected = {"result": 3}
    args = {"a": 1, "b": 2}
    assert pool.execute("add", args) == expected
    assert FakePool.get(pool.execute.remote("add", args)) == expected
    assert pool.execute.options(timeout=5)("add", args) == expected
    assert pool.execute_in_session("s", "add", args) == expected
    assert FakePool.get(pool.execute_in_session.remote("s", "add", args)) == expected
    assert pool.submit("add", args).result() == expected
    assert asyncio.run(pool.call("add", args)) == expected
    assert asyncio.run(pool.session("s").call("add", args)) == expected
    assert pool.session("s").execute("add", args) == expected
    assert pool.execute_batch("add", [args, args]) == [expected] * 2
    assert FakePool.get([pool.execute_batch.remote("add", [args]), pool.execute_batch.remote("add", [])]) == [
        [expected],
        [],
    ]
    assert list(pool.map("add", [args] * 3)) == [expected] * 3
    assert pool.execute("later", {"x": 7}) == 7


@pytest.mark.parametrize("command", ["rows", "ticks"])
def test_every_form_of_a_stream_gives_its_values(pool: FakePool, command: str) -> None:
    args, session = {"count": 3}, pool.session("s")

    async def collected(stream: Any) -> list[Any]:
        return [value async for value in stream]

    async def refs() -> list[Any]:
        return [await ref async for ref in pool.execute_stream.remote(command, args)]

    seen: list[Any] = []
    assert pool.execute_stream(command, args, seen.append) == 3
    assert seen == [0, 1, 2]
    for values in (
        list(pool.stream(command, args)),
        list(session.stream(command, args)),
        FakePool.get(list(pool.execute_stream.remote(command, args))),
        FakePool.get(list(pool.execute_in_session_stream.remote("s", command, args))),
        asyncio.run(collected(pool.astream(command, args))),
        asyncio.run(collected(session.astream(command, args))),
        asyncio.run(refs()),
    ):
        assert values == [0, 1, 2]
    assert list(pool.stream("add", {"a": 1})) == [{"result": 2}], "one that returns gives one value"
    with pytest.raises(snakepit.InvalidArguments, match="execute_stream"):
        pool.execute(command, args)


def test_awaited_refs_and_gathered_calls(pool: FakePool) -> None:
    async def story() -> list[Any]:
        refs = [pool.execute.remote("add", {"a": i}) for i in range(3)]
        return [*await asyncio.gather(*refs), *await asyncio.gather(pool.call("later", {"x": 9}))]

    assert asyncio.run(story()) == [{"result": 1}, {"result": 2}, {"result": 3}, 9]


def test_a_ref_stands_for_its_value_in_another_calls_arguments(pool: FakePool) -> None:
    five = pool.execute.remote("echo", {"x": 5})
    assert pool.execute("add", {"a": five, "b": 1}) == {"result": 6}
    assert pool.calls[-1].args == {"a": 5, "b": 1}
    failed = pool.execute.remote("bad", {"kind": "value"})
    with pytest.raises(ValueError, match="no"):
        FakePool.get(pool.execute.remote("add", {"a": failed}))
    with pytest.raises(snakepit.EncodingError, match=r'items\[0\]\["a"\]: cannot encode an ObjectRef'):
        pool.execute_batch("add", [{"a": five}])
    with pytest.raises(TypeError, match="takes FakeRefs"):
        FakePool.get([5])


# ---- what is checked ---------------------------------------------------------------------------------------


def test_options_and_settings_are_those_of_a_pool(pool: FakePool) -> None:
    for make in (
        lambda: pool.execute("add", {"a": 1}, timout=5),
        lambda: pool.execute.options(retries="3"),
        lambda: pool.map("add", [], in_flight=0),
        lambda: pool.map("add", 5),
        lambda: pool.execute_batch("add", 5),
        lambda: pool.stream("rows", {"count": 1}, progress="yes"),
        lambda: pool.session(""),
        lambda: pool.scale(0),
        lambda: FakePool({}, sise=4),
        lambda: FakePool({"add": 5}),
    ):
        with pytest.raises(snakepit.ConfigError):
            make()
    assert pool.calls == []


def test_arguments_are_checked_against_the_signature(pool: FakePool) -> None:
    with pytest.raises(snakepit.UnknownCommand) as unknown:
        pool.execute("ad")
    assert "add" in unknown.value.nearest
    for args in ({}, {"a": 1, "c": 2}, {"a": "1"}):
        with pytest.raises(snakepit.InvalidArguments, match="add"):
            pool.execute("add", args)
    assert [call.command for call in pool.calls] == ["ad", "add", "add", "add"]


def test_values_travel_as_in_a_pool(pool: FakePool) -> None:
    assert pool.execute("echo", {"x": (1, 2)}) == [1, 2]
    array = np.arange(3.0)
    result = pool.execute("echo", {"x": array})
    array[0] = 9
    assert result.tolist() == pool.calls[-1].args["x"].tolist() == [0.0, 1.0, 2.0]
    assert not result.flags.writeable
    big = np.zeros(5000)
    assert pool.execute("echo", {"x": big}).shape == (5000,)
    with pytest.raises(snakepit.EncodingError, match=r'args\["x"\]\[0\]: cannot encode set'):
        pool.execute("echo", {"x": [{1}]})
    assert len(pool.calls) == 3, "what cannot be sent is not written down"


def test_results_that_cannot_be_carried_are_errors_or_markers() -> None:
    commands = {"thing": lambda: {"x": object()}, "long": lambda: "x" * 2000, "set": lambda: {2, 1}}
    with FakePool(commands, max_message_size=1024) as pool:
        assert pool.execute("set") == [1, 2]
        with pytest.raises(snakepit.EncodingError, match=r'result\["x"\]'):
            pool.execute("thing")
        with pytest.raises(snakepit.PayloadTooLarge):
            pool.execute("long")
    with FakePool(commands, unserializable="marker") as pool:
        assert "object" in pool.execute("thing")["x"].type


def test_what_a_command_raises_is_caught_by_its_builtin(pool: FakePool) -> None:
    with pytest.raises(ValueError, match="no") as raised:
        pool.execute("bad", {"kind": "value"})
    assert isinstance(raised.value, snakepit.CommandError)
    assert "testing/fake" not in raised.value.traceback
    assert "in bad" in raised.value.traceback
    with pytest.raises(snakepit.CommandError) as ended:
        pool.execute("bad", {"kind": "exit"})
    assert ended.value.remote_type == "SystemExit"
    results = pool.execute_batch("add", [{"a": 1}, {"a": "x"}, {"a": 2}], return_exceptions=True)
    assert [type(one).__name__ for one in results] == ["dict", "InvalidArguments", "dict"]
    with pytest.raises(snakepit.InvalidArguments):
        pool.execute_batch("add", [{"a": 1}, {"a": "x"}, {"a": 2}])
    assert len(pool.calls) == 8, "all of a batch run"
    kinds = [type(one).__name__ for one in pool.map("add", [{"a": "x"}, {"a": 1}], return_exceptions=True)]
    assert kinds == ["InvalidArguments", "dict"]


@given(
    st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.floats(allow_nan=False) | st.text())
)
def test_what_a_command_gets_is_what_was_given(args: dict[str, Any]) -> None:
    with FakePool({"echo": lambda **given: given}) as pool:
        try:
            assert pool.execute("echo", args) == args == pool.calls[0].args
        except snakepit.EncodingError:
            assert any("\ud800" <= char <= "\udfff" for char in repr((list(args), list(args.values()))))


# ---- the script and the record -----------------------------------------------------------------------------


def test_the_nth_call_fails_and_the_others_run(pool: FakePool) -> None:
    pool.execute("add", {"a": 0})
    pool.fail("add", snakepit.WorkerCrashed("killed", exit_code=137), call=2)
    pool.fail("add", ValueError("not now"), call=3, times=2)
    outcomes = pool.execute_batch("add", [{"a": i} for i in range(5)], return_exceptions=True)
    assert [type(one).__name__ for one in outcomes] == [
        "dict",
        "WorkerCrashed",
        "CommandError(ValueError)",
        "CommandError(ValueError)",
        "dict",
    ]
    assert outcomes[1].exit_code == 137
    pool.fail("add", snakepit.QueueTimeout.after(5.0, 5.0, pool.name), times=None)
    for _ in range(3):
        with pytest.raises(snakepit.QueueTimeout):
            pool.execute("add", {"a": 1})
    assert (pool.stats().queue_timeouts, pool.stats().requests, pool.stats().errors) == (3, 9, 6)


def test_a_stream_fails_after_some_values(pool: FakePool) -> None:
    pool.fail("rows", snakepit.WorkerCrashed("killed"), after=2)
    seen: list[int] = []
    with pytest.raises(snakepit.WorkerCrashed):
        seen.extend(pool.stream("rows", {"count": 5}))
    assert seen == [0, 1]
    pool.fail("rows", snakepit.PoolSaturated("full"))
    refs = list(pool.execute_stream.remote("rows", {"count": 5}))
    with pytest.raises(snakepit.PoolSaturated):
        FakePool.get(refs[-1])
    assert len(refs) == 1


def test_what_is_no_failure_is_refused(pool: FakePool) -> None:
    for make in (
        lambda: pool.fail("ad", ValueError()),
        lambda: pool.fail("add", "no"),  # type: ignore[arg-type]
        lambda: pool.fail("add", ValueError(), call=0),
        lambda: pool.fail("add", ValueError(), times=0),
        lambda: pool.fail("add", ValueError(), after=-1),
    ):
        with pytest.raises(snakepit.ConfigError):
            make()


def test_calls_are_written_down_with_their_options(pool: FakePool) -> None:
    pool.session("s").execute("add", {"a": 1}, timeout="5s", idempotent=True)
    list(pool.stream("rows", {"count": 1}, info=True))
    (first, second) = pool.calls
    assert first == ("add", {"a": 1}, snakepit.CallOptions(session="s", timeout=5.0, idempotent=True))
    assert second.options.info
    given = {"x": [1]}
    pool.execute("echo", given)
    given["x"].append(2)
    assert pool.calls[-1].args == {"x": [1]}, "a copy"


# ---- streams end -------------------------------------------------------------------------------------------


def test_whoever_stops_taking_stops_the_command() -> None:
    ended: list[str] = []

    def endless(ctx: Any) -> Any:
        try:
            while True:
                yield len(ended)
        finally:
            ended.append("cancelled" if ctx.cancelled else "not told")

    with FakePool({"endless": endless}) as pool:
        stream = pool.stream("endless")
        next(stream)
        stream.close()
        assert pool.execute_stream("endless", {}, lambda value: HALT) == 1
        refs = pool.execute_stream.remote("endless")
        next(refs)
        refs.close()
        assert list(refs) == []
        assert ended == ["cancelled"] * 3
        assert pool.stats().cancelled == 3


def test_reports_of_progress_stand_between_the_values() -> None:
    def work(ctx: Any) -> Any:
        ctx.progress(1, 2, "half")
        yield "a"
        ctx.progress(2, 2)

    with FakePool({"work": work}) as pool:
        reports: list[snakepit.Progress] = []
        assert list(pool.stream("work", progress=reports.append)) == ["a"]
        assert reports == [snakepit.Progress(1, 2, "half"), snakepit.Progress(2, 2)]
        refs = pool.execute_stream.remote("work")
        end = refs.completed()
        assert FakePool.get(list(refs)) == [reports[0], "a", reports[1]]
        assert FakePool.get(end) is None


# ---- adapters ----------------------------------------------------------------------------------------------

SHOP = """
from snakepit_bridge import Adapter, command, current

class Shop(Adapter):
    def __init__(self, story=None):
        self.story = story if story is not None else []
        self.baskets = {}

    async def setup(self):
        self.story.append("setup")

    def teardown(self):
        self.story.append("teardown")

    def on_session_start(self, session_id):
        self.story.append(session_id)

    @command(timeout=5)
    def put(self, ctx, item: str):
        assert current() is ctx
        self.baskets.setdefault(ctx.session_id, []).append(item)
        return [len(self.baskets[ctx.session_id]), ctx.remaining() <= 5]

    @command
    def say(self, ctx, what: str):
        ctx.emit("said", {"count": 1}, {"what": what})
        return self.story
"""


def test_an_adapter_is_served_with_its_hooks(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    path = list(sys.path)
    with FakePool(adapter="shop.py:Shop", cwd=tmp_path, name="shop") as pool:
        alice = pool.session("alice")
        assert [alice.execute("put", {"item": "tea"})[0] for _ in range(2)] == [1, 2]
        assert alice.execute("put", {"item": "tea"})[1], "the command's own timeout is its budget"
        heard: list[Any] = []
        with telemetry.attach("custom.said", lambda *event: heard.append(event)) as handle:
            story = pool.execute("say", {"what": "hi"})
            handle.flush()
        assert story == ["setup", "alice"]
        assert heard[0][2]["pool"] == "shop"
        assert pool.stats().sessions == 1
        kind = sys.modules["shop"].Shop
    assert sys.path == path
    shared: list[str] = []
    with FakePool(kind(shared)) as pool:
        pool.execute("say", {"what": "an instance"})
    with FakePool(kind, adapter_args={"story": ["args"]}) as pool:
        assert pool.execute("say", {"what": "a class"}) == ["args", "setup"]
    assert shared == ["setup", "teardown"]


def test_an_adapter_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import not_there")
    for settings in (
        {"adapter": "broken.py:Broken", "cwd": tmp_path},
        {"adapter": "nowhere.py", "cwd": tmp_path},
        {"adapter_args": {"nonsense": 1}},
    ):
        with pytest.raises(snakepit.WorkerStartError, match="the fake pool 'default' does not start"):
            FakePool(**settings)


# ---- the end, and what there is beside calls ---------------------------------------------------------------


def test_after_the_end_everything_says_so(pool: FakePool) -> None:
    running = pool.map("add", [{"a": 1}, {"a": 2}])
    next(running)
    pool.shutdown()
    pool.shutdown()
    for make in (
        lambda: pool.execute("add", {"a": 1}),
        lambda: pool.execute.remote("add", {"a": 1}),
        lambda: pool.stream("rows", {"count": 1}),
        lambda: next(running),
        lambda: pool.execute_batch("add", []),
        lambda: asyncio.run(pool.call("add", {"a": 1})),
        pool.stats,
        pool.workers,
        pool.recycle,
    ):
        with pytest.raises(snakepit.PoolClosed):
            make()
    assert repr(pool) == "<FakePool 'default' closed: it was shut down>"


def test_numbers_workers_and_sizes() -> None:
    with FakePool(COMMANDS, name="sized", size=2) as pool:
        pool.execute("add", {"a": 1})
        assert repr(pool) == "<FakePool 'sized' 2 of 2 workers ready>"
        assert [worker.worker_id for worker in pool.scale(3).workers()] == ["sized-0", "sized-1", "sized-2"]
        assert pool.recycle("sized-1") == 1
        assert pool.recycle() == 3
        assert pool.recycle("nobody") == 0
        assert pool.await_ready(1).workers()[0].epoch == (1, 3)
        assert asyncio.run(pool.astats()) == pool.stats()
        assert (pool.stats().recycled, pool.get_stats()["requests"]) == (4, 1)
        reply = pool.execute("add", {"a": 1}, info=True)
        assert (reply.value, reply.worker_id, reply.epoch) == ({"result": 2}, "sized-0", (1, 3))
        assert pool.stories() == {"sized-0": [], "sized-1": [], "sized-2": []}


def test_it_loads_neither_ray_nor_what_the_values_do_not_need() -> None:
    script = """
import sys
from snakepit_ray.testing import FakePool
import snakepit_ray as snakepit
with FakePool() as pool:
    assert pool.execute("add", {"a": 1, "b": 2}) == {"result": 3}
    assert pool.execute_stream("stream_data", {"count": 3}, lambda value: snakepit.HALT) == 1
    repr(pool), pool.stats(), pool.workers()
print(*sorted({"ray", "grpc", "numpy", "pyarrow", "psutil"} & {*sys.modules}))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "\n"


def test_a_ref_is_readable() -> None:
    assert repr(FakeRef(1)) == "<FakeRef 1>"
    assert repr(FakeRef(error=ValueError("no"))) == "<FakeRef ValueError('no')>"
