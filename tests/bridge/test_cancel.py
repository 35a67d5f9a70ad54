"""Cancellations, budgets and the end of a stream."""

from __future__ import annotations

import asyncio
import time

import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb

WAITING = ["wait_until_cancelled", "sleep_until_cancelled"]


@pytest.fixture
def stream(commands):
    """An attachment whose host answers the `started` calls."""
    one = commands.attach(on_host_call=lambda call: pb.HostReply(id=call.id, value=pb.Payload(json=b"null")))
    yield one
    one.close()


def started(stream, command: str, count: int = 1, **args) -> str:
    """A request whose command has begun."""
    request = stream.request(command, args)
    stream.until(lambda: len(stream.host_calls) >= count)
    return request


@pytest.mark.parametrize("command", WAITING)
@pytest.mark.parametrize(
    ("reason", "kind"),
    [(pb.Cancel.CALLER, "CANCELLED"), (pb.Cancel.SHUTDOWN, "CANCELLED"), (pb.Cancel.DEADLINE, "DEADLINE")],
)
def test_a_running_command_is_told(stream, command: str, reason: int, kind: str) -> None:
    request = started(stream, command)
    stream.cancel(request, reason)
    assert pb.Failure.Kind.Name(stream.reply(request).failure.kind) == kind


@pytest.mark.parametrize(
    ("command", "value"),
    [("wait_until_cancelled", {"cancelled": True}), ("sleep_until_cancelled", "stopped in good order")],
)
def test_a_command_that_ends_in_good_order_gives_its_value(stream, command: str, value) -> None:
    request = started(stream, command, ending="value")
    stream.cancel(request)
    assert stream.result(request) == value


def test_other_words_for_cancelled_count_and_other_errors_do_not(stream) -> None:
    request = started(stream, "wait_until_cancelled", ending="future")
    stream.cancel(request)
    assert stream.reply(request).failure.kind == pb.Failure.CANCELLED
    request = started(stream, "wait_until_cancelled", 2, ending="error")
    stream.cancel(request)
    assert stream.reply(request).failure.type == "ValueError"


def test_what_waits_in_the_interpreter_never_runs_once_it_is_cancelled(bridge) -> None:
    one = bridge("commands:Commands", capacity=1).start()
    stream = one.attach(on_host_call=lambda call: pb.HostReply(id=call.id, value=pb.Payload(json=b"null")))
    running = started(stream, "wait_until_cancelled", tag="first")
    waiting = [stream.request("note", {"tag": f"never-{i}"}) for i in range(5)]
    kept = stream.request("note", {"tag": "kept"})
    for request in waiting:
        stream.cancel(request)
    for request in waiting:
        assert stream.reply(request).failure.kind == pb.Failure.CANCELLED
        assert stream.reply(request).ran_us == 0
    stream.cancel(running)
    assert stream.result(kept) == ["first", "kept"]


@pytest.mark.parametrize("command", WAITING)
def test_the_bridge_itself_ends_a_command_whose_budget_is_used_up(stream, command: str) -> None:
    began = time.monotonic()
    request = stream.request(command, {"tag": "budget"}, budget_ms=50)
    reply = stream.reply(request)
    assert reply.failure.kind == pb.Failure.DEADLINE
    assert "its budget ended" in reply.failure.message
    assert time.monotonic() - began >= 0.04  # it begins when the request arrives, not when the command does
    assert 0 < reply.ran_us < 5_000_000


def test_a_waiting_request_whose_budget_is_used_up_never_runs(bridge) -> None:
    stream = (
        bridge("commands:Commands")
        .start()
        .attach(on_host_call=lambda call: pb.HostReply(id=call.id, value=pb.Payload(json=b"null")))
    )
    running = started(stream, "wait_until_cancelled", tag="first")
    late = stream.request("note", {"tag": "late"}, budget_ms=20)
    later = stream.request("note", {"tag": "later"}, budget_ms=30)
    for request in (late, later):
        assert stream.reply(request).failure.kind == pb.Failure.DEADLINE
    stream.cancel(running)
    stream.reply(running)
    assert stream.run("noted")["log"] == ["first"]


def test_budgets_in_any_order_each_end_in_time(stream) -> None:
    budgets = {
        stream.request("sleep_until_cancelled", {}, budget_ms=ms): ms for ms in (400, 30, 200, 60, 5000)
    }
    *short, long = sorted(budgets, key=budgets.get)
    for request in short:
        assert stream.reply(request).failure.kind == pb.Failure.DEADLINE
    assert long not in stream.replies
    stream.cancel(long)
    assert stream.reply(long).failure.kind == pb.Failure.CANCELLED


def test_a_command_that_waits_for_its_host_is_woken(commands) -> None:
    stream = commands.attach()
    request = stream.request("swallow_cancel")
    stream.until(lambda: stream.host_calls)
    stream.cancel(request)
    assert stream.result(request) == "woken"
    stream.close()


def test_a_cancellation_that_nobody_waits_for_is_ignored(stream) -> None:
    stream.cancel("nobody")
    done = stream.request("echo", {"value": 1})
    assert stream.result(done) == 1
    stream.cancel(done)
    assert stream.run("echo", {"value": 2}) == 2
    assert len(stream.replies[done]) == 1


def test_a_storm_of_cancellations_leaves_one_reply_each(stream) -> None:
    ids = []
    for i in range(200):
        ids.append(
            stream.request("async_add" if i % 2 else "echo", {"a": 1, "b": 2} if i % 2 else {"value": 3})
        )
        stream.cancel(ids[-1])
    for request in ids:
        reply = stream.reply(request)
        assert reply.value.json == b"3" or reply.failure.kind == pb.Failure.CANCELLED
    assert stream.run("echo", {"value": 1}) == 1


@pytest.mark.parametrize("command", WAITING)
def test_the_end_of_the_stream_cancels_what_runs(commands, command: str) -> None:
    first = commands.attach(
        on_host_call=lambda call: pb.HostReply(id=call.id, value=pb.Payload(json=b"null"))
    )
    started(first, command, tag="left")
    first.call.cancel()
    second = commands.attach()
    description = pb.Description.FromString(commands.unary("/snakepit.v1.Interpreter/Describe"))
    # Both of the two slots are free again only when the left one has ended.
    a, b = second.request("rendezvous", {"tag": "a"}), second.request("rendezvous", {"tag": "b"})
    assert (second.result(a), second.result(b)) == (True, True)
    assert description.running <= 1
    second.close()


def test_a_task_that_is_cancelled_before_its_first_step_has_an_outcome() -> None:
    from snakepit_bridge.adapter.context import SessionContext
    from snakepit_bridge.adapter.runs import Run
    from snakepit_bridge.values.failures import CANCELLED, Stopped

    async def body() -> None:
        outcomes, over = [], []
        context = SessionContext("", "r1", "later")
        run = Run(None, context, True, lambda run: outcomes.append("ran"), lambda *one: outcomes.append(one))
        assert run.begin()
        run.start_task(asyncio.get_running_loop(), over.append)
        run.cancel(CANCELLED)
        run.cancel_task()
        await asyncio.wait([run._task])
        await asyncio.sleep(0)  # its callbacks
        ((one, value, error),) = outcomes
        assert one is run and value is None and isinstance(error, Stopped)
        assert over == [run]

    asyncio.run(body())


def test_what_has_begun_never_says_that_it_has_not(monkeypatch) -> None:
    """A run that is cancelled within the same microsecond had said 0, and its host ran it again."""
    from snakepit_bridge.adapter import runs
    from snakepit_bridge.adapter.context import SessionContext

    run = runs.Run(None, SessionContext("", "r1", "quick"), False, None, None)
    assert run.ran_us == 0
    monkeypatch.setattr(runs.time, "perf_counter_ns", lambda: 5)
    assert run.begin() and run.ran_us == 1
    monkeypatch.setattr(runs.time, "perf_counter_ns", lambda: 5 + 7_999)
    assert run.ran_us == 7
