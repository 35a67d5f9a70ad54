"""The worker's end of frames: what it sends, what it refuses, and what a peer that misbehaves comes to."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from snakepit_ray.errors import WorkerStartError
from snakepit_ray.rpc import HostSide, InterpreterClient, InterpreterLost, client_to
from snakepit_ray.rpc import frames_wire as kinds
from snakepit_ray.supervisor.arena import Arena
from snakepit_ray.supervisor.interpreter import Interpreter
from snakepit_ray.wire._pb import interpreter_pb2 as pb
from snakepit_ray.wire.frames import HEADER, LONGEST, FrameReader, pack
from tests.supervisor.harness import (
    BRIDGE,
    ROOT,
    refuse_host_calls,
    request,
    run,
    spec,
    supervisor,
    until,
    value,
)

WELCOME = pack(kinds.FROM_INTERPRETER, pb.FromInterpreter(welcome=pb.Welcome(pid=5)).SerializeToString())


class Peer:
    """The interpreter's end of a connection: a plain socket, read and written by the test."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(1)
        self._listener.setblocking(False)
        self._reader = FrameReader(LONGEST)
        self.come: list[tuple[int, bytes]] = []

    async def accept(self) -> None:
        self.socket, _ = await asyncio.get_running_loop().sock_accept(self._listener)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def next(self) -> tuple[int, bytes]:
        """The next frame of the worker."""
        while not self.come:
            data = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
            assert data, "the worker has ended it"
            self.come = self._reader.feed(data)
        return self.come.pop(0)

    async def ended(self) -> None:
        """Returns when the worker has ended the connection."""
        try:
            while await asyncio.get_running_loop().sock_recv(self.socket, 65536):
                pass
        except ConnectionResetError:
            pass

    def close(self) -> None:
        for one in (self._listener, getattr(self, "socket", None)):
            if one is not None:
                one.close()


def client(path: str | Path) -> InterpreterClient:
    return client_to("", str(path), "secret", HostSide("w-0", refuse_host_calls, Arena(0, 0, "w-0")))


@asynccontextmanager
async def connected(tmp_path: Path, first: bytes = WELCOME) -> AsyncIterator[tuple[InterpreterClient, Peer]]:
    """A client that has its Welcome, and its peer. At the end no task of it is left."""
    before, peer = asyncio.all_tasks(), Peer(tmp_path / "f")
    one = client(peer.path)
    try:
        connecting = asyncio.ensure_future(one.connect(pb.Hello(protocol=2), 10))
        await peer.accept()
        assert await peer.next() == (kinds.SECRET, b"secret")
        assert (await peer.next())[0] == kinds.TO_INTERPRETER
        await peer.send(first)
        await connecting
        yield one, peer
    finally:
        await one.close()
        peer.close()
    await until(lambda: asyncio.all_tasks() == before)


def message(**fields: Any) -> bytes:
    return pack(kinds.FROM_INTERPRETER, pb.FromInterpreter(**fields).SerializeToString())


# ---- what it refuses ---------------------------------------------------------------------------------------


def test_the_welcome_names_the_process(tmp_path: Path) -> None:
    async def body() -> None:
        async with connected(tmp_path) as (one, _):
            assert not one.lost.done()

    run(body)


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (message(leaving=True), "the first message holds no Welcome"),
        (pack(77, b""), "sends no frame of kind 77"),
        (HEADER.pack(kinds.FROM_INTERPRETER, 2**31), "2,147,483,648 bytes"),
        (pack(kinds.FROM_INTERPRETER, b"\xff\xff"), "DecodeError"),
        (pack(kinds.REFUSED, pb.Failure(message="not you").SerializeToString()), "refused: not you"),
        (pack(kinds.REFUSED, b"\xff\xff"), "DecodeError"),
        (b"", "closed the connection"),
    ],
)
def test_a_connection_without_a_welcome_says_why(tmp_path: Path, first: bytes, words: str) -> None:
    async def body() -> None:
        peer = Peer(tmp_path / "f")
        connecting = asyncio.ensure_future(client(peer.path).connect(pb.Hello(), 10))
        await peer.accept()
        await peer.next()
        await peer.send(first)
        peer.socket.close()
        with pytest.raises(InterpreterLost, match=words):
            await connecting
        peer.close()

    run(body)


def test_a_peer_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    async def body() -> None:
        peer = Peer(tmp_path / "f")
        one = client(peer.path)
        with pytest.raises(InterpreterLost, match=r"no Welcome within 0\.05 s"):
            await one.connect(pb.Hello(), 0.05)
        await one.close()
        assert one.lost.done()
        peer.close()

    run(body)


@pytest.mark.parametrize("what", ["nothing", "a file", "a socket that nobody serves", "a link"])
def test_what_lies_at_the_path_must_be_a_socket_that_is_served(tmp_path: Path, what: str) -> None:
    async def body() -> None:
        path = tmp_path / "f"
        if what == "a file":
            path.write_text("")
        elif what == "a link":
            path.symlink_to(tmp_path / "elsewhere")
        elif what != "nothing":
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path))
        words = "somebody else put it there" if what in ("a file", "a link") else "No such file|refused"
        with pytest.raises(InterpreterLost, match=words):
            await client(path).connect(pb.Hello(), 5)

    run(body)


def test_a_socket_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        peer = Peer(tmp_path / "f")
        monkeypatch.setattr("os.geteuid", lambda: 12345)
        with pytest.raises(InterpreterLost, match="is no socket of user 12345"):
            await client(peer.path).connect(pb.Hello(), 5)
        monkeypatch.undo()
        peer.close()

    run(body)


def mutations(tmp_path: Path, count: int) -> None:
    """What an interpreter says, damaged: the client goes on, or its connection is lost with words."""
    chance = random.Random(count)
    reply = pb.Reply(id="1", value=pb.Payload(json=b"1"))
    whole = message(replies=[reply]) + pack(kinds.PONG, b"\1x") + message(leaving=True) + message()

    async def body() -> None:
        for _ in range(count):
            data = bytearray(whole)
            for _ in range(chance.randrange(1, 4)):
                place = chance.randrange(len(data))
                data[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
            wire = kinds.FramesWire("", "")
            loop = asyncio.get_running_loop()
            wire._loop, wire._welcome = loop, loop.create_future()
            wire._transport = Transport()  # type: ignore[assignment]
            got: list[Any] = []
            ended: list[str] = []
            wire._receive, wire._ended = got.append, ended.append
            edges = sorted(chance.randrange(len(data) + 1) for _ in range(3))
            wire.data_received(WELCOME)
            for begin, end in zip([0, *edges], [*edges, len(data)], strict=True):
                if not ended:
                    wire.data_received(bytes(data[begin:end]))
            assert len(ended) <= 1 and all(isinstance(one, pb.FromInterpreter) for one in got)
            assert wire._transport.aborted == bool(ended)

    run(body)


class Transport:
    """A transport that notes its end."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_damaged_bytes_are_messages_or_the_end_of_the_connection(tmp_path: Path) -> None:
    mutations(tmp_path, 2_000)


@pytest.mark.slow
def test_many_damaged_bytes_are_messages_or_the_end_of_the_connection(tmp_path: Path) -> None:
    mutations(tmp_path, 20_000)


# ---- what it sends -----------------------------------------------------------------------------------------


def test_the_first_goes_at_once_and_the_rest_of_the_turn_as_one(tmp_path: Path) -> None:
    async def body() -> None:
        async with connected(tmp_path) as (one, peer):
            for number in range(10):
                one.request(pb.Request(id=str(number)), lambda reply: None)
            counts = []
            while sum(counts) < 10:
                _, payload = await peer.next()
                counts.append(len(pb.ToInterpreter.FromString(payload).requests))
            assert counts == [1, 9]

    run(body)


def test_a_peer_that_does_not_read_costs_one_message(tmp_path: Path) -> None:
    """What gathers stays one message, and the transport's buffer does not grow."""

    async def body() -> None:
        async with connected(tmp_path) as (one, peer):
            wire: Any = one._wire
            large = pb.Payload(json=b"x" * 300_000)
            for number in range(50):
                one.request(pb.Request(id=str(number), args=large), lambda reply: None)
                await asyncio.sleep(0)
            assert one.is_writing
            assert wire._transport.get_write_buffer_size() < 1_000_000
            assert len(wire.outgoing.requests) > 40
            ids: list[str] = []
            while len(ids) < 50:
                _, payload = await peer.next()
                ids += [asked.id for asked in pb.ToInterpreter.FromString(payload).requests]
            assert ids == [str(number) for number in range(50)]
            await until(lambda: not one.is_writing)

    run(body)


def test_what_arrived_before_a_write_failed_is_received(tmp_path: Path) -> None:
    """asyncio reads no more of a connection whose write has failed."""
    answers: list[Any] = []

    async def body() -> None:
        async with connected(tmp_path) as (one, peer):
            for number in range(200):
                one._answers[str(number)] = answers.append
            one.request(pb.Request(id="r"), answers.append)
            for number in range(200):
                await peer.send(message(replies=[pb.Reply(id=str(number), ran_us=1)]))
            peer.socket.close()
            one.cancel("r", pb.Cancel.Reason.CALLER)  # fails: the loop has not read meanwhile
            await one.lost

    run(body)
    assert [answer and answer.ran_us for answer in answers] == [1] * 200 + [None]


# ---- health and the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "is_healthy"), [(b"\1", True), (b"\2", False)])
def test_health_is_what_the_pong_says(tmp_path: Path, status: bytes, is_healthy: bool) -> None:
    async def body() -> None:
        async with connected(tmp_path) as (one, peer):
            asked = asyncio.ensure_future(one.healthy(10))
            kind, token = await peer.next()
            assert kind == kinds.PING
            await peer.send(pack(kinds.PONG, status + b"another") + pack(kinds.PONG, status + token))
            assert await asked is is_healthy

    run(body)


def test_without_a_pong_it_is_not_healthy(tmp_path: Path) -> None:
    async def body() -> None:
        async with connected(tmp_path) as (one, peer):
            assert not await one.healthy(0.05)
            asked = asyncio.ensure_future(one.healthy(30))
            await peer.next()
            await peer.next()
            peer.socket.close()
            assert not await asked, "told at once"
            assert not await one.healthy(30)
            assert not await one.shutdown(0.0, 30)

    run(body)


def test_shutdown_waits_for_the_word_and_no_longer(tmp_path: Path) -> None:
    async def body() -> None:
        async with connected(tmp_path) as (one, peer):
            assert not await one.shutdown(1.5, 0.05)
            kind, payload = await peer.next()
            assert (kind, pb.ShutdownRequest.FromString(payload).grace_ms) == (kinds.SHUTDOWN, 1500)
            await peer.send(pack(kinds.SHUTTING_DOWN, b""))
            assert await one.shutdown(1.5, 10)

    run(body)


def test_close_ends_the_connection_and_answers_what_waits(tmp_path: Path) -> None:
    async def body() -> None:
        async with connected(tmp_path) as (one, peer):
            answers: list[Any] = []
            one.request(pb.Request(id="1"), answers.append)
            await one.close()
            await one.close()
            assert answers == [None] and one.lost.result() == "the connection was closed"
            one.request(pb.Request(id="2"), answers.append)
            assert answers == [None, None]
            await peer.ended()

    run(body)


# ---- which wire a worker has -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "carries", "serves"),
    [
        ("grpc", "GrpcWire", "GrpcWire"),
        ("auto", "FramesWire", "GrpcWire"),
        ("frames", "FramesWire", "FramesWire"),
    ],
)
def test_the_pool_chooses_the_wire(tmp_path: Path, wire: str, carries: str, serves: str) -> None:
    async def body() -> None:
        worker = supervisor(tmp_path, wire=wire)
        await worker.start()
        try:
            assert worker.interpreter is not None
            one: Any = worker.interpreter.client
            assert (type(one._wire).__name__, type(one._services).__name__) == (carries, serves)
            assert (worker.interpreter.ready.address == "") == (wire == "frames")
            assert (await value(worker, request("run", 1, tag="x")))["tag"] == "x"
            assert await one.healthy(10)
        finally:
            await worker.stop()

    run(body)


WITHOUT = """
import asyncio, sys
from pathlib import Path
from tests.supervisor.harness import request, supervisor, value

async def main():
    worker = supervisor(Path(sys.argv[1]), wire="frames")
    await worker.start()
    try:
        assert (await value(worker, request("run", 1, tag="x")))["tag"] == "x"
        assert await worker.interpreter.client.healthy(10)
    finally:
        await worker.stop()

asyncio.run(main())
print([name for name in sys.modules if name.partition(".")[0] == "grpc"])
"""


def test_with_frames_alone_the_worker_loads_no_grpc_either(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WITHOUT, str(tmp_path)]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert ran.stdout == "[]\n", ran.stderr


OLDER = f"""
import sys
sys.path.insert(0, {str(Path(BRIDGE).parent)!r})
from snakepit_bridge.main import config
config._frames = lambda given: (None, False)
from snakepit_bridge.main.bridge import main
main()
"""


def test_a_bridge_that_does_not_know_frames_is_served_over_grpc(tmp_path: Path) -> None:
    script = tmp_path / "older.py"
    script.write_text(OLDER)

    async def body() -> None:
        epoch = pb.Epoch(incarnation=1, number=1)
        start: Callable[[str], Any] = lambda wire: Interpreter.start(  # noqa: E731 - one line of it
            spec(tmp_path, script=str(script), wire=wire), epoch, refuse_host_calls, lambda *_: None
        )
        one = await start("auto")
        assert type(one.client._wire).__name__ == "GrpcWire"
        await one.stop()
        with pytest.raises(WorkerStartError, match='does not take frames, and the pool has wire="frames"'):
            await start("frames")

    run(body)
