"""Sessions move into the next interpreter where their adapter saves and restores them, whatever goes wrong
meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.errors import WorkerStartError
from snakepit_ray.supervisor import Supervisor, handover
from snakepit_ray.supervisor.ports import PoolSide
from tests.supervisor.harness import (
    POLICY,
    ROOT,
    pid_of,
    replaced,
    request,
    run,
    spec,
    supervisor,
    until,
    value,
)

ADAPTERS = str(ROOT / "tests/adapters/moving.py")
ids = itertools.count(1)


class Pool(PoolSide):
    """Remembers what has moved."""

    def __init__(self) -> None:
        self.moved: list[tuple[str, int]] = []

    def session_moved(self, session: str, epoch_number: int) -> None:
        self.moved.append((session, epoch_number))


def moving(
    tmp_path: Path,
    body: Callable[[Supervisor, Pool], Awaitable[None]],
    broken: dict[str, str] | None = None,
    kind: str = "Moving",
    overlap: bool = True,
    capacity: int = 1,
) -> None:
    async def around() -> None:
        pool = Pool()
        args = {"path": str(tmp_path / "hooks"), "broken": broken or {}}
        policy = replace(POLICY, overlap=overlap, capacity=capacity, cancel_grace=0.3)
        settings: dict[str, Any] = {"adapter": f"{ADAPTERS}:{kind}", "adapter_args": args}
        made = spec(tmp_path, capacity=capacity, **settings).config
        config = {**made, "thread_profile": capacity > 1}
        worker = supervisor(tmp_path, around=pool, policy=policy, config=config)
        await worker.start()
        try:
            await body(worker, pool)
            await until(lambda: worker.running == worker.waiting == 0)
        finally:
            await worker.stop()

    run(around)


def hooks(tmp_path: Path) -> list[str]:
    path = tmp_path / "hooks"
    return path.read_text().splitlines() if path.exists() else []


async def count(worker: Supervisor, session: str, command: str = "count", **args: Any) -> Any:
    asked = request(command, next(ids), **args)
    asked.session = session
    return await value(worker, asked)


@pytest.mark.parametrize("kind", ["Moving", "Awaiting"])
@pytest.mark.parametrize("overlap", [True, False], ids=["overlap", "in_place"])
def test_each_session_goes_on_in_the_next_interpreter(tmp_path: Path, overlap: bool, kind: str) -> None:
    async def body(worker: Supervisor, pool: Pool) -> None:
        for _ in range(3):
            assert (await count(worker, "a"))["pid"] == pid_of(worker)
        await count(worker, "b")
        fresh = await replaced(worker)
        await until(lambda: len(pool.moved) == 2)
        assert await count(worker, "a") == {"count": 4, "pid": fresh}
        assert await count(worker, "b") == {"count": 2, "pid": fresh}
        assert set(pool.moved) == {("a", 2), ("b", 2)}
        said = hooks(tmp_path)
        for session in "ab":
            mine = [line for line in said if f" {session}" in line]
            assert mine[:2] == [f"start {session}", f"save {session}"]
            assert set(mine[2:]) == {f"restore {session}", f"end {session} recycled"}

    moving(tmp_path, body, kind=kind, overlap=overlap)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("save_raises", "on_session_save raised LookupError: nothing there"),
        ("save_hangs", "on_session_save took longer than 0.3 s"),
        ("save_dies_once", "its interpreter has died"),
        ("large", "on_session_save gave 20,000,0"),
        ("restore_raises", "on_session_restore raised LookupError: nothing there"),
    ],
)
def test_what_cannot_move_starts_anew_and_it_is_said_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, why: str
) -> None:
    monkeypatch.setattr(handover, "SESSION_SECONDS", 0.3 if how == "save_hangs" else 30.0)

    async def body(worker: Supervisor, pool: Pool) -> None:
        for session in ("good", "bad"):
            await count(worker, session)
        await replaced(worker)
        await until(lambda: bool(worker.why_not_moved("bad")))
        assert why in worker.why_not_moved("bad")
        assert (await count(worker, "bad"))["count"] == 1
        assert hooks(tmp_path).count("start bad") == 2 and not worker.is_moving("good")
        if how != "save_hangs":  # what hangs has the only thread
            assert (await count(worker, "good"))["count"] == 2
        assert any("'bad' lost its state" in line for line in worker.last_events(20))

    moving(tmp_path, body, {"bad": how})


def test_a_restore_that_hangs_costs_the_new_interpreter_and_no_other_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "SESSION_SECONDS", 1.0)

    async def body(worker: Supervisor, pool: Pool) -> None:
        await asyncio.gather(*(count(worker, session) for session in ("bad", "good", "other")))
        await replaced(worker)
        assert (await count(worker, "good"))["count"] == 2
        assert (await count(worker, "other"))["count"] == 2
        assert (await count(worker, "bad"))["count"] == 1
        assert worker.counters.restarts == 1 and set(pool.moved) == {("good", 3), ("other", 3)}
        assert worker.why_not_moved("bad") == "on_session_restore took longer than 1 s"

    moving(tmp_path, body, {"bad": "restore_hangs"})


def test_a_new_interpreter_that_dies_in_a_restore_loses_that_session_alone(tmp_path: Path) -> None:
    async def body(worker: Supervisor, pool: Pool) -> None:
        await asyncio.gather(*(count(worker, session) for session in ("bad", "good")))
        await replaced(worker)
        assert (await count(worker, "good"))["count"] == 2
        assert (await count(worker, "bad"))["count"] == 1
        assert ("good", 3) in pool.moved or pool.moved == [("good", 2)]

    moving(tmp_path, body, {"bad": "restore_dies_once"})


def test_a_busy_session_moves_when_its_request_has_ended_and_holds_up_no_other(tmp_path: Path) -> None:
    go = tmp_path / "go"

    async def body(worker: Supervisor, pool: Pool) -> None:
        await count(worker, "idle")
        busy = asyncio.ensure_future(count(worker, "busy", "count_until", path=str(go)))
        await until(lambda: "begun busy" in hooks(tmp_path))
        old = pid_of(worker)
        worker.recycle()
        worker.recycle()
        await until(lambda: pid_of(worker) != old)
        following = asyncio.ensure_future(count(worker, "busy"))
        assert (await count(worker, "idle")) == {"count": 2, "pid": pid_of(worker)}
        assert worker.is_moving("busy") and not (busy.done() or following.done())
        go.touch()
        assert (await busy) == {"count": 1, "pid": old}
        assert (await following) == {"count": 2, "pid": pid_of(worker)}

    moving(tmp_path, body, capacity=2)


def test_hundreds_of_sessions_move_and_those_whose_requests_wait_go_first(tmp_path: Path) -> None:
    async def body(worker: Supervisor, pool: Pool) -> None:
        names = [f"s{number}" for number in range(300)]
        for name in names:
            await count(worker, name)
        await replaced_at_once(worker)
        assert (await count(worker, names[-1]))["count"] == 2
        assert [session for session, _ in pool.moved].index(names[-1]) < 100
        await until(lambda: len(pool.moved) == 300)
        assert set(pool.moved) == {(name, 2) for name in names}

    moving(tmp_path, body)


async def replaced_at_once(worker: Supervisor) -> None:
    before = pid_of(worker)
    worker.recycle()
    worker.recycle()
    await until(lambda: pid_of(worker) != before)


def test_the_adapter_is_told_of_sessions_that_have_ended_and_begins_them_anew(tmp_path: Path) -> None:
    async def body(worker: Supervisor, pool: Pool) -> None:
        for session in ("raises", "a", "b"):
            await count(worker, session)
        await worker.end_sessions(["raises", "a", "never"], "deleted")
        await worker.end_sessions(["a"], "deleted")
        assert hooks(tmp_path)[3:] == ["end raises deleted", "end a deleted"]
        assert (await count(worker, "a"))["count"] == 1
        assert (await count(worker, "b"))["count"] == 2

    moving(tmp_path, body, {"raises": "end_raises"})


def test_an_adapter_that_saves_what_it_cannot_restore_does_not_start(tmp_path: Path) -> None:
    async def never(worker: Supervisor, pool: Pool) -> None:
        raise AssertionError

    with pytest.raises(WorkerStartError, match="Unrestorable has on_session_save and no on_session_restore"):
        moving(tmp_path, never, kind="Unrestorable")
