"""What the store keeps on the disk: it is there after every kind of end, and bad files and full disks are
said."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snakepit_ray.core.state.asked import (
    Creation,
    Fence,
    Get,
    GetProgram,
    History,
    Join,
    Look,
    Put,
    Remove,
    Sessions,
    StoreProgram,
    Update,
    Usage,
    Watch,
)
from snakepit_ray.core.state.leases import LEASE_SECONDS
from snakepit_ray.core.state.writes import Delete
from snakepit_ray.errors import (
    ConfigError,
    EncodingError,
    SessionNotFound,
    SessionWorkerLost,
)
from snakepit_ray.store import place
from snakepit_ray.store.database import Database
from snakepit_ray.store.disk import Disk
from snakepit_ray.store.files import Files
from snakepit_ray.store.store import Store
from tests.store.harness import (
    POOL,
    Clocks,
    Copies,
    ask,
    assign,
    data,
    has_lease,
    op,
    plain,
    register,
    until,
    value_of,
)

KILLED = Path(__file__).with_name("killed.py")


class Home:
    """Stores at one path, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "sessions.db"
        self.clocks = Clocks()

    async def open(self, is_named: bool = False) -> Store:
        disk = Disk.open(self.path, is_named, self.clocks.now, self.clocks.at, 0.0)
        return Store(disk, 3600.0, self.clocks.now, self.clocks.at)

    def run(self, *bodies: Callable[[Store], Awaitable[None]]) -> None:
        """Each with a store of its own, which is closed after it."""

        async def main() -> None:
            for body in bodies:
                store = await self.open()
                try:
                    await body(store)
                finally:
                    await store.close()

        asyncio.run(asyncio.wait_for(main(), 60))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def put(store: Store, session: str, *changes: Any, **more: Any) -> Any:
    return await ask(store, Put(session, op(), changes, **{"creation": POOL, **more}))


async def _rows(store: Store, sql: str) -> Any:
    """What the database says."""
    assert store._disk is not None
    return await store._disk._call(lambda database: database.execute(sql))


async def _is(store: Store, sql: str, value: Any) -> bool:
    return await _rows(store, sql) == [(value,)]


# ---- what is kept ------------------------------------------------------------------------------------------


def test_another_store_finds_all_of_it(home: Home) -> None:
    update, write = Update("s", op(), metadata={"a": [1]}), Put("s", op(), (assign("x", 8, 12),))
    kept: dict[str, Any] = {}

    async def before(store: Store) -> None:
        await put(store, "s", register("x", "integer", 0, min=0), register("gone", "float", 1.5))
        for number in range(1, 12):
            await put(store, "s", assign("x", number))
        await put(store, "s", Delete("gone"), fence=Fence("p", 3))
        await ask(store, StoreProgram("s", "p", data([1]), op()))
        await ask(store, StoreProgram("", "g", data([2]), op()))
        kept["update"], kept["write"] = await ask(store, update), await ask(store, write)
        kept["history"] = await ask(store, History("s", "x"))
        kept["cursor"] = (await store.watch(Watch("s"))).cursor  # type: ignore[union-attr]
        await put(store, "t", register("y", "float", 1))

    async def after(store: Store) -> None:
        assert [one.id for one in await ask(store, Sessions())] == ["s", "t"]
        info = await ask(store, Look("s"))
        assert (info.metadata, info.programs, info.variables, info.version) == ({"a": [1]}, ("p",), 1, 3)
        assert (await ask(store, update), await ask(store, write)) == (kept["update"], kept["write"])
        assert await ask(store, History("s", "x")) == kept["history"]
        assert await value_of(store, "s", "x") == (13, 8)
        assert plain(await ask(store, GetProgram("s", "p"))) == [1]
        assert plain(await ask(store, GetProgram("", "g"))) == [2]
        with pytest.raises(SessionWorkerLost):
            await ask(store, Get("s", ("x",), Fence("p", 2)))
        changes: Any = await store.watch(Watch("s", cursor=kept["cursor"] - 2, seconds=0))
        assert [one.name for one in changes.changes] == ["gone", "x"]
        wrote = await put(store, "s", register("gone", "float", 1), assign("x", -1), is_atomic=False)
        assert [one.version for one in wrote.outcome] == [2, 0], "versions of a name never come again"
        assert (await put(store, "u", register("y", "float", 1))).generation > info.generation
        stats = await ask(store, Usage())
        assert (stats.sessions, stats.variables, stats.programs, stats.global_programs) == (3, 4, 1, 1)
        assert (stats.kind, stats.path, stats.reset_from, stats.full) == ("sqlite", str(home.path), "", "")
        assert stats.bytes >= home.path.stat().st_size

    home.run(before, after)


def test_an_end_is_kept_and_what_it_leaves_is_removed(home: Home) -> None:
    async def before(store: Store) -> None:
        await put(store, "s", *(register(f"x{n}", "tensor", np.ones(20_000)) for n in range(2)))
        await put(store, "s", *(register(f"y{n}", "float", n) for n in range(300)))
        await ask(store, Remove("s", op()))
        with pytest.raises(SessionNotFound):
            await ask(store, Look("s"))

    async def after(store: Store) -> None:
        with pytest.raises(SessionNotFound):
            await ask(store, Look("s"))
        assert store._disk is not None
        garbage = "SELECT count(*) FROM garbage"
        await until(lambda: _is(store, garbage, 0))
        counts = "SELECT (SELECT count(*) FROM versions), (SELECT count(*) FROM variables)"
        assert await _rows(store, counts) == [(0, 0)]
        assert await store._disk.sweep_files() == 1, "the same data is one file"

    home.run(before, after)


def test_large_data_lies_in_files_and_comes_back_as_it_was(home: Home) -> None:
    tensor = np.random.default_rng(1).random((1000, 1000))

    async def before(store: Store) -> None:
        await put(store, "s", register("x", "tensor", tensor, shape=[None, 1000]))
        await put(store, "s", register("d", "dict", {"a": tensor[:100], "b": np.ones(3)}))

    async def after(store: Store) -> None:
        for name in ("x", "d"):
            (found,) = (await ask(store, Get("s", (name,)))).values.values()
            back = plain(found)
            assert (back == tensor).all() if name == "x" else (back["a"] == tensor[:100]).all()
            assert all(isinstance(one, memoryview) for one in found.value.buffers[:1])
        assert home.path.stat().st_size < 1_000_000
        await put(store, "s", assign("x", np.zeros((1, 1000))))
        assert store._disk is not None
        assert await store._disk.sweep_files() == 1, "no row names it, and nobody has just written it"

    home.run(before, after)
    files = list(home.path.parent.glob("sessions.db.files/*/*"))
    assert sorted(path.stat().st_size for path in files) == [800_000]
    assert all(path.stat().st_mode & 0o77 == 0 for path in (*files, home.path))


def test_a_file_that_is_gone_is_an_error_of_its_value(home: Home) -> None:
    async def before(store: Store) -> None:
        await put(store, "s", register("x", "tensor", np.ones(10_000)), register("y", "float", 1))

    async def after(store: Store) -> None:
        for path in home.path.parent.glob("sessions.db.files/*/*"):
            path.unlink()
        with pytest.raises(EncodingError):
            await ask(store, Get("s", ("x",)))
        assert await value_of(store, "s", "y") == (1, 1.0)

    home.run(before, after)


# ---- time --------------------------------------------------------------------------------------------------


def test_a_session_lives_as_long_as_its_uses_say_across_stores(home: Home) -> None:
    async def before(store: Store) -> None:
        await ask(store, Join("s", Creation("p", 100.0, 9), op()))
        await ask(store, StoreProgram("", "g", data(1), op(), ttl=100.0))
        for _ in range(40):
            home.clocks.pass_(4.0)
            await ask(store, Look("s"))
            await ask(store, GetProgram("", "g"))

    async def after(store: Store) -> None:
        home.clocks.pass_(99.0)
        await ask(store, Look("s", is_use=False))  # never shorter
        assert await ask(store, GetProgram("", "g")) is not None
        home.clocks.pass_(12.0)
        with pytest.raises(Exception, match="expired"):
            await ask(store, Look("s"))

    home.run(before, after)


@pytest.mark.parametrize("step", [-1e6, 1e6])
def test_a_wall_clock_that_steps_ends_no_session(home: Home, step: float) -> None:
    async def body(store: Store) -> None:
        await ask(store, Join("s", Creation("p", 100.0, 9), op()))
        await ask(store, StoreProgram("", "g", data(1), op(), ttl=100.0))
        home.clocks.step(step)
        home.clocks.pass_(99.0)
        assert await ask(store, GetProgram("", "g")) is not None
        await ask(store, Look("s"))
        home.clocks.pass_(101.0)
        with pytest.raises(Exception, match="expired"):
            await ask(store, Look("s"))

    home.run(body)


def test_a_store_waits_for_leases_of_one_that_was_killed_and_only_then(home: Home) -> None:
    waits: list[float] = []

    async def begin(store: Store) -> None:
        waits.append(store._beginning.open_at - home.clocks.now())

    async def lease(store: Store) -> None:
        await begin(store)
        await put(store, "s", register("x", "float", 1))
        holder = Copies(store, "w")
        await until(lambda: has_lease(store, "s", "w"))
        assert holder.recalled == []

    async def release(store: Store) -> None:
        home.clocks.pass_(LEASE_SECONDS)
        store._tick()
        assert (await ask(store, Usage())).leases == 0
        await begin(store)

    home.run(begin, lease, release, begin)
    assert waits == [0.0, 0.0, 0.0, 0.0]


# ---- bad files and full disks ------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"this is no database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_set_aside_unless_the_user_named_it(home: Home, damage: bytes) -> None:
    home.path.write_bytes(damage)
    aside: list[Path] = []

    async def named() -> None:
        await home.open(is_named=True)

    with pytest.raises(ConfigError, match="damaged"):
        asyncio.run(named())

    async def body(store: Store) -> None:
        await put(store, "s", register("x", "float", 1))
        aside.append(Path((await ask(store, Usage())).reset_from))

    home.run(body, body)
    assert aside[0] == aside[1], "it is said as long as it lies there"
    assert aside[0].read_bytes() == damage
    assert aside[0].name.startswith("sessions.db.damaged-")


def test_a_damaged_page_is_an_error_of_its_session(home: Home) -> None:
    async def before(store: Store) -> None:
        await put(store, "s", register("x", "string", "a" * 1000))
        await put(store, "t", register("x", "float", 1))

    home.run(before)
    with sqlite3.connect(home.path) as database:
        database.execute(
            "UPDATE versions SET buffers=x'ff' WHERE generation=(SELECT min(generation) FROM sessions)"
        )
    database.close()

    async def after(store: Store) -> None:
        for _ in range(2):
            with pytest.raises(EncodingError, match="session 's' cannot be read"):
                await ask(store, Get("s", ("x",)))
        assert await value_of(store, "t", "x") == (1, 1.0)

    home.run(after)


def test_one_file_has_one_store(home: Home) -> None:
    async def body(store: Store) -> None:
        with pytest.raises(ConfigError, match="in use by another process"):
            await home.open()

    home.run(body)
    home.run(body)


@pytest.mark.parametrize("path", ["/proc/nowhere/sessions.db", "/dev/null/sessions.db"])
def test_a_path_that_cannot_be_written(home: Home, path: str) -> None:
    home.path = Path(path)
    with pytest.raises(ConfigError, match="cannot be kept at"):
        asyncio.run(home.open())  # type: ignore[arg-type]


def test_tables_of_a_later_version(home: Home) -> None:
    with sqlite3.connect(home.path) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(ConfigError, match="later version"):
        asyncio.run(home.open())  # type: ignore[arg-type]


def test_a_full_disk_fails_what_it_cannot_hold_and_nothing_else(home: Home) -> None:
    async def body(store: Store) -> None:
        await put(store, "s", register("x", "string", "a"), register("n", "integer", 1))
        ((count,),) = await _rows(store, "PRAGMA page_count")
        await _rows(store, f"PRAGMA max_page_count={count + 4}")
        questions = [
            Put("s", op(), (assign("n", 2, 1),)),
            Put("t", op(), (register("y", "string", "y" * 60_000),), creation=POOL),
            Put("s", op(), (assign("x", "x" * 60_000),)),
            Put("s", op(), (assign("n", 3, 2),)),  # was accepted after one that fails
            Get("s", ("n",)),
        ]
        answers = await store.ask(questions)
        assert [type(one).__name__ for one in answers] == [
            "Wrote", "SessionQuotaExceeded", "SessionQuotaExceeded", "SessionQuotaExceeded", "Found",
        ]  # fmt: skip
        assert await value_of(store, "s", "n") == (2, 2)
        assert await value_of(store, "s", "x") == (1, "a")
        assert (await ask(store, Usage())).full
        await _rows(store, "PRAGMA max_page_count=1000000")
        for question in questions[1:4]:
            await ask(store, question)
        assert await value_of(store, "s", "n") == (3, 3)
        assert not (await ask(store, Usage())).full

    home.run(body)


def test_what_cannot_be_written_fails_alone(home: Home) -> None:
    """Callers look at their metadata; what comes past them must not end the store of everybody."""

    async def body(store: Store) -> None:
        answers = await store.ask(
            [
                Join("s", Creation("p", 10.0, 9, {"a": object()}), op()),
                Join("t", Creation("p", 10.0, 9, {"a": 1}), op()),
                Join("\ud800", Creation("p", 10.0, 9), op()),
            ]
        )
        assert [type(one).__name__ for one in answers] == ["EncodingError", "Joining", "EncodingError"]
        assert (await ask(store, Join("s", Creation("p", 10.0, 9), op()))).is_new

    home.run(body)


def test_a_use_that_could_not_be_written_down_is_the_next_time(home: Home) -> None:
    async def before(store: Store) -> None:
        await ask(store, Join("s", Creation("p", 100.0, 9), op()))
        await ask(store, Look("s"))
        with full_disk():
            home.clocks.pass_(60.0)
            await ask(store, Look("s"))
            await _rows(store, "SELECT 1")
        home.clocks.pass_(1.0)
        await ask(store, Look("s"))

    async def after(store: Store) -> None:
        home.clocks.pass_(99.0)
        await ask(store, Look("s"))

    @contextmanager
    def full_disk() -> Iterator[None]:
        def full(self: Database, transactions: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Database, "commit", full)
            yield

    home.run(before, after)


def test_a_full_disk_fails_values_that_need_a_file(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Files, path: Path, view: memoryview) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def body(store: Store) -> None:
        await put(store, "s", register("x", "tensor", np.ones(3)))
        with monkeypatch.context() as patch:
            patch.setattr(Files, "_write", full)
            large = Put("s", op(), (assign("x", np.ones(10_000)),))
            answers = await store.ask([large, Put("s", op(), (register("y", "float", 1),))])
            assert [type(one).__name__ for one in answers] == ["SessionQuotaExceeded", "Wrote"]
            assert (await value_of(store, "s", "x"))[0] == 1
        await ask(store, large)
        assert (await value_of(store, "s", "x"))[0] == 2

    home.run(body)


# ---- memory, and other clusters ----------------------------------------------------------------------------


def test_what_was_not_used_for_long_is_not_in_memory(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snakepit_ray.core.state.housekeeping.MEMORY", 20_000)
    names = [f"s{number}" for number in range(20)]

    async def body(store: Store) -> None:
        core, writes = store._core, {}
        for name in names:
            await put(store, name, register("x", "string", "x" * 2_000))
            writes[name] = Put(name, op(), (assign("x", name),))
            await ask(store, writes[name])
        core.sweep(100, home.clocks.now(), home.clocks.at())
        assert core._desk.weight <= 20_000
        assert [*core._desk.rooms][-1] == "s19" and "s0" not in core._desk.rooms
        for name in names:
            assert await value_of(store, name, "x") == (2, name)
            assert (await ask(store, writes[name])).outcome[0].version == 2
        assert core._desk.weight == sum(room.weight for room in core._desk.rooms.values())

    home.run(body)


def test_each_cluster_has_a_folder_which_goes_when_it_is_old(tmp_path: Path) -> None:
    old, new, used = (place.default_path(name, tmp_path) for name in ("session/1", "session/2", "session/3"))
    assert len({old.parent, new.parent, used.parent}) == 3
    locks = [place.Lock(path, 0.0) for path in (old, new, used)]
    for lock in locks[:2]:
        lock.release()
    for path in (old, used):
        for one in (path.parent, *path.parent.iterdir()):
            os.utime(one, (1_000, 1_000))
    assert place.sweep(time.time(), tmp_path) == [old.parent]
    assert not old.parent.exists() and new.exists() and used.exists()
    locks[2].release()


# ---- SIGKILL -----------------------------------------------------------------------------------------------


def killed(home: Home, mode: str, *args: Any) -> list[str]:
    """What a process said that was killed by itself."""
    ran = subprocess.run(
        [sys.executable, KILLED, mode, home.path, *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
    )
    assert ran.returncode == -signal.SIGKILL
    return ran.stdout.split()


def test_a_write_that_was_not_acknowledged_is_not_made_twice(home: Home) -> None:
    """Killed between commit and answer, again and again: its writer sends it again."""
    increments = 12
    done = 0
    while done < increments:
        done = int(killed(home, "increments", done, increments)[-1])

    async def body(store: Store) -> None:
        assert await value_of(store, "s", "n") == (increments + 1, increments)

    home.run(body)


@pytest.mark.parametrize("count", [500, pytest.param(5_000, marks=pytest.mark.slow)])
def test_what_was_acknowledged_is_there_after_a_kill(home: Home, count: int) -> None:
    acknowledged = killed(home, "writes", count)
    assert len(acknowledged) == count

    async def body(store: Store) -> None:
        found = (await ask(store, Get("s", tuple(acknowledged)))).values
        assert len(found) == count
        assert {one.version for one in found.values()} == {1}

    home.run(body)


def test_the_next_store_waits_for_the_leases_of_one_that_was_killed(home: Home) -> None:
    killed(home, "leases")

    async def body(store: Store) -> None:
        reading = asyncio.ensure_future(ask(store, Get("s", ("x",))))
        await asyncio.sleep(0.2)
        assert not reading.done()
        home.clocks.pass_(LEASE_SECONDS)
        store._tick()
        assert (await reading).values

    home.run(body)
