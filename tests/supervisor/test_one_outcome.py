"""Whatever happens between taking a request and its outcome is that request's outcome: nothing that it holds
stays behind, and what it is told of having run is true."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.core.worker.restarts import RestartBudget, RestartPolicy
from snakepit_ray.errors import (
    DeadlineExceeded,
    PoolClosed,
    SnakepitError,
    WorkerCrashed,
    WorkerFault,
)
from snakepit_ray.ledger import Entry, Ledger
from snakepit_ray.supervisor import Relayed, Stream, Supervisor
from snakepit_ray.supervisor.dispatch import MOST_LOSSES
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.codec import Encoded, encode_value
from snakepit_ray.wire.host_call import HostCall
from tests.supervisor.harness import POLICY, Marked, executed, request, run, stop, supervisor, until, value
from tests.supervisor.test_ahead import warmed


@asynccontextmanager
async def working(tmp_path: Path, kind: type[Marked] = Marked, **changes: Any) -> AsyncIterator[Supervisor]:
    (tmp_path / "node").mkdir(exist_ok=True)
    ledger = Ledger.open("w-0", tmp_path / "node")
    worker = supervisor(tmp_path, around=kind(ledger), marks=ledger.descriptor, **changes)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()
        assert nothing_is_left(worker)
        ledger.close()


def nothing_is_left(worker: Supervisor) -> bool:
    """No request, no run, no mark, no place of the memory, no slot."""
    ledger = worker.ports.record.ledger  # type: ignore[attr-defined]
    marks = [one for one in ledger._entries.values() if getattr(one, "_inside", False)]
    books = (
        worker.dispatch.present,
        worker._runs._runs,
        marks,
        worker.admission._verdicts,
        worker.admission._aside,
    )
    return not any(books) and not worker.waiting


async def idle(worker: Supervisor) -> None:
    """Nothing is left, and the slot is free."""
    await until(lambda: nothing_is_left(worker) and worker.admission.free == worker.policy.capacity)
    assert worker.interpreter is not None
    arena = worker.interpreter.arena
    await until(lambda: not arena._lent and not arena._space.used)


def ask(worker: Supervisor, command: str, number: int | str, session: str = "", **more: Any) -> Any:
    asked = request(command, number, **more)  # type: ignore[arg-type]
    asked.session = session
    if more.get("budget") == 0:
        asked.budget_ms = 0
    return asyncio.ensure_future(value(worker, asked))


# ---- not executed, and may have run ------------------------------------------------------------------------


def test_what_ran_is_never_said_to_have_only_waited(tmp_path: Path) -> None:
    """It ran, died with its interpreter, and its budget ended while it waited for the next one."""

    async def body() -> None:
        async with working(tmp_path) as worker:
            launch, gate = worker.keeper._launch, asyncio.Event()

            async def held_up(epoch: pb.Epoch) -> Any:
                await gate.wait()
                return await launch(epoch)

            worker.keeper._launch = held_up  # type: ignore[method-assign]
            with pytest.raises(DeadlineExceeded) as late:
                await ask(worker, "die", 1, budget=1.0, idempotent=True, retries=3)
            assert executed(tmp_path) == ["die"]
            assert late.value.where == "running" and "may have had effects" in str(late.value)
            never = ask(worker, "run", 2, budget=0.2, tag="never")
            with pytest.raises(DeadlineExceeded) as waited:
                await never
            assert waited.value.where == "waiting" and "not executed" in str(waited.value)
            gate.set()
            await ask(worker, "run", 3, tag="next")
            assert executed(tmp_path) == ["die", "next"]
            await idle(worker)

    run(body)


def test_who_waits_for_another_try_is_not_refused_by_the_queue_it_was_in(tmp_path: Path) -> None:
    """queue_timeout and max_queue_size are for requests that have never begun."""

    async def body() -> None:
        async with working(tmp_path) as worker:
            worker.admission.queue.limit = 1
            launch, gate = worker.keeper._launch, asyncio.Event()

            async def held_up(epoch: pb.Epoch) -> Any:
                await gate.wait()
                return await launch(epoch)

            worker.keeper._launch = held_up  # type: ignore[method-assign]
            marker = str(tmp_path / "died")
            again = ask(worker, "die_once", 1, queue=0.1, tag="again", marker=marker, retries=2)
            other = ask(worker, "run", 2, tag="other")
            await until(lambda: worker.waiting == 2)
            await asyncio.wait([again], timeout=0.3)
            assert not again.done()
            gate.set()
            assert (await again)["tag"] == "again"
            await other
            await idle(worker)

    run(body)


# ---- whatever raises ---------------------------------------------------------------------------------------


class Refusing(Marked):
    refuses = True

    def begins(self, request: pb.Request, marked: bool) -> Any:
        if self.refuses:
            raise OSError("no space left on device")
        return super().begins(request, marked)


def test_a_ledger_that_cannot_be_written_fails_the_request_and_nothing_else(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path, Refusing) as worker:
            with pytest.raises(WorkerFault, match="no space left on device; the command was not executed"):
                await ask(worker, "run", 1, tag="never")
            with pytest.raises(WorkerFault, match="no space left"):
                await asyncio.wait_for(arrays(worker, 2), 20)
            worker.ports.record.refuses = False  # type: ignore[attr-defined]
            await ask(worker, "run", 3, tag="next")
            assert executed(tmp_path) == ["next"]
            await idle(worker)

    run(body)


async def arrays(worker: Supervisor, number: int) -> Any:
    """A request with a large buffer beside it, which takes a place of the shared memory."""
    asked = request("identity", number)
    asked.args.json = b'{"x": {"$snakepit": "bytes", "buffer": 0}}'
    asked.args.buffers.add().beside = 0
    with worker.cargo.of(asked.id, [bytes(300_000)]):
        return await worker.execute(asked, may_move=False)


Break = Callable[[Supervisor, pytest.MonkeyPatch], None]


def break_the_request(worker: Supervisor, patch: pytest.MonkeyPatch) -> None:
    def request(*args: Any) -> None:
        raise TypeError("not a message")

    assert worker.interpreter is not None
    patch.setattr(worker.interpreter.client, "request", request)


def break_the_views(worker: Supervisor, patch: pytest.MonkeyPatch) -> None:
    def views(payload: Any) -> None:
        raise MemoryError("no room for a view")

    assert worker.interpreter is not None
    patch.setattr(worker.interpreter.arena, "views", views)


def break_the_budget(worker: Supervisor, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(worker.dispatch, "_budget", lambda request: float("nan"))


@pytest.mark.parametrize("damage", [break_the_request, break_the_views, break_the_budget])
def test_what_fails_between_the_slot_and_the_outcome_is_the_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Break
) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            with monkeypatch.context() as patch:
                damage(worker, patch)
                with pytest.raises(SnakepitError):
                    await asyncio.wait_for(arrays(worker, 1), 20)
            await ask(worker, "run", 2, tag="next")
            await idle(worker)

    run(body)


def test_a_sink_that_cannot_be_opened_fails_its_stream_and_nothing_else(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            stream = Stream(worker, request("stream", 1, tag="never"))

            def opened(interpreter: Any) -> Any:
                raise RuntimeError("nobody takes it")

            stream.opened = opened  # type: ignore[method-assign]
            with pytest.raises(WorkerFault, match="nobody takes it; the command was not executed"):
                await stream.one()
            await ask(worker, "run", 2, tag="next")
            assert executed(tmp_path) == ["next"]
            await idle(worker)

    run(body)


def test_an_id_is_used_once_and_who_has_it_keeps_what_it_holds(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            go = tmp_path / "go"
            holder = ask(worker, "until_file", 1, tag="first", path=str(go))
            await until(lambda: executed(tmp_path) == ["first"])
            waiting = ask(worker, "run", 2, tag="second")
            await until(lambda: worker.waiting == 1)
            for number in (1, 2):
                with pytest.raises(WorkerFault, match="used once"):
                    await ask(worker, "run", number, tag="never")
            go.touch()
            await asyncio.gather(holder, waiting)
            assert executed(tmp_path) == ["first", "second"]
            await idle(worker)

    run(body)


# ---- the worker stops --------------------------------------------------------------------------------------


class Slow(Marked):
    """Its neighbour never answers."""

    async def delegate(self, target: str, request: pb.Request, chained: bool) -> Relayed | None:
        await asyncio.Event().wait()
        return None


async def ends_at_stop(worker: Supervisor, *calls: Awaitable[Any]) -> list[BaseException]:
    await worker.stop()
    ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
    assert all(isinstance(error, PoolClosed) for error in ended), ended
    assert nothing_is_left(worker)
    return list(ended)


@pytest.mark.parametrize("budget", [20.0, 0])
def test_stop_ends_who_waits_for_a_sessions_switch(tmp_path: Path, budget: float) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            path = str(tmp_path / "never")
            first = ask(worker, "until_file", 1, "s", budget=budget, tag="first", path=path)
            await until(lambda: executed(tmp_path) == ["first"])
            await replaced(worker)
            second = ask(worker, "run", 2, "s", budget=budget, tag="second")
            await until(lambda: worker.waiting == 1)
            ran, waited = await ends_at_stop(worker, first, second)
            assert "may have had effects" in str(ran) and "was not executed" in str(waited)
            assert executed(tmp_path) == ["first"]

    run(body)


def test_stop_ends_who_is_on_the_way_to_another_worker_and_who_pauses_before_another_try(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        async with working(tmp_path, Slow, policy=replace(POLICY, retry_backoff=600.0)) as worker:
            pausing = ask(worker, "die", 3, budget=0, tag="pausing", idempotent=True, retries=3)
            await until(lambda: worker.counters.restarts == 1 and not (worker.running or worker.waiting))
            assert not pausing.done() and executed(tmp_path) == ["pausing"]
            running = ask(worker, "until_file", 1, budget=0, tag="running", path=str(tmp_path / "never"))
            await until(lambda: executed(tmp_path) == ["pausing", "running"])
            asked = request("run", 2, tag="moved")
            moved = asyncio.ensure_future(worker.execute(asked, may_move=True))
            await until(lambda: worker.waiting == 1)
            assert worker.admission.move(1, "w-1") == 1
            await until(lambda: worker.waiting == 0)
            ran, on_its_way, paused = await ends_at_stop(worker, running, moved, pausing)
            assert "may have had effects" in str(ran) and "may have had effects" in str(paused)
            assert "was not executed" in str(on_its_way)
            assert executed(tmp_path) == ["pausing", "running"]

    run(body)


def test_stop_ends_who_gets_its_slot_in_that_turn(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            stopping: list[asyncio.Future[None]] = []
            go = tmp_path / "go"
            first = ask(worker, "until_file", 1, tag="first", path=str(go))
            await until(lambda: executed(tmp_path) == ["first"])
            second = ask(worker, "run", 2, budget=0, tag="second")
            await until(lambda: worker.waiting == 1)

            def took(seconds: float) -> None:
                stopping.append(asyncio.ensure_future(worker.stop()))

            worker._runs._took = took  # before the slot is free: the stop has its turn before the second
            go.touch()
            await first
            with pytest.raises(PoolClosed, match="was not executed"):
                await asyncio.wait_for(second, 10)
            await stopping[0]
            assert executed(tmp_path) == ["first"]

    run(body)


# ---- a slot and its interpreter belong together ------------------------------------------------------------


async def replaced(worker: Supervisor) -> int:
    """Another interpreter serves; the pid of the one before."""
    assert worker.interpreter is not None
    old = worker.interpreter
    worker.recycle()
    await until(lambda: worker.interpreter is not old)
    return old.child.pid


def test_who_waits_for_a_sessions_switch_holds_no_slot_and_survives_the_interpreter_it_waits_for(
    tmp_path: Path,
) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            go = tmp_path / "go"
            first = ask(worker, "until_file", 1, "s", tag="first", path=str(go))
            await until(lambda: executed(tmp_path) == ["first"])
            old = await replaced(worker)
            second, third = (ask(worker, "run", n, "s", tag=f"s{n}") for n in (2, 3))
            await until(lambda: worker.waiting == 2)
            # The new interpreter is everybody else's meanwhile.
            other = await ask(worker, "run", 4, tag="other")
            assert worker.interpreter is not None and other["pid"] == worker.interpreter.child.pid != old
            new = worker.interpreter
            os.kill(new.child.pid, signal.SIGKILL)
            await until(lambda: worker.interpreter is not new)
            assert executed(tmp_path) == ["first", "other"]
            go.touch()
            assert (await first)["pid"] == old
            answers = await asyncio.gather(second, third)
            assert {answer["pid"] for answer in answers} == {worker.interpreter.child.pid}
            assert executed(tmp_path) == ["first", "other", "s2", "s3"]
            await idle(worker)

    run(body)


def test_a_slot_that_was_granted_by_an_interpreter_which_is_gone_is_none(tmp_path: Path) -> None:
    """The grant and the loss come in one turn of the loop, before the request's own turn."""

    async def body() -> None:
        async with working(tmp_path) as worker:
            go = tmp_path / "go"
            first = ask(worker, "until_file", 1, tag="first", path=str(go))
            await until(lambda: executed(tmp_path) == ["first"])
            second = ask(worker, "run", 2, tag="second")
            await until(lambda: worker.waiting == 1)
            released, old = worker._runs._released, worker.interpreter
            assert old is not None

            def releasing(request_id: str) -> None:
                worker._runs._released = released
                released(request_id)
                os.kill(old.child.pid, signal.SIGKILL)
                worker.admission.set_open(False)  # as the keeper does when it notices the loss

            worker._runs._released = releasing
            go.touch()
            assert (await first)["pid"] == old.child.pid
            assert (await second)["pid"] != old.child.pid
            assert executed(tmp_path) == ["first", "second"]
            await idle(worker)

    run(body)


@pytest.mark.parametrize("slot", ["becomes free", "is held"])
def test_what_comes_back_is_in_its_place_before_anybody_else_has_a_turn(tmp_path: Path, slot: str) -> None:
    """A recall and a free slot in one turn: nobody younger starts first, and the queue's bound holds. What
    the interpreter begins before it reads the recall does not come back, unless the slot is held."""
    go = tmp_path / "go"

    async def body() -> None:
        async with working(tmp_path) as worker:
            admission = worker.admission
            assert worker.interpreter is not None
            await warmed(worker)
            os.kill(worker.interpreter.child.pid, signal.SIGSTOP)
            first = "run" if slot == "becomes free" else "until_file"
            calls = [ask(worker, first, 0, tag="r0", **({"path": str(go)} if slot == "is held" else {}))]
            calls += [ask(worker, "run", n, tag=f"r{n}") for n in range(1, 6)]
            await until(lambda: len(worker._runs) == 3)
            waiting = worker.waiting
            in_the_turn: list[tuple[int, bool]] = []  # who waits; whether it waits, or has the free slot
            came_back = worker._runs._came_back

            def coming(attempt: Any) -> None:
                came_back(attempt)
                has_place = attempt.request.id in admission.queue or admission.holds(attempt.request.id)
                in_the_turn.append((worker.waiting, has_place))

            worker._runs._came_back = coming
            admission._recall_ahead()
            os.kill(worker.interpreter.child.pid, signal.SIGCONT)
            if slot == "is held":
                await until(lambda: len(in_the_turn) >= 2)
                go.touch()
            await asyncio.gather(*calls)
            assert [tag for tag in executed(tmp_path) if tag != "warm"] == [f"r{n}" for n in range(6)]
            assert all(count <= waiting and has_place for count, has_place in in_the_turn)
            await idle(worker)

    run(body)


def test_what_a_slot_was_entered_for_is_taken_back_when_the_request_has_not_begun(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            entered: list[str] = []

            def enter() -> Callable[[], None]:
                number = worker.epoch.number
                entered.append(f"enter {number}")
                return lambda: entered.append(f"leave {number}")

            pid = stop(worker)
            call = asyncio.ensure_future(
                worker.execute(request("run", 1, tag="once"), may_move=False, on_slot=enter)
            )
            await until(lambda: worker.running == 1)
            os.kill(pid, signal.SIGKILL)
            await call
            assert entered == ["enter 1", "leave 1", "enter 2"] and executed(tmp_path) == ["once"]
            with pytest.raises(WorkerCrashed):
                await worker.execute(request("die", 2), may_move=False, on_slot=enter)
            assert entered[3:] == ["enter 2"], "it had begun"
            await idle(worker)

    run(body)


# ---- calls to the host -------------------------------------------------------------------------------------


def test_every_call_to_the_host_is_answered_while_other_frames_are_sent(tmp_path: Path) -> None:
    asked, free = [], asyncio.Event()

    async def slow(call: HostCall) -> Encoded:
        asked.append(call.method)
        await free.wait()
        return encode_value({"ok": True})

    async def broken(call: HostCall) -> Encoded:
        raise KeyError(call.method)

    handlers = [slow, broken]

    async def answer(call: HostCall) -> Encoded:
        return await handlers[0](call)

    async def body() -> None:
        async with working(tmp_path, on_host_call=answer) as worker:
            assert worker.interpreter is not None
            client = worker.interpreter.client
            call = ask(worker, "host_info", 1)
            await until(lambda: bool(asked))
            client.cancel("nobody", pb.Cancel.Reason.CALLER)  # another frame goes out meanwhile
            await until(lambda: not client.is_writing)
            free.set()
            assert await asyncio.wait_for(call, 10) == {"ok": True}
            del handlers[0]
            with pytest.raises(SnakepitError, match=r"worker\.info"):
                await asyncio.wait_for(ask(worker, "host_info", 2), 10)
            await idle(worker)

    run(body)


def test_a_listener_that_raises_does_not_end_the_connection(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path) as worker:
            assert worker.interpreter is not None
            client = worker.interpreter.client

            def broken(reply: Any) -> None:
                raise ValueError("nobody expected that")

            client.request(request("run", "direct", tag="direct"), broken)  # type: ignore[arg-type]
            await ask(worker, "run", 2, tag="next")
            assert not client.lost.done() and executed(tmp_path) == ["direct", "next"]
            await client.close()
            await client.close()
            assert not await client.shutdown(0.1, 0.1) and not await client.healthy(0.1)

    run(body)


class Unbegun(Entry):
    __slots__ = ()
    begun = 0  # as if its interpreter died of the request before it began it


class Poisoned(Marked):
    """No interpreter lives to begin what comes."""

    is_poison = True

    def begins(self, request: pb.Request, marked: bool) -> Entry | None:
        mark = super().begins(request, marked)
        if mark is not None and self.is_poison:
            mark.__class__ = Unbegun
        return mark


def test_a_crash_that_leaves_it_unbegun_again_and_again_is_told_in_the_end(tmp_path: Path) -> None:
    async def body() -> None:
        async with working(tmp_path, Poisoned) as worker:
            worker.keeper.budget = RestartBudget(RestartPolicy(first_delay=0.01))
            with pytest.raises(WorkerCrashed, match="safe to send it again") as crash:
                await ask(worker, "die", 1, tag="poison")
            assert not crash.value.may_have_started
            assert executed(tmp_path) == ["poison"] * (MOST_LOSSES + 1)
            worker.ports.record.is_poison = False  # type: ignore[attr-defined]
            await ask(worker, "run", 2, tag="next")
            await idle(worker)

    run(body)
