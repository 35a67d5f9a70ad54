"""Frames on their own socket: who is let in, what is refused, what is answered while commands run."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import google.protobuf
import pytest

from snakepit_ray.rpc import InterpreterLost
from snakepit_ray.rpc import frames_wire as kinds
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.frames import HEADER, LONGEST, pack
from tests.bridge.harness import TIMEOUT, WIRE, BridgeProcess, Frames, Refused
from tests.conftest import wait_until

from snakepit_bridge.server import frames as server  # isort: skip


@pytest.fixture(autouse=True, scope="module")
def _wire() -> Iterator[None]:
    WIRE.append("frames")
    yield
    WIRE.pop()


@pytest.fixture
def link(commands: BridgeProcess) -> Iterator[Frames]:
    """A connection that was let in."""
    one = Frames(commands)
    yield one
    one.close()


def hello() -> bytes:
    return pb.ToInterpreter(hello=pb.Hello(protocol=2, worker_id="w1")).SerializeToString()


def is_served(one: BridgeProcess) -> bool:
    return one.unary("/grpc.health.v1.Health/Check") == b"\x08\x01"


# ---- who is let in -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["", "wrong", "x" * 4000])
def test_a_wrong_secret_is_refused(commands: BridgeProcess, secret: str) -> None:
    link = Frames(commands, secret)
    with pytest.raises(Refused, match="the secret is missing or wrong"):
        link.next()
    link.close()


@pytest.mark.parametrize("kind", [kinds.PING, kinds.TO_INTERPRETER, kinds.SHUTDOWN, 0, 255])
def test_another_first_frame_is_refused(commands: BridgeProcess, kind: int) -> None:
    link = Frames.__new__(Frames)
    link.connect(commands)
    link.send(kind, commands.secret.encode())
    with pytest.raises(Refused, match="the secret is missing or wrong"):
        link.next()
    link.close()
    assert is_served(commands)


def test_a_first_frame_that_is_too_long_is_refused_at_its_header(commands: BridgeProcess) -> None:
    link = Frames.__new__(Frames)
    link.connect(commands)
    link.socket.sendall(HEADER.pack(kinds.SECRET, 4097))
    with pytest.raises(Refused, match="4,097 bytes, the limit is 4,096"):
        link.next()
    link.close()


def test_who_says_nothing_keeps_nobody_else_out(commands: BridgeProcess) -> None:
    silent = Frames.__new__(Frames)
    silent.connect(commands)
    assert is_served(commands)
    silent.close()


def test_the_socket_belongs_to_its_owner_alone(commands: BridgeProcess) -> None:
    mode = os.stat(commands.config["frames"]["socket"]).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="this system does not say who connects")
def test_another_user_is_told_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert server._is_own_user(ours)
        monkeypatch.setattr("os.geteuid", lambda: 12345)
        assert not server._is_own_user(ours)
        with pytest.raises(InterpreterLost, match=f"is served by user {os.getuid()}, not by user 12345"):
            kinds._require_own_user(ours, "it")


@pytest.mark.parametrize("what", ["a file", "a socket"])
@pytest.mark.parametrize("wire", ["auto", "frames"])
def test_what_lies_at_its_path_is_refused_and_left_alone(bridge, what: str, wire: str) -> None:
    one = bridge(wire=wire)
    path = one.config["frames"]["socket"]
    if what == "a file":
        Path(path).write_text("mine")
    else:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
    error = one.start_error()
    assert (error["stage"], error["type"]) == ("serve", "OSError")
    assert error["message"] == f"cannot serve frames on {path}: Address already in use"


def test_a_path_that_is_too_long_is_an_error_of_the_start(bridge, tmp_path: Path) -> None:
    error = bridge(frames={"socket": str(tmp_path / ("x" * 120)), "alone": True}).start_error()
    assert error["stage"] == "serve"
    assert "too long" in error["message"]


# ---- what is no frame --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "payload", "words"),
    [
        (kinds.TO_INTERPRETER, b"\xff\xff", "a frame holds no ToInterpreter"),
        (kinds.SHUTDOWN, b"\xff\xff", "a frame holds no ShutdownRequest"),
        (kinds.TO_INTERPRETER, b"", "must hold a Hello"),
        (kinds.FROM_INTERPRETER, b"", "a host sends no frame of kind 4"),
        (kinds.SECRET, b"", "a host sends no frame of kind 1"),
        (77, b"", "a host sends no frame of kind 77"),
        (kinds.PING, b"x" * 65, "a host sends no frame of kind 5 and 65 bytes"),
    ],
)
def test_what_breaks_the_rules_ends_its_connection_alone(
    commands: BridgeProcess, link: Frames, kind: int, payload: bytes, words: str
) -> None:
    link.send(kind, payload)
    with pytest.raises(Refused, match=words):
        link.next()
    assert link.next() is None
    assert is_served(commands)


def test_a_length_that_no_message_can_have_is_refused(commands: BridgeProcess, link: Frames) -> None:
    link.socket.sendall(HEADER.pack(kinds.TO_INTERPRETER, LONGEST + 1))
    with pytest.raises(Refused, match=r"2,147,483,648 bytes, the limit is 2,147,483,647"):
        link.next()
    assert is_served(commands)


def test_a_violation_cancels_what_its_connection_ran(commands: BridgeProcess) -> None:
    link = Frames(commands)
    link.send(kinds.TO_INTERPRETER, hello())
    assert link.next() is not None
    asked = pb.Request(id="1", command="wait_until_cancelled", args=pb.Payload(json=b"{}"))
    link.send(kinds.TO_INTERPRETER, pb.ToInterpreter(requests=[asked]).SerializeToString())
    assert link.next() is not None, "it has begun: it calls its host"
    link.send(77, b"")
    with pytest.raises(Refused):
        link.next()
    wait_until(lambda: running(commands) == 0)
    link.close()


def running(one: BridgeProcess) -> int:
    return pb.Description.FromString(one.unary("/snakepit.v1.Interpreter/Describe")).running


def mutated(commands: BridgeProcess, count: int, seed: int) -> None:
    """Connections whose bytes after the secret are damaged: each ends or goes on, and the bridge serves."""
    chance = random.Random(seed)
    asked = pb.Request(id="m", command="echo", args=pb.Payload(json=b'{"value":1}'))
    message = pb.ToInterpreter(requests=[asked]).SerializeToString()
    whole = (
        pack(kinds.TO_INTERPRETER, hello())
        + pack(kinds.PING, b"ping")
        + pack(kinds.TO_INTERPRETER, message)
        + pack(kinds.DESCRIBE, b"")
    )
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(data))
            data[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        link = Frames(commands)
        link.socket.sendall(bytes(data))
        link.socket.shutdown(socket.SHUT_WR)
        try:
            while link.next() is not None:
                pass
        except Refused:
            pass
        link.close()


def test_damaged_bytes_harm_nobody_else(commands: BridgeProcess) -> None:
    mutated(commands, 200, 1)
    assert is_served(commands)
    assert commands.attach().run("echo", {"value": 5}) == 5


@pytest.mark.slow
def test_many_damaged_bytes_harm_nobody_else(commands: BridgeProcess) -> None:
    mutated(commands, 2_000, 2)
    assert is_served(commands)


# ---- while commands run ------------------------------------------------------------------------------------


def test_pings_and_descriptions_are_answered_while_commands_run(commands: BridgeProcess, stream) -> None:
    busy = [stream.request("wait_until_cancelled") for _ in range(2)]
    stream.until(lambda: len(stream.host_calls) == 2)
    link = Frames(commands)
    assert link.ask(kinds.PING, b"0123", kinds.PONG) == b"\x010123"
    assert running(commands) == 2
    link.close()
    for one in busy:
        stream.cancel(one)
        stream.reply(one)


def test_shutdown_is_answered_and_pings_say_that_it_stops_serving(bridge) -> None:
    one = bridge("commands:Commands").start()
    stream = one.attach()
    stream.request("wait_until_cancelled", {"ending": "value"})
    stream.until(lambda: stream.host_calls)
    link = Frames(one)
    link.ask(kinds.SHUTDOWN, pb.ShutdownRequest(grace_ms=5000).SerializeToString(), kinds.SHUTTING_DOWN)
    wait_until(lambda: link.ask(kinds.PING, b"", kinds.PONG) == b"\2")
    link.close()


def test_a_host_that_does_not_read_holds_up_its_answers_alone(bridge) -> None:
    """More than the socket holds: the commands run all the same, what is cancelled is, and all of it comes in
    order once the host reads."""
    one = bridge("commands:Commands", capacity=1).start()
    link = Frames(one)
    link.send(kinds.TO_INTERPRETER, hello())
    for number in range(40):
        payload = pb.Payload(json=json.dumps({"size": 100_000}).encode())
        asked = pb.Request(id=str(number), command="large_text", args=payload)
        link.send(kinds.TO_INTERPRETER, pb.ToInterpreter(requests=[asked]).SerializeToString())
    wait_until(lambda: running(one) == 0)
    come: list[str] = []
    while len(come) < 40:
        kind, payload = link.next() or (0, b"")
        assert kind == kinds.FROM_INTERPRETER
        come += [reply.id for reply in pb.FromInterpreter.FromString(payload).replies]
    assert come == [str(number) for number in range(40)]
    link.close()


# ---- the end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["auto", "frames"])
@pytest.mark.parametrize("how", ["SIGTERM", "lifeline"])
def test_both_sockets_go_with_the_interpreter(bridge, wire: str, how: str) -> None:
    one = bridge(wire=wire).start()
    if how == "SIGTERM":
        one.process.terminate()
    else:
        one.process.stdin.close()
    one.wait()
    wait_until(lambda: not os.path.exists(one.config["frames"]["socket"]))


def test_a_forked_child_does_not_hold_the_connection(bridge) -> None:
    """The end of the connection says that the interpreter has died, whatever of it lives on."""
    one = bridge("forking:Forking").start()
    stream = one.attach()
    child = stream.run("fork_and_stay")
    try:
        one.process.kill()
        wait_until(lambda: stream.ended is not None)
        os.kill(child, 0)  # it is there still
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_was_answered_is_delivered_before_the_end(bridge) -> None:
    one = bridge("commands:Commands").start()
    stream = one.attach()
    asked = stream.request("wait_until_cancelled", {"ending": "value"})
    stream.until(lambda: stream.host_calls)
    one.process.terminate()
    assert stream.reply(asked).HasField("value")
    assert one.wait() == 0


# ---- without gRPC ------------------------------------------------------------------------------------------


def test_alone_it_loads_nothing_of_grpc(bridge) -> None:
    one = bridge("loaded:Loaded").start()
    assert one.ready["address"] is None and "frames" in one.ready["features"]
    assert one.attach().run("of_grpc") == []


def test_beside_grpc_both_are_served(bridge) -> None:
    one = bridge("loaded:Loaded", wire="auto").start()
    assert one.ready["address"] and "frames" in one.ready["features"]
    assert one.attach().run("of_grpc")
    assert is_served(one)
    link = Frames(one)
    assert link.ask(kinds.PING, b"", kinds.PONG) == b"\1"
    link.close()


def test_a_python_without_grpc_says_so_and_serves_frames_alone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "google").symlink_to(Path(google.protobuf.__file__).parents[1])
    python, path = str(tmp_path / "bare/bin/python"), str(tmp_path / "packages")
    one = BridgeProcess(python=python, env={"PYTHONPATH": path}, wire="auto")
    other = BridgeProcess(python=python, env={"PYTHONPATH": path}, wire="grpc")
    try:
        assert one.start().ready["address"] is None
        assert one.attach().run("add", {"a": 1, "b": 2}) == {"result": 3}
        assert "lacks grpcio" in other.start_error()["message"]
    finally:
        one.stop()
        other.stop()


def test_connections_that_end_leave_no_descriptor(commands: BridgeProcess) -> None:
    assert is_served(commands)
    before = descriptors(commands)
    for _ in range(20):
        assert is_served(commands)
    wait_until(lambda: descriptors(commands) <= before, TIMEOUT)


def descriptors(one: BridgeProcess) -> int:
    return len(os.listdir(f"/proc/{one.pid}/fd"))
