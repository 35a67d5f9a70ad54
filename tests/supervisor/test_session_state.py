"""Variables of sessions as commands see them, over the wire: the real bridge, the real handlers, the real
store. What is read from copies is never older than what was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakepit_ray.core.state.asked import Fence, Put
from snakepit_ray.core.state.leases import LEASE_SECONDS
from snakepit_ray.errors import CommandError, DeadlineExceeded, VersionConflict
from snakepit_ray.store.store import Store
from tests.supervisor.harness import pid_of, run, until
from tests.supervisor.session_harness import Caller, Worker, stateful

SHOWCASE = "snakepit_bridge.adapters.showcase:ShowcaseAdapter"


def with_worker(tmp_path: Path, body: Callable[[Worker, Caller], Awaitable[None]]) -> None:
    """Runs `body` with a worker and somebody who asks the same store."""

    async def around() -> None:
        store = Store()
        async with stateful(tmp_path, store) as worker:
            await body(worker, Caller(store))
        await store.close()

    (tmp_path / "node").mkdir()
    run(around)


# ---- every spelling ----------------------------------------------------------------------------------------


def test_the_spellings_of_sync_commands(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        found = await worker.run("spelled")
        assert found == [True, False, 1, 1, True, 5, False, [2, 2], 2, 3, {"x": 3}, 3, 4, None, False]
        assert await worker.run("catches") == 2 * [
            "session 's' has no variable 'none'; ctx['none'] = value makes it"
        ]

    with_worker(tmp_path, body)


def test_the_spellings_of_async_commands(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        assert await worker.run("aspelled") == [
            True, 1, 1, 1, 5, 2, 2, 3, [{"x": 3}, ["y"]], None
        ]  # fmt: skip

    with_worker(tmp_path, body)


def test_a_method_without_an_a_refuses_to_block_an_event_loop(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        with pytest.raises(RuntimeError, match=r"async commands `await ctx.aget\(\)`"):
            await worker.run("in_loop", method="get", args=["x"])

    with_worker(tmp_path, body)


def test_a_batch_is_one_write_of_all_or_of_nothing(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        assert await worker.run("batches", fails=True) == [{}, ["x", "y", "z"]]
        assert worker.link.asked["Put"] == 0
        assert await worker.run("batches") == [{"x": 1, "y": 2, "z": 3}, []]
        assert await worker.run("abatches") == [{"x": 1, "y": 2}, []]
        assert worker.link.asked["Put"] == 2
        await caller.register("bounded", "float", 1.0, max=2)
        with pytest.raises(CommandError, match=r"ConstraintViolation: .* breaks max=2"):
            await worker.run("call", method="set_many", args=[{"x": 9, "bounded": 3}])
        assert await caller.get("x") == 1
        each = {"args": [{"x": 9, "bounded": 3}], "kw": {"atomic": False}}
        said = await worker.run("fails", method="set_many", **each)
        assert said is None
        assert (await caller.get("x"), await caller.get("bounded")) == (9, 1.0)

    with_worker(tmp_path, body)


def test_types_constraints_and_versions_hold_for_commands_too(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        async def fails(method: str, *args: Any, **kw: Any) -> tuple[list[str], dict[str, Any]]:
            said = await worker.run("fails", method=method, args=list(args), kw=kw)
            return said["is"], said["details"]

        assert await worker.run("call", method="register", args=["t", "float", 1, {"min": 0}]) == 1
        assert (await fails("set", "t", "warm"))[0][:3] == ["VariableTypeError", "HostError", "RuntimeError"]
        names, details = await fails("set", "t", -1)
        assert "ValueError" in names and (details["rule"], details["bound"]) == ("min", 0)
        names, details = await fails("set", "t", 2, expected_version=7)
        assert names[0] == "VersionConflict" and (details["expected"], details["actual"]) == (7, 1)
        assert "TypeError" in (await fails("set", "nothing", None))[0]
        assert (await fails("set", "not a name", 1))[1] is not None
        assert (await fails("register", "u", "flaot", 1))[0][0] == "HostError"
        assert await worker.run("call", method="set", args=["t", 2, 1]) == 2
        (one,) = await worker.run("call", method="list", args=["t*"])
        assert {name: one[name] for name in ("name", "type", "value", "version", "constraints")} == {
            "name": "t", "type": "float", "value": 2.0, "version": 2, "constraints": {"min": 0},
        }  # fmt: skip
        history = await worker.run("call", method="history", args=["t"])
        assert [(version["version"], version["value"]) for version in history] == [(1, 1.0), (2, 2.0)]

    with_worker(tmp_path, body)


def test_arrays_travel_beside_the_json_and_several_in_one_answer(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        for size in (10, 100_000, 200_000):  # in the message, in shared memory, copied in a thread
            found = await worker.run("arrays", size=size)
            assert (found["sum"], found["size"], found["writeable"], found["missing"]) == (
                0.0,
                size,
                False,
                [],
            )
            assert np.array_equal(found["b"], np.ones(3)) and np.array_equal(found["c"], np.zeros(2))
        assert np.array_equal(await caller.get("a"), np.arange(200_000, dtype="f8"))
        puts = [one for one in worker.link.questions if isinstance(one, Put)]
        buffers = [buffer for put in puts for change in put.changes for buffer in change.value.buffers]  # type: ignore[union-attr]
        owners = {type(memoryview(buffer).obj) for buffer in buffers}
        assert owners <= {bytes, bytearray}, "nothing that is kept looks at the interpreter's memory"

    with_worker(tmp_path, body)


def test_programs(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        assert await worker.run("programs") == [[1], "text", "nothing", True, False, True]
        said = await worker.run("fails", method="update_program", args=["p", 1])
        assert "p" in said["message"]

    with_worker(tmp_path, body)


def test_watching_gives_the_present_values_and_then_the_changes(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        await caller.set_all(x=1, y=10)
        for command in ("watches", "awatches"):
            watching = asyncio.ensure_future(worker.run(command, names=["x"], count=2))
            await until(lambda: bool(worker.link.store._watchers))
            version = await caller.set("x", 2)
            first, second = await watching
            assert (first[0], second) == ("x", ["x", 2, version, False])
            await until(lambda: not worker.link.store._watchers)

    with_worker(tmp_path, body)


def test_the_showcase_reads_variables(tmp_path: Path) -> None:
    async def around() -> None:
        store = Store()
        async with stateful(tmp_path, store, adapter=SHOWCASE) as worker:
            await Caller(store).set_all(temperature=0.0, max_tokens=3)
            assert await worker.run("get_variable", name="max_tokens") == {
                "name": "max_tokens", "value": 3, "version": 1,
            }  # fmt: skip
            said = await worker.run("generate_text", prompt="to be or not to be")
            assert (said["text"], said["temperature"]) == ("or not to", 0.0)
            assert len((await worker.run("generate_text", session="", prompt="a b"))["text"].split()) == 20
        await store.close()

    (tmp_path / "node").mkdir()
    run(around)


# ---- sessions ----------------------------------------------------------------------------------------------


def test_a_request_without_a_session_has_no_variables(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        for method, args in (("get", ["x"]), ("set", ["x", 1]), ("list", []), ("get_program", ["p"])):
            said = await worker.run("fails", session="", method=method, args=args)
            assert said["is"][0] == "SessionNotFound" and "session=id" in said["message"]
        assert worker.link.asked.total() == 0
        await worker.run("call", session="", method="store_global_program", args=["g", 1])
        assert await worker.run("call", session="", method="get_global_program", args=["g"]) == 1

    with_worker(tmp_path, body)


def test_a_session_that_there_is_not_has_no_variables_and_the_first_write_makes_it(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        assert await worker.run("call", method="get", args=["x", 7]) == 7
        assert await worker.run("call", method="get_many", args=[["x"]]) == [{}, ["x"]]
        assert await worker.run("call", method="list") == []
        for method in ("history", "delete", "get_versioned", "get_variable"):
            assert (await worker.run("fails", method=method, args=["x"]))["is"][0] == "VariableNotFound"
        assert not await caller.delete(), "nobody has made it"
        assert await worker.run("writes", name="x", value=1) == 1
        assert await caller.get("x") == 1

    with_worker(tmp_path, body)


def test_what_was_deleted_is_not_brought_back_by_a_command_that_runs(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        await caller.set_all(x=1)
        waiting = asyncio.ensure_future(worker.run("meets_and_waits", name="x"))
        await until(lambda: worker.link.asked["Get"] == 1)
        await caller.delete()
        await caller.set_all(x=5)  # another session of the same name
        await worker.run("proceed", session="")
        assert (await waiting)["is"][0] == "SessionNotFound"
        assert await caller.get("x") == 5
        assert await worker.run("writes", name="x", value=6) == 6, "the next command means the new one"

    with_threads(tmp_path, body)


def test_a_command_does_not_bring_back_what_was_deleted_before_it_first_asked(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        for is_made_anew in (False, True):
            await caller.set_all(x=1)
            waiting = asyncio.ensure_future(worker.run("waits_and_writes", name="x"))
            await until_waiting(worker)
            await caller.delete()
            if is_made_anew:
                await caller.set_all(x=5)
                assert await worker.run("reads", name="x", count=2) == [5, 5], "a copy that others may read"
            await worker.run("proceed", session="")
            assert await waiting == [None, "SessionNotFound"]
            assert await caller.delete() is is_made_anew
        assert await worker.run("writes", name="x", value=6) == 6, "the next command makes one"

    with_threads(tmp_path, body)


async def until_waiting(worker: Worker) -> None:
    while await worker.run("waiting", session="") != 1:
        pass


def test_commands_of_several_threads_see_their_own_sessions(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        sessions = [f"s{number}" for number in range(20)]
        found = await asyncio.gather(
            *(worker.run("by_attribute", session=session, name="x", value=session) for session in sessions)
        )
        assert found == [[session, session, True] for session in sessions]

    with_threads(tmp_path, body)


def test_a_strict_session_asks_by_its_binding_and_a_request_keeps_it(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        worker.binding = 4
        await worker.run("writes", name="x", value=1, strict=True)
        assert {getattr(one, "fence", None) for one in worker.link.questions} == {Fence("test", 4)}
        worker.binding = 3  # the session has moved to a worker with a higher one, and this one does not know
        with pytest.raises(Exception, match="gone") as raised:
            await worker.run("writes", name="x", value=2, strict=True)
        assert "SessionWorkerLost" in repr(raised.value) + str(getattr(raised.value, "remote_type", ""))
        worker.binding = None
        assert (await worker.run("fails", method="get", args=["y"], strict=True))["is"][
            0
        ] == "SessionWorkerLost"
        assert await caller.get("x") == 1
        await worker.run("writes", name="x", value=2)
        assert worker.link.questions[-1].fence is None, "a hint session has none"  # type: ignore[union-attr]

    with_worker(tmp_path, body)


def test_each_write_has_an_id_of_its_own(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        for number in range(3):
            await worker.run("writes", name="x", value=number)
        ops = [one.op for one in worker.link.questions if isinstance(one, Put)]
        assert len(set(ops)) == 3 and all(op.startswith("w-0:") for op in ops)

    with_worker(tmp_path, body)


# ---- copies ------------------------------------------------------------------------------------------------


def test_what_was_read_is_read_again_without_a_question(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        await caller.set_all(x=[1, 2], y="text")
        assert await worker.run("reads", name="x", count=100) == 100 * [[1, 2]]
        assert worker.served["session.get_many"] == 1 and worker.link.asked["Get"] == 1
        assert await worker.run("reads", name="x", count=100) == 100 * [[1, 2]]
        assert worker.served["session.get_many"] == 1, "another request of the session, too"
        assert await worker.run("grows", name="x", times=3) == [1, 2], "what it reads is its own"
        assert worker.served["session.get_many"] == 1

    with_worker(tmp_path, body)


def test_a_read_after_an_acknowledged_write_sees_it(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        await caller.set_all(x=0)
        for number in range(1, 30):
            await worker.run("reads", name="x")
            await caller.set("x", number)
            assert await worker.run("reads", name="x", count=2) == [number, number]
        assert len(worker.told) == 29, "each write has ended the worker's copy"
        assert worker.served["session.get_many"] <= 31

    with_worker(tmp_path, body)


def test_readers_and_writers_at_once_see_versions_that_only_rise(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        await caller.set_all(x=0)
        written, seen = [0], []

        async def write() -> None:
            for number in range(1, 40):
                count = len(seen)
                await until(lambda: len(seen) > count)  # noqa: B023 - it is awaited here
                await caller.set("x", number)
                written[0] = number

        async def read() -> None:
            while written[0] < 39:
                before = written[0]
                values = await worker.run("reads", name="x", count=50)
                assert values == sorted(values) and values[0] >= before
                seen.extend(values)

        await asyncio.gather(write(), *(read() for _ in range(3)))
        assert worker.served["session.get_many"] < len(seen) / 2, "most were read from copies"

    with_threads(tmp_path, body)


def test_who_writes_has_let_go_of_its_own_copy_before(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        for number in range(5):
            assert await worker.run("writes", name="x", value=number) == number
        assert worker.told == [], "the store did not have to tell it"
        puts = [one for one in worker.link.questions if isinstance(one, Put)]
        assert [one.released is not None for one in puts] == [False, True, True, True, True]

    with_worker(tmp_path, body)


def test_a_worker_that_stands_still_holds_up_a_writer_until_its_lease_ends(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        loop = asyncio.get_running_loop()
        await caller.set_all(x=0)
        asked = loop.time()
        await worker.run("reads", name="x")
        worker.stands_still = True
        writing = asyncio.ensure_future(caller.set("x", 1))
        found = 0
        while found == 0:
            was_acknowledged = writing.done()
            (found,) = await worker.run("reads", name="x")
            assert found == 1 or not was_acknowledged
        assert loop.time() >= asked + LEASE_SECONDS, "no reader has seen it before"
        await writing
        assert len(worker.told) == 1

    with_worker(tmp_path, body)


def test_two_workers_of_one_session_see_each_others_writes(tmp_path: Path) -> None:
    async def around() -> None:
        store = Store()
        async with stateful(tmp_path, store, "w-0") as one, stateful(tmp_path, store, "w-1") as other:
            for number in range(10):
                await one.run("writes", name="x", value=number)
                assert await other.run("reads", name="x", count=3) == 3 * [number]
            assert other.link.asked["Get"] == 10
        await store.close()

    (tmp_path / "node").mkdir()
    run(around)


def test_an_interpreter_without_the_memory_asks_its_worker_which_has_a_copy(tmp_path: Path) -> None:
    async def around() -> None:
        store = Store()
        async with stateful(tmp_path, store, marks=None) as worker:
            await Caller(store).set_all(x=1)
            assert await worker.run("reads", name="x", count=10) == 10 * [1]
            assert (worker.served["session.get_many"], worker.link.asked["Get"]) == (10, 1)
        await store.close()

    (tmp_path / "node").mkdir()
    run(around)


def test_many_reads_at_once(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        await caller.set_all(x=1)
        assert await worker.run("at_once", name="x", count=100) == 100 * [1]

    with_worker(tmp_path, body)


@pytest.mark.parametrize("command", ["reads", "in_loop"])
def test_a_budget_that_ends_wakes_who_waits_for_the_store(tmp_path: Path, command: str) -> None:
    """Also where it blocks the interpreter's event loop. The interpreter goes on."""

    async def body(worker: Worker, caller: Caller) -> None:
        await caller.set_all(x=1)
        pid = pid_of(worker.supervisor)
        answers = worker.link.ask
        worker.link.ask = never  # type: ignore[method-assign]
        args = {"name": "x"} if command == "reads" else {"method": "__getitem__", "args": ["x"]}
        with pytest.raises(DeadlineExceeded):
            await worker.run(command, budget=0.3, **args)
        worker.link.ask = answers  # type: ignore[method-assign]
        assert await worker.run("reads", name="x") == [1]
        assert pid_of(worker.supervisor) == pid

    with_worker(tmp_path, body)


async def never(question: Any, seconds: float | None = None) -> None:
    await asyncio.Event().wait()


def test_a_conflict_is_no_write(tmp_path: Path) -> None:
    async def body(worker: Worker, caller: Caller) -> None:
        await caller.set_all(x=1)
        found = await asyncio.gather(
            *(worker.run("fails", method="set", args=["x", number, 1]) for number in range(10))
        )
        assert [said and said["is"][0] for said in found].count(None) == 1
        assert {said["is"][0] for said in found if said} == {VersionConflict.__name__}

    with_threads(tmp_path, body)


def with_threads(tmp_path: Path, body: Callable[[Worker, Caller], Awaitable[None]]) -> None:
    """`with_worker` whose commands run in threads."""

    async def around() -> None:
        store = Store()
        async with stateful(tmp_path, store, capacity=4) as worker:
            await body(worker, Caller(store))
        await store.close()

    (tmp_path / "node").mkdir()
    run(around)
