"""What a request gets: its value, or one structured failure."""

from __future__ import annotations

import os

import grpc
import pytest

from snakepit_ray.wire._pb import interpreter_pb2 as pb
from tests.bridge.harness import KIND, CallFailed


def test_sync_async_and_hidden_coroutines_answer(stream) -> None:
    assert stream.run("echo", {"value": {"x": [1, 2.5, None, "é"]}}) == {"x": [1, 2.5, None, "é"]}
    assert stream.run("async_add", {"a": 1, "b": 2}) == 3
    assert stream.run("hidden_coroutine") == "later"


def test_every_request_gets_one_reply_with_the_epoch_and_the_time(stream) -> None:
    ids = [stream.request("echo", {"value": i}) for i in range(300)]
    assert [stream.result(i) for i in ids] == list(range(300))
    assert {len(replies) for replies in stream.replies.values()} == {1}
    reply = stream.reply(ids[0])
    assert (reply.epoch.incarnation, reply.epoch.number) == (7, 3)
    assert reply.ran_us > 0


def test_capacity_commands_run_at_once(stream) -> None:
    first, second = stream.request("rendezvous", {"tag": "a"}), stream.request("rendezvous", {"tag": "b"})
    assert (stream.result(first), stream.result(second)) == (True, True)


def test_a_command_knows_its_request(stream) -> None:
    fields = {"session": "s-1", "attempt": 2, "traceparent": "00-1-2-01", "budget_ms": 30_000, "id": "mine"}
    assert stream.run("about", {}, **fields) == {
        "session": "s-1",
        "request": "mine",
        "command": "about",
        "attempt": 2,
        "traceparent": "00-1-2-01",
        "worker": "w1",
        "has_budget": True,
        "same": True,
    }
    assert stream.run("about_async", {}, id="a") == {"request": "a", "same": True}


def test_a_session_starts_once(stream) -> None:
    for _ in range(3):
        stream.run("echo", {}, session="fresh")
    assert stream.run("noted")["sessions"].count("fresh") == 1


@pytest.mark.parametrize("name", ["echo2", "eco", "", "note\x00", "x" * 10_000])
def test_an_unknown_command_names_the_nearest(stream, name: str) -> None:
    failed = stream.failure(name)
    assert (failed.kind, failed.type) == ("UNKNOWN_COMMAND", "UnknownCommand")
    assert "echo" in failed.details["commands"]
    if name.startswith("ec"):
        assert failed.details["nearest"][0] == "echo"
        assert "did you mean 'echo'" in failed.message
    assert len(failed.message) < 2000


def test_the_failure_of_a_command(stream) -> None:
    failed = stream.failure("deep_error")
    assert (failed.kind, failed.type, failed.details) == ("COMMAND", "LookupError", {"module": "builtins"})
    assert failed.message == "lost \\ud800"
    assert failed.traceback.startswith("Traceback (most recent call last)")
    assert "invalid literal for int()" in failed.traceback
    assert "commands.py" in failed.traceback
    assert "snakepit_bridge" not in failed.traceback


@pytest.mark.parametrize("command", ["leave", "leave_async"])
@pytest.mark.parametrize(
    ("how", "type_"),
    [
        ("exit", "SystemExit"),
        ("interrupt", "KeyboardInterrupt"),
        ("base", "BaseException"),
        ("unprintable", "Unprintable"),
    ],
)
def test_nothing_that_a_command_raises_ends_the_interpreter(
    stream, command: str, how: str, type_: str
) -> None:
    failed = stream.failure(command, {"how": how})
    assert (failed.kind, failed.type) == ("COMMAND", type_)
    assert stream.run("echo", {"value": 1}) == 1
    assert stream.run("async_add", {"a": 1, "b": 1}) == 2


@pytest.mark.parametrize("command", ["generator", "async_generator", "returns_generator"])
def test_a_stream_is_not_executed(stream, command: str) -> None:
    failed = stream.failure(command)
    assert failed.kind == "INVALID_ARGUMENTS"
    assert "execute_stream" in failed.message


def test_a_result_that_cannot_be_carried_names_the_path(stream) -> None:
    failed = stream.failure("unencodable")
    assert failed.kind == "ENCODING"
    assert failed.message.startswith('result["bad"][0]: cannot encode')


def test_a_pool_may_ask_for_markers(bridge) -> None:
    stream = bridge("commands:Commands", unserializable="marker").start().attach()
    marker = {"$snakepit": "unserializable", "type": "builtins.object"}
    assert stream.run("unencodable") == {"fine": 1, "bad": [marker]}


def test_a_result_over_the_limit_is_refused_and_one_at_it_is_not(bridge) -> None:
    limit = 5 * 1024 * 1024
    stream = bridge("commands:Commands", max_message_size=limit).start().attach()
    request = stream.request("large_text", {"size": limit - 2})
    assert len(stream.reply(request).value.json) == limit
    failed = stream.failure("large_text", {"size": limit - 1})
    assert failed.kind == "PAYLOAD_TOO_LARGE"
    assert failed.details == {"size": limit + 1, "limit": limit}
    assert stream.run("echo", {"value": 1}) == 1
    # Data that may travel out of band is not bounded by it, also where there is no shared memory.
    request = stream.request("large", {"size": 3 * limit})
    assert len(stream.reply(request).value.buffers[0].inline) == 3 * limit


def test_large_answers_of_many_commands_stay_within_the_limit_of_a_frame(bridge) -> None:
    limit = 3 * 1024 * 1024
    stream = bridge("commands:Commands", max_message_size=limit).start().attach()
    ids = [stream.request("large", {"size": limit - 100}) for _ in range(8)]
    assert [len(stream.reply(i).value.buffers[0].inline) for i in ids] == [limit - 100] * 8


@pytest.mark.parametrize("data", [b"", b"{}"])
def test_no_arguments_are_an_empty_object(stream, data: bytes) -> None:
    assert stream.result(stream.request("echo", data)) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[1]", "must be an object"),
        (b"{", "cannot decode the payload"),
        (b"\xff", "cannot decode the payload"),
        (b'{"value": NaN}', "NaN is not JSON"),
        (b'{"value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"value": {"$snakepit": "bytes", "buffer": 3}}', 'args["value"]: cannot decode buffer 3'),
        (b'{"value": {"$snakepit": "pickle", "buffer": 0}}', "there are bytes, float, int"),
    ],
)
def test_arguments_that_cannot_be_read(stream, data: bytes, words: str) -> None:
    failed = stream.failure("echo", data)
    assert failed.kind == "INVALID_ARGUMENTS"
    assert words in failed.message


def test_refs_are_arguments_by_name_or_all_of_them(stream) -> None:
    ref = pb.NamedPayload(name="value", value=pb.Payload(json=b"[1,2]"))
    assert stream.result(stream.request("echo", {}, refs=[ref])) == [1, 2]
    whole = pb.NamedPayload(name="", value=pb.Payload(json=b'{"value": 5}'))
    assert stream.result(stream.request("echo", {}, refs=[whole])) == 5


def shared(bridge, size: int = 1 << 20, **config):
    """An interpreter that shares memory with us, and its stream."""
    process = bridge("commands:Commands", shared=size, **config).start()
    assert "arena" in process.ready["features"]
    return process, process.attach()


def test_a_segment_is_read_and_released(bridge) -> None:
    process, stream = shared(bridge)
    os.pwrite(process.memories[0], b"hello", 4096)
    segment = pb.Segment(id="seg-1", offset=4096, size=5)
    tag = {"value": {"$snakepit": "bytes", "buffer": 0}}
    request = stream.request("echo", tag, [pb.Buffer(segment=segment)])
    assert stream.reply(request).value.buffers[0].inline == b"hello"
    stream.until(lambda: stream.released)
    assert stream.released == ["seg-1"]


@pytest.mark.parametrize(("offset", "size"), [(2**19, 2**20), (2**60, 1), (0, 2**62), (2**63, 2**63), (0, 0)])
def test_a_segment_outside_of_the_memory_is_an_error_and_released(bridge, offset: int, size: int) -> None:
    _, stream = shared(bridge)
    segment = pb.Segment(id="seg", offset=offset, size=size)
    failed = stream.failure(
        "echo", {"value": {"$snakepit": "bytes", "buffer": 0}}, [pb.Buffer(segment=segment)]
    )
    assert "of a shared memory of 1048576" in failed.message
    stream.until(lambda: stream.released == ["seg"])


@pytest.mark.parametrize("place", [pb.Buffer(), pb.Buffer(beside=3)])
def test_a_buffer_that_is_nowhere_is_an_error(stream, place: pb.Buffer) -> None:
    failed = stream.failure("echo", {"value": {"$snakepit": "bytes", "buffer": 0}}, [place])
    assert "not in the message" in failed.message


def test_a_segment_without_shared_memory_is_an_error_and_released(stream) -> None:
    segment = pb.Buffer(segment=pb.Segment(id="none", offset=0, size=8))
    failed = stream.failure("echo", {"value": {"$snakepit": "bytes", "buffer": 0}}, [segment])
    assert "there is no shared memory" in failed.message
    stream.until(lambda: "none" in stream.released)


def test_segments_of_requests_that_are_refused_or_never_looked_at_are_released(bridge) -> None:
    process, stream = shared(bridge)
    os.pwrite(process.memories[0], b"x" * 100, 0)
    buffers = [pb.Buffer(segment=pb.Segment(id="a", offset=0, size=100))]
    stream.failure("no_such_command", {}, buffers)
    stream.run("echo", {"value": 1}, buffers=[pb.Buffer(segment=pb.Segment(id="b", offset=0, size=100))])
    stream.until(lambda: set(stream.released) == {"a", "b"})


def test_large_results_are_written_into_the_memory_and_their_ranges_used_again(bridge) -> None:
    process, stream = shared(bridge, size=64 << 10)
    data = bytes(range(256)) * 80  # 20,480 bytes
    tag = {"value": {"$snakepit": "bytes", "buffer": 0}}
    places = [
        stream.reply(stream.request("echo", tag, [pb.Buffer(inline=data)])).value.buffers[0] for _ in range(4)
    ]
    assert [p.segment.offset for p in places[:3]] == [0, 20480, 40960]
    assert all(os.pread(process.memories[1], p.segment.size, p.segment.offset) == data for p in places[:3])
    assert places[3].inline == data  # no room: in the message
    assert "raise shared_memory" in process.stderr()
    stream.send(released=[places[1].segment.id])
    again = stream.reply(stream.request("echo", tag, [pb.Buffer(inline=data)])).value.buffers[0]
    assert again.segment.offset == 20480


def test_prints_and_stdin_are_free(commands, stream) -> None:
    assert stream.run("prints") == ""
    assert b"\xff\xfe garbage" in commands.stdout()
    assert "to stderr" in commands.stderr()


def test_a_request_id_that_runs_already_is_refused(stream) -> None:
    first = stream.request("wait_until_cancelled", {"tag": "twice"}, id="same")
    stream.until(lambda: stream.host_calls)
    stream.request("echo", id="same")
    stream.until(lambda: stream.replies.get("same"))
    assert "is running already" in stream.replies["same"][0].failure.message
    stream.cancel(first)
    stream.until(lambda: len(stream.replies["same"]) == 2)
    assert stream.replies["same"][1].failure.kind == KIND.CANCELLED


def test_host_calls_bring_values_and_failures(commands) -> None:
    def answer(call: pb.HostCall) -> pb.HostReply:
        if call.method == "echo":
            return pb.HostReply(id=call.id, value=call.args)
        failure = pb.Failure(kind=KIND.TOOL_NOT_FOUND, type="ToolNotFound", message="there is: echo")
        return pb.HostReply(id=call.id, failure=failure)

    stream = commands.attach(on_host_call=answer)
    for command in ("ask", "ask_async"):
        value = stream.run(
            command, {"method": "echo", "payload": [1, 2**60]}, session="s", id=f"id-{command}"
        )
        assert value == {"payload": [1, {"$snakepit": "int", "value": str(2**60)}]}
        failed = stream.failure(command, {"method": "nothing"})
        assert (failed.type, failed.message) == ("ToolNotFound", "there is: echo")
    call = stream.host_calls[0]
    assert (call.method, call.session, call.request_id) == ("echo", "s", "id-ask")
    assert "await ctx.ahost" in stream.failure("ask_async", {"method": "echo", "wrongly": True}).message
    stream.close()


def test_telemetry_is_told_and_not_waited_for(stream) -> None:
    assert stream.run("emit") is None
    call = stream.until(lambda: stream.host_calls)[0]
    assert call.method == "telemetry.emit"
    assert call.args.json == b'{"event":"mine.done","measurements":{"took":1.5},"metadata":{"who":"me"}}'


def test_wrong_versions_of_the_wire_are_named(commands) -> None:
    stream = commands.attach(protocol=9)
    with pytest.raises(ConnectionError, match="protocol 9, this interpreter 2"):
        stream.until(lambda: stream.welcome)
    if commands.wire == "grpc":
        assert stream.ended.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_the_welcome_names_the_process(commands, stream) -> None:
    welcome = stream.until(lambda: stream.welcome)
    assert (welcome.protocol, welcome.pid) == (2, commands.pid)


def test_reattaching_ends_the_older_stream_and_what_it_ran(commands) -> None:
    first = commands.attach()
    first.request("wait_until_cancelled", {"tag": "orphan", "ending": "value"})
    first.until(lambda: first.host_calls)
    second = commands.attach()
    assert second.run("echo", {"value": 1}) == 1
    with pytest.raises((ConnectionError, TimeoutError)):
        first.until(lambda: False)
    assert first.ended is not None
    assert second.run("echo", {"value": os.getpid()}) == os.getpid()
    second.close()


def test_numbers_of_failure_kinds_are_those_of_the_protos() -> None:
    from snakepit_bridge.values import failures

    for name, number in KIND.items():
        if number:
            assert getattr(failures, name) == number


def test_a_failed_call_prints_its_kind() -> None:
    failure = pb.Failure(kind=KIND.COMMAND, type="ValueError", message="no")
    assert str(CallFailed(failure)) == "COMMAND ValueError: no"
