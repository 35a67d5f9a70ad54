"""What the store answers, without a disk: sessions, variables, programs, watchers, leases, fences."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from snakepit_ray.core.state.asked import (
    Cleanup,
    Creation,
    Data,
    Fence,
    Get,
    GetProgram,
    History,
    Join,
    Look,
    Put,
    Remove,
    RemoveProgram,
    Sessions,
    StoreProgram,
    Update,
    Usage,
    Variables,
    Watch,
)
from snakepit_ray.core.state.leases import LEASE_SECONDS
from snakepit_ray.core.state.writes import Delete, Revert
from snakepit_ray.errors import (
    ConstraintViolation,
    EncodingError,
    InvalidArguments,
    PayloadTooLarge,
    SessionExpired,
    SessionNotFound,
    SessionQuotaExceeded,
    SessionWorkerLost,
    VariableNotFound,
    VariableTypeError,
    VersionConflict,
)
from snakepit_ray.store.store import Store
from tests import virtual_time
from tests.store.harness import POOL, Copies, ask, assign, data, op, plain, register, value_of
from tests.virtual_time import VirtualLoop


def run(body: Callable[[Store, VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """With a store whose time is the loop's."""

    async def main(loop: VirtualLoop) -> None:
        store = Store(clock=loop.time, wall=loop.time)
        try:
            await body(store, loop)
        finally:
            await store.close()

    virtual_time.run(main)


async def put(store: Store, session: str, *changes: Any, **more: Any) -> Any:
    return await ask(store, Put(session, op(), changes, **{"creation": POOL, **more}))


# ---- variables ---------------------------------------------------------------------------------------------


def test_a_value_is_kept_as_its_type_has_it() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await put(
            store,
            "s",
            register("f", "float", 5, min=0),
            register("i", "integer", 5.0),
            register("e", "embedding", [1, 2.5], dimensions=2),
            register("n", "float", float("nan")),
        )
        found = await ask(store, Get("s", ("f", "i", "e", "n", "missing")))
        assert found.missing == ("missing",)
        kept = {name: plain(one) for name, one in found.values.items()}
        assert repr(kept) == "{'f': 5.0, 'i': 5, 'e': [1.0, 2.5], 'n': nan}"

    run(body)


def test_arrays_keep_their_dtype_and_shape() -> None:
    arrays = {
        "a": np.arange(12, dtype="int16").reshape(3, 4),
        "b": np.ones((2, 0, 3), dtype="float32"),
        "c": np.array([1 + 2j], dtype="complex128"),
        "d": np.array([True, False]),
    }

    async def body(store: Store, loop: VirtualLoop) -> None:
        changes = [register(name, "tensor", one, shape=[None] * one.ndim) for name, one in arrays.items()]
        await put(store, "s", *changes, register("v", "embedding", np.ones(3, "float32"), dimensions=3))
        found = await ask(store, Get("s", ("a", "b", "c", "d", "v")))
        for name, array in arrays.items():
            back = plain(found.values[name])
            assert (back.dtype, back.shape) == (array.dtype, array.shape)
            assert (back == array).all()
        with pytest.raises(VariableTypeError, match="an array of int16, shape"):
            _raised(await put(store, "s", assign("v", arrays["a"])))

    run(body)


def _raised(wrote: Any) -> None:
    """Raises the first error of an outcome."""
    for one in wrote.outcome:
        if one.error is not None:
            raise one.error


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (assign("x", "true"), VariableTypeError),
        (assign("x", -1), ConstraintViolation),
        (assign("y", 1), VariableNotFound),
        (assign("x", 2, 7), VersionConflict),
        (Delete("x", 7), VersionConflict),
        (Revert("x", 7), InvalidArguments),
    ],
)
def test_a_change_that_is_refused_changes_nothing(change: Any, error: type[Exception]) -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await put(store, "s", register("x", "float", 1, min=0), register("z", "float", 1))
        with pytest.raises(error):
            _raised(await put(store, "s", assign("z", 2), change))
        assert await value_of(store, "s", "x") == (1, 1.0)
        assert await value_of(store, "s", "z") == (1, 1.0)
        wrote = await put(store, "s", assign("z", 2), change, is_atomic=False)
        assert [type(one.error) for one in wrote.outcome] == [type(None), error]
        assert await value_of(store, "s", "z") == (2, 2.0)

    run(body)


def test_a_damaged_value_and_one_that_is_too_large_are_refused() -> None:
    bad = [
        (Data(b"{", ()), EncodingError),
        (
            Data(b'{"$snakepit": "tensor", "buffer": 0, "dtype": "<f8", "shape": [2]}', (b"12345678",)),
            EncodingError,
        ),
        (Data(b'"' + b"x" * (4 * 1024 * 1024) + b'"'), PayloadTooLarge),
    ]

    async def body(store: Store, loop: VirtualLoop) -> None:
        await put(store, "s", register("x", "string", ""))
        for value, error in bad:
            with pytest.raises(error):
                _raised(await put(store, "s", replace(assign("x", ""), value=value)))

    run(body)


def test_the_last_versions_are_kept_and_can_be_gone_back_to() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await put(store, "s", register("x", "integer", 0))
        for number in range(1, 15):
            await put(store, "s", assign("x", number))
        history = await ask(store, History("s", "x"))
        assert [(one.version, plain(one)) for one in history] == [(n, n - 1) for n in range(6, 16)]
        await put(store, "s", Revert("x", 7))
        assert await value_of(store, "s", "x") == (16, 6)

    run(body)


def test_of_large_values_only_the_newest_is_kept() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        large = "x" * 70_000
        await put(store, "s", register("x", "string", "a"))
        for value in (large, "b", large, "c"):
            await put(store, "s", assign("x", value))
        history = await ask(store, History("s", "x"))
        assert [(one.version, plain(one)) for one in history] == [(1, "a"), (3, "b"), (5, "c")]

    run(body)


def test_variables_by_a_pattern() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        names = ["a.x", "a.y", "b.x", "[a]"]
        await put(store, "s", *(register(name, "float", 1) for name in names))
        for pattern, found in {
            "*": sorted(names),
            "a.*": ["a.x", "a.y"],
            "*x": ["a.x", "b.x"],
            "[a]": ["[a]"],
        }.items():
            assert [one.name for one in await ask(store, Variables("s", pattern))] == found

    run(body)


# ---- sessions ----------------------------------------------------------------------------------------------


def test_concurrent_joins_make_one_session() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        joins = [store.ask([Join("s", POOL, op())]) for _ in range(50)]
        answers = [answer for (answer,) in await asyncio.gather(*joins)]
        assert len({one.info.generation for one in answers}) == 1
        assert sum(one.is_new for one in answers) == 1

    run(body)


def test_an_op_that_comes_again_is_answered_again() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        join = Join("s", POOL, op())
        assert await ask(store, join) == await ask(store, join)
        write = Put("s", op(), (register("x", "integer", 1), register("y", "float", 1)))
        assert await ask(store, write) == await ask(store, write)
        increment = Put("s", op(), (assign("x", 2, 1),))
        for _ in range(3):
            assert (await ask(store, increment)).outcome[0].version == 2
        remove = Remove("s", op())
        assert (await ask(store, remove), await ask(store, remove)) == (True, True)
        await ask(store, Join("s", POOL, op()))
        assert await ask(store, increment), "also when another session has the name"
        assert (await ask(store, Get("s", ("x",)))).missing == ("x",)

    run(body)


def test_a_session_that_ended_is_not_written_to_again() -> None:
    """A command that began before the end asks for its generation."""

    async def body(store: Store, loop: VirtualLoop) -> None:
        generation = (await put(store, "s", register("x", "float", 1))).generation
        await ask(store, Remove("s", op()))
        with pytest.raises(SessionNotFound):
            await put(store, "s", register("x", "float", 1), generation=generation)
        await ask(store, Join("s", POOL, op()))
        with pytest.raises(SessionNotFound):
            await put(store, "s", register("x", "float", 1), generation=generation)
        with pytest.raises(SessionNotFound):
            await ask(store, Get("s", ("x",), generation=generation))

    run(body)


def test_a_session_that_is_not_used_expires_and_a_use_keeps_it() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        copies = Copies(store, "w")
        await ask(store, Join("s", Creation("pool", 8.0, 10), op()))
        for _ in range(4):
            await asyncio.sleep(6)
            await ask(store, Look("s"))
        await asyncio.sleep(6)
        await ask(store, Look("s", is_use=False))
        await asyncio.sleep(6)
        with pytest.raises(SessionExpired):
            await ask(store, Look("s"))
        assert (await ask(store, Sessions()), await ask(store, Cleanup())) == ((), 1)
        await asyncio.sleep(1)
        assert [(one.session, one.reason) for one in copies.ended] == [("s", "expired")]
        assert (await ask(store, Join("s", POOL, op()))).is_new

    run(body)


def test_a_session_that_expires_while_a_write_waits_leaves_nothing() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await put(store, "s", register("x", "integer", 1), creation=Creation("p", 2 * LEASE_SECONDS, 9))
        Copies(store, "w", lets_go=False)
        await asyncio.sleep(1.5)
        await ask(store, Get("s", ("x",), holder="w"))
        store._core._desk.registry.replace(
            replace(store._core._desk.registry.look("s", loop.time()), ttl=1.0)  # shorter than its lease
        )
        writing = asyncio.ensure_future(put(store, "s", assign("x", 2)))
        await asyncio.sleep(1.5)
        assert await ask(store, Cleanup()) == 1 and not writing.done()
        assert (await writing).outcome[0].version == 2, "it was alive when it wrote"
        stats = await ask(store, Usage())
        assert (stats.sessions, stats.variables) == (0, 0)
        assert store._core._desk.rooms["s"].state is None

    run(body)


def test_the_sweep_tells_of_the_end() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        copies = Copies(store, "w")
        for number in range(250):
            await ask(store, Join(f"s{number}", Creation("pool", 8.0, 1000), op()))
        await asyncio.sleep(70)
        assert len(copies.ended) == 250
        assert (await ask(store, Usage())).expired == 250

    run(body)


def test_the_quota_is_a_pools_and_counts_what_is_being_made() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        few = Creation("few", 3600.0, 3)
        joins = [Join(f"s{number}", few, op()) for number in range(5)]
        answers = await store.ask(joins)
        assert [type(one) is SessionQuotaExceeded for one in answers] == [False] * 3 + [True] * 2
        assert (await ask(store, Join("t", POOL, op()))).is_new
        stats = await ask(store, Usage({"few": 3, "pool": 10}))
        assert (stats.by_pool, stats.crowded) == ({"few": 3, "pool": 1}, ("few",))
        await ask(store, Remove("s0", op()))
        assert (await ask(store, Join("s4", few, op()))).is_new

    run(body)


def test_the_10001st_session_of_a_pool() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        answers = await store.ask([Join(f"s{number}", POOL, op()) for number in range(10_001)])
        assert all(one.is_new for one in answers[:10_000])
        assert isinstance(answers[10_000], SessionQuotaExceeded)
        assert (answers[10_000].used, answers[10_000].limit) == (10_000, 10_000)

    run(body)


def test_ends_of_many_sessions_are_told_together() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        copies = Copies(store, "w")
        told: list[int] = []
        copies.sessions_ended = lambda ended: told.append(len(ended))  # type: ignore[method-assign]
        await store.ask([Join(f"s{number}", POOL, op()) for number in range(1_500)])
        await store.ask([Remove(f"s{number}", op()) for number in range(1_500)])
        await asyncio.sleep(1)
        assert told == [1_000, 500]

    run(body)


def test_an_update_replaces_what_it_gives_at_the_version_that_it_expects() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await ask(store, Join("s", POOL, op()))
        info = await ask(store, Update("s", op(), 1, {"a": 1}))
        assert (info.version, info.metadata, info.ttl) == (2, {"a": 1}, POOL.ttl)
        with pytest.raises(VersionConflict):
            await ask(store, Update("s", op(), 1, {"a": 2}))
        info = await ask(store, Update("s", op(), ttl=4.0))
        assert (info.version, info.metadata, info.ttl) == (3, {"a": 1}, 4.0)
        await asyncio.sleep(5)
        with pytest.raises(SessionExpired):
            await ask(store, Look("s"))

    run(body)


def test_pages_of_sessions() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await store.ask([Join(f"s{number}", POOL, op()) for number in range(7)])
        found: list[str] = []
        after = 0
        while page := await ask(store, Sessions("s*", "pool", after, 3)):
            found += [one.id for one in page]
            after = page[-1].generation
        assert found == [f"s{number}" for number in range(7)]
        assert await ask(store, Sessions(pool="other")) == ()

    run(body)


def test_a_lower_binding_is_refused_and_reads_with_it() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await put(store, "s", register("x", "integer", 1), fence=Fence("p", 4))
        await put(store, "s", assign("x", 2), fence=Fence("p", 5))
        with pytest.raises(SessionWorkerLost) as lost:
            await put(store, "s", assign("x", 3), fence=Fence("p", 4))
        assert lost.value.reason == "moved"
        with pytest.raises(SessionWorkerLost):
            await ask(store, Get("s", ("x",), Fence("p", 4)))
        await put(store, "s", assign("x", 3), fence=Fence("q", 1))
        assert await value_of(store, "s", "x") == (3, 3)

    run(body)


def test_a_binding_is_remembered_where_there_is_no_session() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        with pytest.raises(SessionNotFound):
            await ask(store, Get("s", ("x",), Fence("p", 5)))
        await put(store, "s", register("x", "integer", 1))
        with pytest.raises(SessionWorkerLost):
            await put(store, "s", assign("x", 2), fence=Fence("p", 4))
        await ask(store, Remove("s", op()))
        with pytest.raises(SessionWorkerLost):
            await put(store, "s", register("x", "integer", 1), fence=Fence("p", 4))
        await put(store, "s", register("x", "integer", 1), fence=Fence("p", 5))

    run(body)


# ---- programs ----------------------------------------------------------------------------------------------


def test_programs_of_a_session() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await ask(store, StoreProgram("s", "p", data({"a": 1}), op(), creation=POOL))
        assert plain(await ask(store, GetProgram("s", "p"))) == {"a": 1}
        with pytest.raises(InvalidArguments, match="already"):
            await ask(store, StoreProgram("s", "p", data(2), op(), must_exist=False))
        with pytest.raises(InvalidArguments, match="no program"):
            await ask(store, StoreProgram("s", "q", data(2), op(), must_exist=True))
        await ask(store, StoreProgram("s", "p", data(2), op(), must_exist=True))
        assert plain(await ask(store, GetProgram("s", "p"))) == 2
        with pytest.raises(PayloadTooLarge):
            await ask(store, StoreProgram("s", "p", Data(b"1" * (4 * 1024 * 1024 + 1)), op()))
        info = await ask(store, Look("s"))
        assert (info.programs, info.version) == (("p",), 3)
        assert await ask(store, RemoveProgram("s", "p", op())) is True
        assert await ask(store, RemoveProgram("s", "p", op())) is False
        assert await ask(store, GetProgram("s", "p")) is None
        with pytest.raises(SessionNotFound):
            await ask(store, GetProgram("t", "p"))

    run(body)


def test_a_global_program_lives_as_long_as_it_is_used() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await ask(store, StoreProgram("", "p", data(1), op(), ttl=10.0))
        for _ in range(3):
            await asyncio.sleep(8)
            assert plain(await ask(store, GetProgram("", "p"))) == 1
        await asyncio.sleep(11)
        assert await ask(store, GetProgram("", "p")) is None
        await asyncio.sleep(60)
        assert (await ask(store, Usage())).global_programs == 0

    run(body)


# ---- watchers ----------------------------------------------------------------------------------------------


def test_a_watcher_is_told_what_changes_and_what_it_missed() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await put(store, "s", register("x", "integer", 1), register("y", "integer", 1))
        first: Any = await store.watch(Watch("s", ("x",)))
        assert [(one.name, one.newest.version, one.skipped) for one in first.changes] == [("x", 1, 0)]
        waiting = asyncio.ensure_future(store.watch(Watch("s", ("x",), first.cursor)))
        await put(store, "s", assign("y", 2))
        await asyncio.sleep(1)
        assert not waiting.done()
        for number in range(15):
            await put(store, "s", assign("x", number))
        second: Any = await waiting
        assert [(one.newest.version, one.skipped) for one in second.changes] == [(16, 14)]
        waiting = asyncio.ensure_future(store.watch(Watch("s", ("x",), second.cursor)))
        await asyncio.sleep(1)
        await put(store, "s", assign("x", 0))
        third: Any = await waiting
        assert [(one.newest.version, one.skipped) for one in third.changes] == [(17, 0)]
        await put(store, "s", Delete("x"))
        gone: Any = await store.watch(Watch("s", ("x",), third.cursor))
        assert [(one.name, one.newest) for one in gone.changes] == [("x", None)]
        begun = loop.time()
        nothing: Any = await store.watch(Watch("s", ("x",), gone.cursor, 30.0))
        assert (nothing.changes, loop.time() - begun) == ((), 30.0)
        assert (await ask(store, Usage())).watchers == 0

    run(body)


@pytest.mark.parametrize("ttl", [3600.0, 4.0])
def test_a_watcher_hears_of_the_end(ttl: float) -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await ask(store, Join("s", Creation("p", ttl, 9), op()))
        waiting = asyncio.ensure_future(store.watch(Watch("s", seconds=300.0)))
        await asyncio.sleep(2)
        if ttl == 3600.0:
            await ask(store, Remove("s", op()))
        assert isinstance(await waiting, SessionNotFound if ttl == 3600.0 else SessionExpired)

    run(body)


# ---- leases ------------------------------------------------------------------------------------------------


def test_a_write_waits_for_copies_and_no_longer_than_their_leases() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        await put(store, "s", register("x", "integer", 1))
        quick, frozen = Copies(store, "quick"), Copies(store, "frozen", lets_go=False)
        for holder in (quick, frozen):
            found = await ask(store, Get("s", ("x",), holder=holder.name))
            assert found.lease.holder == holder.name
        assert (await ask(store, Get("s", ("x",), holder="unknown"))).lease is None
        begun = loop.time()
        writing = asyncio.ensure_future(put(store, "s", assign("x", 2)))
        await asyncio.sleep(1)
        assert await value_of(store, "s", "x") == (1, 1), "not visible while a copy is out"
        assert (await ask(store, Get("s", ("x",), holder="quick"))).lease is None
        await writing
        assert loop.time() - begun == LEASE_SECONDS
        assert (len(quick.recalled), len(frozen.recalled)) == (1, 1)
        assert await value_of(store, "s", "x") == (2, 2)
        await ask(store, Get("s", ("x",), holder="quick"))
        begun = loop.time()
        await put(store, "s", assign("x", 3))
        await ask(store, Get("s", ("x",), holder="frozen"))
        assert loop.time() == begun, "who lets go holds up nobody"
        await ask(store, Remove("s", op()))
        assert loop.time() - begun == LEASE_SECONDS, "an end waits for copies, too"

    run(body)


def test_leases_of_two_sessions_are_not_taken_for_each_other() -> None:
    async def body(store: Store, loop: VirtualLoop) -> None:
        holder = Copies(store, "w", lets_go=False)
        leases = []
        for name in ("s", "t"):
            await put(store, name, register("x", "integer", 1))
            leases.append((await ask(store, Get(name, ("x",), holder="w"))).lease)
        assert len(set(leases)) == 2
        store.released(leases[1:])
        begun = loop.time()
        await put(store, "t", assign("x", 2))
        assert loop.time() == begun
        await put(store, "s", assign("x", 2))
        assert loop.time() - begun == LEASE_SECONDS
        assert holder.recalled == leases[:1]

    run(body)
